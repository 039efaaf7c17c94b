import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Counter, type CounterOptions, counterStats } from '../../../lab/clients/counter.ts';
import { gapAround } from '../../../lab/clients/gaps.ts';
import { closedPort, delay, eachLine, serve, whenDone, within } from './servers.ts';

type Reply = (socket: Socket) => string | undefined | Promise<string | undefined>;

async function count(
  t: TestContext,
  reply: Reply,
  isDone: (client: Counter) => boolean,
  more?: Partial<CounterOptions>,
  host?: string,
) {
  const onSocket = (socket: Socket) =>
    eachLine(socket, (line) => (line === 'next' ? reply(socket) : 'what?'));
  const { target } = await serve(t, onSocket, host);
  const client = new Counter({ target, restMs: 5, ...more });
  return { client, report: await within(15_000, client.run(whenDone(() => isDone(client)))) };
}

test('a correct counter: every number once, many connections, none broken', async (t) => {
  for (const host of ['127.0.0.1', '::1']) {
    let next = 0;
    const { client, report } = await count(
      t,
      () => String(++next),
      ({ connections }) => connections > 20,
      {},
      host,
    );
    assert.equal(report.ok, true);
    assert.deepEqual([report.findings.count, report.broken.count, report.missing], [0, 0, 0]);
    assert.ok(report.connections > 20 && report.replies === next, `${report.replies} of ${next}`);
    assert.equal(client.responses.count, next);
    assert.equal(client.arrivals.total, next);
  }
});

test('replies that cross on their way are no finding', async (t) => {
  let next = 0;
  const slow = async () => {
    const mine = String(++next);
    await delay((Number(mine) * 7) % 23);
    return mine;
  };
  const { report } = await count(t, slow, ({ replies }) => replies > 200, { workers: 16 });
  assert.deepEqual([report.ok, report.findings.count], [true, 0]);
});

test('a number handed out twice is found, with both workers', async (t) => {
  let next = 0;
  let lied = false;
  const { report } = await count(
    t,
    () => {
      if (next === 40 && !lied) {
        lied = true;
        return '40';
      }
      return String(++next);
    },
    () => next > 60,
  );
  assert.equal(report.ok, false);
  const twice = report.findings.kept.filter((finding) => finding.kind === 'twice');
  assert.equal(twice.length, 1);
  assert.equal(twice[0].reply.number, 40);
  assert.equal(twice[0].first?.number, 40);
});

test('a counter that goes back is found, as after a failover to an older state', async (t) => {
  let next = 0;
  let lied = false;
  const { report } = await count(
    t,
    () => {
      if (next === 60 && !lied) {
        lied = true;
        next = 50;
      }
      return String(++next);
    },
    () => lied && next > 80,
  );
  assert.equal(report.ok, false);
  const twice = report.findings.kept.filter((finding) => finding.kind === 'twice');
  assert.deepEqual(
    twice.map((finding) => finding.reply.number),
    [51, 52, 53, 54, 55, 56, 57, 58, 59, 60],
  );
});

test('swapped numbers are found: each once, but a later request got the smaller', async (t) => {
  let next = 0;
  const swap = () => {
    next += 1;
    if (next === 20) return '21';
    if (next === 21) return '20';
    return String(next);
  };
  const { report } = await count(t, swap, () => next > 40, { workers: 1 });
  assert.equal(report.ok, false);
  assert.equal(report.findings.count, 1);
  const [finding] = report.findings.kept;
  assert.equal(finding.kind, 'out-of-order');
  assert.deepEqual(finding.kind === 'out-of-order' && [finding.reply.number, finding.seen.number], [20, 21]);
});

test('numbers out of order over two connections are found', async (t) => {
  let next = 0;
  // The counter skips 31, and hands it out much later to any worker.
  const { report } = await count(
    t,
    () => {
      next += 1;
      if (next === 31) next += 1;
      return next === 90 ? '31' : String(next);
    },
    () => next > 110,
  );
  assert.deepEqual(
    report.findings.kept.map((finding) => finding.kind),
    ['out-of-order'],
  );
});

test('lines that are not numbers, unasked lines and endless numbers are found', async (t) => {
  for (const line of ['', '-1', '1.5', 'ten', '9'.repeat(16), ' 5']) {
    const { report } = await count(
      t,
      () => line,
      ({ findings }) => findings.count > 0,
    );
    assert.equal(report.ok, false, line);
    assert.ok(report.findings.kept.every((finding) => finding.kind === 'malformed'));
  }
  let next = 0;
  const { report } = await count(
    t,
    () => `${++next}\nboo`,
    ({ findings }) => findings.count > 0,
    { workers: 1 },
  );
  assert.equal(report.ok, false);
  assert.ok(report.findings.kept.some((finding) => finding.kind === 'unasked' && finding.line === 'boo'));
});

test('scattered numbers do not fill the memory', async (t) => {
  let next = 0;
  const { report } = await count(
    t,
    () => String(++next * 1_000_000),
    ({ replies, findings }) => replies > 4096 && findings.count > 0,
    { requestsPerConnection: 6000, workers: 1 },
  );
  assert.ok(report.replies > 4096, `${report.replies}`);
  assert.ok(report.findings.kept.some((finding) => finding.kind === 'malformed'));
});

