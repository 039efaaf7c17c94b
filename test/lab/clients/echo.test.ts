import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Echo, type EchoOptions } from '../../../lab/clients/echo.ts';
import { gapAround } from '../../../lab/clients/gaps.ts';
import { closedPort, delay, serve, whenDone, within } from './servers.ts';

async function session(
  t: TestContext,
  onSocket: (socket: Socket) => void,
  isDone: (client: Echo) => boolean,
  more?: Partial<EchoOptions>,
  host?: string,
) {
  const { target } = await serve(t, onSocket, host);
  const client = new Echo({ target, everyMs: 5, ...more });
  return { client, report: await within(15_000, client.run(whenDone(() => isDone(client)))) };
}

/** Passes each chunk to `lie` with the offset of its first byte, and sends back what that returns. */
function echo(lie: (chunk: Buffer, from: number, socket: Socket) => Buffer | undefined = (chunk) => chunk) {
  return (socket: Socket) => {
    let from = 0;
    socket.on('data', (chunk: Buffer) => {
      const said = lie(chunk, from, socket);
      from += chunk.length;
      if (said !== undefined && !socket.destroyed) socket.write(said);
    });
  };
}

test('a correct echo: every byte, no gap, round trips measured', async (t) => {
  for (const host of ['127.0.0.1', '::1']) {
    const { client, report } = await session(t, echo(), ({ sent }) => sent > 20, {}, host);
    assert.equal(report.ok, true);
    assert.ok(report.sent > 20 && report.echoed === report.sent && report.unreturned === 0);
    assert.equal(client.rtt.count, report.echoed);
    assert.ok(client.rtt.percentile(0.5) < 50);
    assert.equal(client.arrivals.total, report.bytes);
  }
});

test('an echo in small pieces is the same echo', async (t) => {
  const { report } = await session(
    t,
    (socket) => {
      socket.on('data', async (chunk: Buffer) => {
        for (let at = 0; at < chunk.length; at += 7) socket.write(chunk.subarray(at, at + 7));
      });
    },
    ({ echoed }) => echoed > 5,
  );
  assert.equal(report.ok, true);
});

test('a corrupted byte is found at its place', async (t) => {
  const lie = (chunk: Buffer, from: number) => {
    const at = 5000 - from;
    if (at >= 0 && at < chunk.length) chunk[at] ^= 0x40;
    return chunk;
  };
  const { report } = await session(t, echo(lie), ({ echoed }) => echoed > 20);
  assert.equal(report.ok, false);
  assert.equal(report.findings.count, 1);
  const [finding] = report.findings.kept;
  assert.deepEqual(
    [finding.kind, finding.streamOffset, finding.expected ^ finding.got],
    ['wrong-byte', 5000, 0x40],
  );
});

test('swapped messages are found', async (t) => {
  let kept: Buffer | undefined;
  let swapped = false;
  const { report } = await session(
    t,
    echo((chunk) => {
      if (swapped) return chunk;
      if (kept === undefined) {
        kept = chunk;
        return undefined;
      }
      swapped = true;
      return Buffer.concat([chunk, kept]);
    }),
    ({ echoed }) => echoed > 5,
    { messageBytesMin: 100, messageBytesMax: 100 },
  );
  assert.equal(report.ok, false);
  assert.deepEqual([report.findings.kept[0].message, report.findings.kept[0].offset], [0, 3]);
});

test('a repeated byte is found', async (t) => {
  let done = false;
  const { report } = await session(
    t,
    echo((chunk, from) => {
      if (done || from === 0) return chunk;
      done = true;
      return Buffer.concat([chunk.subarray(0, 1), chunk]);
    }),
    ({ findings }) => findings.count > 0,
  );
  assert.equal(report.ok, false);
  assert.ok(report.findings.count > 0);
});

test('bytes that were not sent are found', async (t) => {
  const { report } = await session(
    t,
    echo((chunk, _from, socket) => {
      setTimeout(() => socket.writable && socket.write('x'), 20);
      return chunk;
    }),
    ({ findings }) => findings.count > 0,
    { everyMs: 100 },
  );
  assert.equal(report.ok, false);
  assert.ok(report.findings.kept.some((finding) => finding.kind === 'unasked' && finding.got === 120));
});

test('a missing byte is found: the last message never returns whole', async (t) => {
  const lie = (chunk: Buffer, from: number) => (from === 0 ? chunk.subarray(1) : chunk);
  const { report } = await session(t, echo(lie), ({ sent }) => sent > 5, { drainMs: 200 });
  assert.equal(report.ok, false);
  assert.ok(report.unreturned > 0);
  assert.equal(report.broken.kept[0].kind, 'timeout');
});

test('a stall of 700 ms is a gap, with several messages under way', async (t) => {
  let stalled = false;
  const onSocket = (socket: Socket) => {
    let held: Buffer[] | undefined;
    socket.on('data', (chunk: Buffer) => {
      if (held !== undefined) {
        held.push(chunk);
      } else if (!stalled && socket.bytesRead > 20_000) {
        stalled = true;
        held = [chunk];
        setTimeout(() => {
          socket.write(Buffer.concat(held ?? []));
          held = undefined;
        }, 700);
      } else {
        socket.write(chunk);
      }
    });
  };
  const beganMs = performance.now();
  const { client, report } = await session(t, onSocket, ({ rtt }) => rtt.max > 680);
  assert.equal(report.ok, true);
  const gap = gapAround(client.arrivals, beganMs + 50, performance.now());
  assert.ok(gap !== undefined && gap.ms > 680 && gap.ms < 1500, `gap ${gap?.ms} ms`);
  assert.ok(client.rtt.max > 680);
});

test('a bounded number of messages is under way', async (t) => {
  const { report } = await session(
    t,
    echo(() => undefined),
    ({ skipped }) => skipped > 10,
    { outstandingMax: 10, drainMs: 50 },
  );
  assert.equal(report.sent, 10);
  assert.equal(report.unreturned, 10);
  assert.ok(report.skipped > 10);
});

test('a reset, a close and a missing listener count as one break each', async (t) => {
  const reset = await session(
    t,
    echo((_chunk, _from, socket) => void socket.resetAndDestroy()),
    ({ broken }) => broken.count > 0,
  );
  assert.deepEqual([reset.report.ok, reset.report.broken.count], [false, 1]);
  assert.equal(reset.report.broken.kept[0].kind, 'reset');
  const closed = await session(
    t,
    echo((_chunk, from, socket) => void (from > 9000 && socket.end())),
    ({ broken }) => broken.count > 0,
  );
  assert.deepEqual([closed.report.ok, closed.report.broken.count], [false, 1]);
  assert.equal(closed.report.broken.kept[0].kind, 'early-close');
  const nobody = new Echo({ target: { host: '127.0.0.1', port: await closedPort() } });
  const report = await nobody.run(AbortSignal.timeout(500));
  assert.deepEqual([report.ok, report.broken.count, report.broken.kept[0].kind], [false, 1, 'refused']);
  await delay(1);
});
