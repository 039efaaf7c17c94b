import assert from 'node:assert/strict';
import { createSocket, type RemoteInfo } from 'node:dgram';
import { type TestContext, test } from 'node:test';
import { gapAround } from '../../../lab/clients/gaps.ts';
import { UdpLoad, type UdpOptions } from '../../../lab/clients/udp.ts';
import { delay, within } from './servers.ts';

type Send = (payload: string) => void;

async function load(
  t: TestContext,
  onDatagram: (payload: string, send: Send) => void,
  more?: Partial<UdpOptions>,
  host = '127.0.0.1',
) {
  const server = createSocket(host === '::1' ? 'udp6' : 'udp4');
  server.on('message', (datagram: Buffer, from: RemoteInfo) => {
    onDatagram(datagram.toString('latin1'), (said) => server.send(said, from.port, from.address));
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.bind(0, host, resolve);
  await promise;
  t.after(() => server.close());
  const target = { host, port: server.address().port };
  const client = new UdpLoad({
    target,
    service: 'counted',
    perSecond: 500,
    count: 100,
    drainMs: 300,
    ...more,
  });
  return { client, report: await within(10_000, client.run(new AbortController().signal)) };
}

test('a correct counted echo and a correct plain one have no finding', async (t) => {
  for (const host of ['127.0.0.1', '::1']) {
    let count = 0;
    const { client, report } = await load(t, (payload, send) => send(`${++count} ${payload}`), {}, host);
    assert.equal(report.ok, true);
    const { sent, replied, lost, duplicates, errors, highestCount } = report;
    assert.deepEqual([sent, replied, lost, duplicates, errors, highestCount], [100, 100, 0, 0, 0, 100]);
    assert.equal(client.rtt.count, 100);
    const plain = await load(t, (payload, send) => send(payload), { service: 'echo' }, host);
    assert.deepEqual([plain.report.ok, plain.report.replied], [true, 100]);
  }
});

test('a load has its rate, its size and its own range of numbers', async (t) => {
  const seen: string[] = [];
  const began = performance.now();
  const { report } = await load(t, (payload, send) => seen.push(payload) && send(payload), {
    service: 'echo',
    perSecond: 200,
    payloadBytes: 1200,
    firstNumber: 5_000_000,
  });
  const took = performance.now() - began;
  assert.ok(took > 450 && took < 2500, `took ${took} ms`);
  assert.equal(report.ok, true);
  assert.ok(seen.every((payload, i) => payload.length === 1200 && payload.startsWith(`${5_000_000 + i} `)));
});

test('the signal ends a load', async (t) => {
  const server = createSocket('udp4');
  const { promise, resolve } = Promise.withResolvers<void>();
  server.bind(0, '127.0.0.1', resolve);
  await promise;
  t.after(() => server.close());
  const target = { host: '127.0.0.1', port: server.address().port };
  const client = new UdpLoad({ target, service: 'echo', drainMs: 50 });
  const report = await within(2000, client.run(AbortSignal.timeout(100)));
  assert.deepEqual([report.ok, report.replied], [false, 0]);
  assert.equal(report.lost, report.sent);
});

test('losses and repetitions are counted and not judged', async (t) => {
  let count = 0;
  const { report } = await load(t, (payload, send) => {
    count += 1;
    if (count % 10 === 0) return;
    send(`${count} ${payload}`);
    if (count % 10 === 5) send(`${count} ${payload}`);
  });
  assert.deepEqual([report.ok, report.lost, report.duplicates], [true, 10, 10]);
});

test('an input delivered twice is found: one datagram with two counts', async (t) => {
  let count = 0;
  const { report } = await load(t, (payload, send) => {
    send(`${++count} ${payload}`);
    if (payload.startsWith('50 ')) send(`${++count} ${payload}`);
  });
  assert.equal(report.ok, false);
  assert.deepEqual([report.findings.count, report.findings.kept[0].kind], [1, 'two-counts']);
  assert.equal(report.findings.kept[0].number, 50);
});

test('a count that goes back is found, as after a failover to an older state', async (t) => {
  let count = 0;
  let lied = false;
  const { report } = await load(t, (payload, send) => {
    if (count === 50 && !lied) {
      lied = true;
      count = 40;
    }
    send(`${++count} ${payload}`);
  });
  assert.equal(report.ok, false);
  assert.equal(report.findings.kept.filter(({ kind }) => kind === 'count-twice').length, 10);
  assert.ok(report.findings.kept.some(({ kind }) => kind === 'count-back'));
});

test('a corrupted byte, a swapped payload, an unknown number and a missing number are found', async (t) => {
  const corrupt = await load(
    t,
    (payload, send) => {
      send(payload.startsWith('7 ') ? `${payload.slice(0, 30)}#${payload.slice(31)}` : payload);
    },
    { service: 'echo' },
  );
  assert.deepEqual([corrupt.report.ok, corrupt.report.lost], [false, 1]);
  const [finding] = corrupt.report.findings.kept;
  assert.deepEqual([finding.kind, finding.number], ['wrong-payload', 7]);
  assert.match(finding.detail, /at 30$/);
  let last = '';
  const swapped = await load(
    t,
    (payload, send) => {
      const pad = (payload.startsWith('8 ') ? last : payload).split(' ')[1];
      last = payload;
      send(`${payload.split(' ')[0]} ${pad}`);
    },
    { service: 'echo' },
  );
  assert.equal(swapped.report.findings.kept[0].kind, 'wrong-payload');
  const unknown = await load(t, (payload, send) => send(payload.replace(/^9 /, '999 ')), { service: 'echo' });
  assert.equal(unknown.report.findings.kept[0].kind, 'unknown');
  const malformed = await load(t, (_payload, send) => send('what?'), { drainMs: 50 });
  assert.deepEqual([malformed.report.ok, malformed.report.findings.kept[0].kind], [false, 'malformed']);
});

test('a stall of 700 ms is a gap', async (t) => {
  let count = 0;
  let until = 0;
  const beganMs = performance.now();
  const { client, report } = await load(
    t,
    async (payload, send) => {
      const mine = ++count;
      if (mine === 30) until = performance.now() + 700;
      if (performance.now() < until) await delay(until - performance.now());
      send(`${mine} ${payload}`);
    },
    { perSecond: 100, drainMs: 1500 },
  );
  assert.deepEqual([report.ok, report.lost], [true, 0]);
  const gap = gapAround(client.arrivals, beganMs + 50, performance.now());
  assert.ok(gap !== undefined && gap.ms > 650 && gap.ms < 1500, `gap ${gap?.ms} ms`);
});

test('without a listener there are errors and losses, and no crash', async () => {
  const probe = createSocket('udp4');
  const { promise, resolve } = Promise.withResolvers<void>();
  probe.bind(0, '127.0.0.1', resolve);
  await promise;
  const { port } = probe.address();
  probe.close();
  const client = new UdpLoad({
    target: { host: '127.0.0.1', port },
    service: 'echo',
    count: 10,
    drainMs: 50,
  });
  const report = await within(3000, client.run(new AbortController().signal));
  assert.deepEqual([report.ok, report.lost], [false, 10]);
  assert.ok(report.errors > 0);
});

test('of each datagram without a reply it is known when it was sent', async (t) => {
  const times: number[] = [];
  const clock = () => {
    const nowMs = performance.now();
    times.push(nowMs);
    return nowMs;
  };
  const isLost = (number: number): boolean => number > 20 && number <= 60;
  const { report } = await load(
    t,
    (payload, send) => {
      if (!isLost(Number(payload.split(' ')[0]))) send(payload);
    },
    { service: 'echo', clock },
  );
  assert.equal(report.lost, 40);
  assert.equal(report.lostAtMs.length, 40);
  assert.ok(report.lostAtMs.every((ms, i, all) => times.includes(ms) && (i === 0 || ms >= all[i - 1])));
});