test('a stall of 700 ms is a gap', async (t) => {
  let next = 0;
  let until = 0;
  const beganMs = performance.now();
  const { client, report } = await count(
    t,
    async () => {
      const mine = String(++next);
      if (mine === '50') until = performance.now() + 700;
      await delay(Math.max(0, until - performance.now()));
      return mine;
    },
    ({ responses }) => responses.max > 680,
  );
  assert.deepEqual([report.ok, report.broken.count], [true, 0]);
  const gap = gapAround(client.arrivals, beganMs + 50, performance.now());
  assert.ok(gap !== undefined && gap.ms > 650 && gap.ms < 1500, `gap ${gap?.ms} ms`);
  assert.ok(client.responses.max > 680);
});

test('broken connections are counted by kind, and are no findings of the counter', async (t) => {
  let next = 0;
  const some = (end: (socket: Socket) => void) => async (socket: Socket) => {
    const mine = ++next;
    if (mine % 10 !== 0) return String(mine);
    end(socket);
    return undefined;
  };
  const reset = await count(
    t,
    some((socket) => void socket.resetAndDestroy()),
    ({ broken }) => broken.count > 2,
  );
  assert.equal(reset.report.ok, true);
  assert.ok(reset.report.broken.count > 0);
  assert.equal(reset.report.broken.count, Math.floor(next / 10));
  assert.ok(reset.report.broken.kept.every(({ kind }) => kind === 'reset'));
  assert.equal(reset.report.missing, Math.floor((next - 1) / 10));
  next = 0;
  const closed = await count(
    t,
    some((socket) => void socket.end()),
    ({ broken }) => broken.count > 2,
  );
  assert.ok(closed.report.broken.kept.every(({ kind }) => kind === 'early-close'));
  assert.equal(closed.report.broken.count, Math.floor(next / 10));
  next = 0;
  const silent = await count(
    t,
    some(() => undefined),
    ({ broken }) => broken.count > 2,
    { requestTimeoutMs: 50 },
  );
  assert.ok(silent.report.broken.count > 0);
  assert.ok(silent.report.broken.kept.every(({ kind }) => kind === 'timeout'));
});

test('without a listener connections are refused, and not retried thousands of times', async () => {
  const client = new Counter({ target: { host: '127.0.0.1', port: await closedPort() }, workers: 2 });
  const report = await client.run(AbortSignal.timeout(350));
  assert.equal(report.ok, false);
  assert.ok(report.broken.count >= 2 && report.broken.count <= 10, `${report.broken.count}`);
  assert.ok(report.broken.kept.every(({ kind }) => kind === 'refused'));
});

test('a service that resets after our FIN, or never closes, is a break', async (t) => {
  let next = 0;
  const resetting = await serve(t, (socket) => {
    eachLine(socket, () => String(++next));
    socket.on('end', () => socket.resetAndDestroy());
  });
  const client = new Counter({ target: resetting.target, workers: 1 });
  const first = await client.run(whenDone(() => client.broken.count > 0));
  assert.ok(first.broken.count > 0);
  assert.equal(first.broken.count, first.connections);
  assert.match(first.broken.kept[0].where, /close$/);
  const { createServer } = await import('node:net');
  const open = createServer({ allowHalfOpen: true }, (socket) => {
    t.after(() => socket.destroy());
    eachLine(socket, () => String(++next));
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  open.listen(0, '127.0.0.1', resolve);
  await promise;
  t.after(() => open.close());
  const address = open.address();
  assert.ok(address !== null && typeof address === 'object');
  const target = { host: '127.0.0.1', port: address.port };
  const other = new Counter({ target, workers: 1, closeTimeoutMs: 50 });
  const second = await other.run(whenDone(() => other.broken.count > 0));
  assert.ok(second.broken.count > 0);
  assert.ok(second.broken.kept.every(({ kind }) => kind === 'timeout'));
});

test('a request that hangs at the end is a break, and the run ends', async (t) => {
  let asked = 0;
  const mute = () => void asked++;
  const { report } = await count(t, mute as () => undefined, () => asked === 3, { drainMs: 100, workers: 3 });
  assert.deepEqual([report.ok, report.broken.count], [false, 3]);
});

test('the guest’s statistics are read and checked', async (t) => {
  const stats = { udp: 5, udpDistinct: 4, udpDuplicates: 1, icmp: 2, next: 9 };
  const replies = [JSON.stringify(stats), '{"udp":1}', 'nonsense', 'null'];
  const { target } = await serve(t, (socket) =>
    eachLine(socket, (line) => (line === 'stats' ? replies.shift() : '')),
  );
  assert.deepEqual(await counterStats(target), stats);
  for (let i = 0; i < 3; i += 1) await assert.rejects(counterStats(target), { code: 'COLO_LAB_CLIENT' });
  const nobody = { host: '127.0.0.1', port: await closedPort() };
  await assert.rejects(counterStats(nobody), {
    code: 'COLO_LAB_CLIENT',
    message: /127\.0\.0\.1:\d+: .*ECONNREFUSED/,
  });
});
