import assert from 'node:assert/strict';
import { connect, type Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { ConnectOut, OutListener } from '../../../lab/clients/connect-out.ts';
import { gapAround } from '../../../lab/clients/gaps.ts';
import { closedPort, delay, eachLine, serve, whenDone, within } from './servers.ts';

/** Plays the guest's service in one exchange: `forward` returns the host's reply. */
type Guest = (
  text: string,
  forward: (text: string) => Promise<string>,
  number: number,
  out: Socket,
) => Promise<string>;

const honest: Guest = (text, forward) => forward(text);

async function run(
  t: TestContext,
  guest: Guest = honest,
  reconnectAt = 0,
  isDone = (client: ConnectOut) => client.exchanges > 10,
) {
  const listener = await OutListener.open();
  t.after(() => listener.close());
  const { target } = await serve(t, (control) => {
    let out: Socket | undefined;
    let number = 0;
    let replied: ((line: string) => void) | undefined;
    eachLine(control, async (line) => {
      number += 1;
      const [, host, port, text] =
        /^connect (\S+) (\d+) (.*)$/.exec(line) ?? /^again(?:)()() (.*)$/.exec(line) ?? assert.fail(line);
      if (out === undefined || number === reconnectAt) {
        out = connect({ host: host || '127.0.0.1', port: Number(port) || listener.port });
        out.on('error', () => undefined);
        eachLine(out, (reply) => void replied?.(reply));
        t.after(() => out?.destroy());
      }
      const socket = out;
      const forward = async (forwarded: string) => {
        const reply = Promise.withResolvers<string>();
        replied = reply.resolve;
        socket.write(`${forwarded}\n`);
        return reply.promise;
      };
      return guest(text, forward, number, socket);
    });
  });
  const reachedAs = { host: '127.0.0.1', port: listener.port };
  const client = new ConnectOut({ target, listener, reachedAs, everyMs: 5, requestTimeoutMs: 1500 });
  return { client, listener, report: await within(10_000, client.run(whenDone(() => isDone(client)))) };
}

test('a correct guest: one connection, every text and reply', async (t) => {
  const { client, listener, report } = await run(t);
  assert.equal(report.ok, true);
  assert.ok(report.exchanges > 10);
  assert.deepEqual([listener.connections, listener.lines], [1, report.exchanges]);
  assert.equal(client.rtt.count, report.exchanges);
});

test('a wrong reply is found', async (t) => {
  const { report } = await run(t, async (text, forward, number) => {
    const reply = await forward(text);
    return number === 3 ? `${reply}!` : reply;
  });
  assert.deepEqual([report.ok, report.findings.count], [false, 1]);
  assert.deepEqual([report.findings.kept[0].kind, report.findings.kept[0].exchange], ['wrong-reply', 3]);
});

test('a corrupted text and a repeated text are found', async (t) => {
  const corrupted = await run(t, async (text, forward, number) => {
    await forward(number === 3 ? `${text}x` : text);
    return `reply:${text}`;
  });
  assert.deepEqual([corrupted.report.ok, corrupted.report.findings.kept[0].kind], [false, 'wrong-text']);
  const twice = await run(t, async (text, forward, number) => {
    if (number === 3) await forward(text);
    return forward(text);
  });
  assert.deepEqual([twice.report.ok, twice.report.findings.kept[0].kind], [false, 'text-count']);
});

test('another connection in place of the first is found', async (t) => {
  const { report } = await run(t, honest, 4);
  assert.deepEqual([report.ok, report.findings.kept[0].kind], [false, 'another-connection']);
});

test('a second connection is found, even one that sends nothing', async (t) => {
  const { report } = await run(t, async (text, forward, number, out) => {
    if (number === 3) t.after(connectAgain(out));
    return forward(text);
  });
  assert.deepEqual([report.ok, report.findings.kept[0].kind], [false, 'another-connection']);
});

/** Opens another connection to the same address; returns a function that ends it. */
function connectAgain(out: Socket): () => void {
  const second = connect({ host: out.remoteAddress ?? '', port: out.remotePort ?? 0 });
  second.on('error', () => undefined);
  return () => void second.destroy();
}

test('a line that replies to no request is found', async (t) => {
  const { report } = await run(t, async (text, forward) => `${await forward(text)}\nboo`);
  assert.equal(report.ok, false);
  assert.ok(report.findings.kept.some(({ kind }) => kind === 'unasked'));
});

test('a stall of 700 ms is seen as a gap', async (t) => {
  const beganMs = performance.now();
  const guest: Guest = async (text, forward, number) => {
    if (number === 5) await delay(700);
    return forward(text);
  };
  const { client, report } = await run(t, guest, 0, ({ rtt }) => rtt.max > 690);
  assert.equal(report.ok, true);
  const gap = gapAround(client.arrivals, beganMs + 50, performance.now());
  assert.ok(gap !== undefined && gap.ms > 690 && gap.ms < 1500, `gap ${gap?.ms} ms`);
});

test('a guest that resets its connection, stops sending, or is not there counts as a break', async (t) => {
  const reset = await run(
    t,
    async (text, forward, number, out) => {
      const reply = await forward(text);
      if (number === 3) out.resetAndDestroy();
      return reply;
    },
    0,
    ({ exchanges }) => exchanges === 3,
  );
  assert.equal(reset.report.ok, false);
  assert.equal(reset.listener.broken.kept[0].kind, 'reset');
  const silent = await run(t, () => new Promise<string>(() => undefined));
  assert.deepEqual([silent.report.ok, silent.report.broken[0].kept[0].kind], [false, 'timeout']);
  const listener = await OutListener.open();
  t.after(() => listener.close());
  const target = { host: '127.0.0.1', port: await closedPort() };
  const client = new ConnectOut({ target, listener, reachedAs: { host: '127.0.0.1', port: listener.port } });
  const report = await client.run(AbortSignal.timeout(100));
  assert.deepEqual([report.ok, report.broken[0].kept[0].kind], [false, 'refused']);
});
