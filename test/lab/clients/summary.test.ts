import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Counter } from '../../../lab/clients/counter.ts';
import { Download } from '../../../lab/clients/download.ts';
import { Echo } from '../../../lab/clients/echo.ts';
import { Breaks } from '../../../lab/clients/net.ts';
import { liveLines, summarize, troubles } from '../../../lab/clients/summary.ts';
import { delay, eachLine, randomFile, serve } from './servers.ts';

const file = randomFile(200_000);

interface Lies {
  readonly body?: Buffer;
  readonly echoed?: (chunk: Buffer) => Buffer;
  readonly next?: (socket: Socket) => string;
}

async function clients(t: TestContext, lies: Lies = {}) {
  let next = 0;
  const http = await serve(t, (socket) => {
    socket.once('data', () => {
      socket.end(Buffer.concat([Buffer.from('HTTP/1.0 200 OK\r\n\r\n'), lies.body ?? file.bytes]));
    });
  });
  const echo = await serve(t, (socket) => {
    socket.on('data', (chunk: Buffer) => socket.write(lies.echoed?.(chunk) ?? chunk));
  });
  const counter = await serve(t, (socket) => {
    eachLine(socket, () => (lies.next === undefined ? String(++next) : lies.next(socket)));
  });
  return {
    download: new Download({
      target: http.target,
      expectedBytes: file.bytes.length,
      expectedSha256: file.sha256,
      bytesPerSecond: 1_000_000,
    }),
    echo: new Echo({ target: echo.target, everyMs: 5 }),
    counter: new Counter({ target: counter.target }),
  };
}

async function runAll(all: Awaited<ReturnType<typeof clients>>) {
  const stop = new AbortController();
  const running = [all.echo.run(stop.signal), all.counter.run(stop.signal)] as const;
  const download = await all.download.run(stop.signal);
  const lines = liveLines(all, performance.now());
  await delay(50);
  stop.abort();
  const [echo, counter] = await Promise.all(running);
  return { reports: { download, echo, counter }, lines };
}

test('correct services have no trouble', async (t) => {
  const { reports, lines } = await runAll(await clients(t));
  assert.deepEqual(summarize(reports), {
    download_ok: true,
    echo_ok: true,
    counter_ok: true,
    connections_broken: 0,
  });
  assert.deepEqual(troubles(reports), []);
  assert.match(lines[0], /^download {2}0\.2 MB {2}100% {2}done$/);
  assert.match(lines[1], /^echo {6}\d+ messages {2}round trip \d+\.\d ms, longest \d+\.\d ms$/);
  assert.match(lines[2], /^counter {3}\d+ numbers {2}\d+\/s {2}\d+ connections$/);
});

test('every wrong service is reported', async (t) => {
  const all = await clients(t, {
    body: Buffer.alloc(file.bytes.length),
    echoed: (chunk) => Buffer.from(chunk.map((byte) => byte ^ 1)),
    next: () => '1',
  });
  const { reports } = await runAll(all);
  const others = [new Breaks()];
  others[0].note(new Error('gone'), 'elsewhere', 0);
  assert.deepEqual(summarize({ ...reports, others }), {
    download_ok: false,
    echo_ok: false,
    counter_ok: false,
    connections_broken: 1,
  });
  const lines = troubles({ ...reports, others }).join('\n');
  assert.match(lines, /download: the content differs/);
  assert.match(lines, /echo: wrong-byte in message 0 at 0: got 1, expected 0/);
  assert.match(lines, /counter: 1 was handed out twice/);
  assert.match(lines, /broken: elsewhere: error: gone/);
});

test('broken connections add up over the clients', async (t) => {
  const all = await clients(t, {
    body: file.bytes.subarray(1),
    next: (socket) => {
      socket.resetAndDestroy();
      return '';
    },
  });
  const { reports, lines } = await runAll(all);
  const { connections_broken, download_ok, echo_ok } = summarize(reports);
  assert.deepEqual([download_ok, echo_ok], [false, true]);
  assert.equal(connections_broken, 1 + reports.counter.broken.count);
  assert.ok(reports.counter.broken.count >= 4);
  assert.match(lines[2], /\d+ broken$/);
});
