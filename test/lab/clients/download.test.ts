import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { type TestContext, test } from 'node:test';
import { Download, type DownloadOptions } from '../../../lab/clients/download.ts';
import { gapAround } from '../../../lab/clients/gaps.ts';
import { closedPort, delay, randomFile, serve, within } from './servers.ts';

const file = randomFile(400_000);
const never = new AbortController().signal;

/** What the server does in place of sending the file. */
type Send = (socket: Socket, body: Buffer) => void | Promise<void>;

const honest: Send = (socket, body) => void socket.end(body);

async function httpServer(t: TestContext, send: Send = honest, header?: string, host?: string) {
  return serve(
    t,
    (socket) => {
      socket.once('data', (request: Buffer) => {
        assert.match(
          request.toString(),
          /^GET \/big\.bin HTTP\/1\.1\r\nHost: .+\r\nConnection: close\r\n\r\n$/,
        );
        socket.write(header ?? `HTTP/1.1 200 OK\r\nContent-Length: ${file.bytes.length}\r\n\r\n`);
        void send(socket, file.bytes);
      });
    },
    host,
  );
}

async function download(t: TestContext, send?: Send, more?: Partial<DownloadOptions>, header?: string) {
  const { target } = await httpServer(t, send, header);
  const client = new Download({
    target,
    expectedBytes: file.bytes.length,
    expectedSha256: file.sha256,
    ...more,
  });
  return { client, report: await within(20_000, client.run(never)) };
}

test('a correct server: complete, right, no break', async (t) => {
  const { client, report } = await download(t);
  assert.equal(report.ok, true);
  assert.equal(report.bytes, 400_000);
  assert.equal(report.sha256, file.sha256);
  assert.equal(report.broken.count, 0);
  assert.equal(client.arrivals.total, 400_000);
});

test('a download works over IPv6', async (t) => {
  const { target } = await httpServer(t, honest, undefined, '::1');
  const client = new Download({ target, expectedBytes: file.bytes.length, expectedSha256: file.sha256 });
  assert.equal((await client.run(never)).ok, true);
});

test('the rate limit holds, and its pauses are small and not taken for gaps', async (t) => {
  const { client, report } = await download(t, honest, { bytesPerSecond: 400_000 });
  assert.equal(report.ok, true);
  const tookMs = report.endedMs - report.startedMs;
  assert.ok(tookMs > 900 && tookMs < 3000, `took ${tookMs} ms`);
  assert.ok(client.arrivals.count >= 90, `${client.arrivals.count} reads`);
  const gap = gapAround(client.arrivals, report.startedMs + 500, report.endedMs);
  assert.ok(gap !== undefined && gap.ms < 450, `gap ${gap?.ms} ms`);
});

test('even a long pause of the rate limit does not count as waiting', async (t) => {
  const small = randomFile(4096);
  const { target } = await serve(t, (socket) => {
    socket.once('data', () => {
      socket.end(
        Buffer.concat([Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 4096\r\n\r\n'), small.bytes]),
      );
    });
  });
  const limits = { expectedBytes: 4096, expectedSha256: small.sha256, bytesPerSecond: 5000 };
  const client = new Download({ target, ...limits });
  const report = await client.run(never);
  assert.equal(report.ok, true);
  assert.ok(report.endedMs - report.startedMs > 500);
  const gap = gapAround(client.arrivals, report.startedMs + 150, report.endedMs);
  assert.ok(gap !== undefined && gap.waitedMs < 100, `waited ${gap?.waitedMs} ms`);
});

test('a slow client holds the server back', async (t) => {
  const big = randomFile(24 * 1024 * 1024);
  let accepted = 0;
  const { target } = await serve(t, (socket) => {
    socket.once('data', async () => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${big.bytes.length}\r\n\r\n`);
      for (let at = 0; at < big.bytes.length && !socket.destroyed; at += 65_536) {
        const { promise, resolve } = Promise.withResolvers<void>();
        socket.write(big.bytes.subarray(at, at + 65_536), () => resolve());
        await promise;
        accepted += 65_536;
      }
    });
  });
  const stop = new AbortController();
  const client = new Download({
    target,
    expectedBytes: big.bytes.length,
    expectedSha256: big.sha256,
    bytesPerSecond: 500_000,
  });
  const running = client.run(stop.signal);
  await delay(1000);
  stop.abort();
  const report = await running;
  // The kernel's two buffers take a few MiB; the server still has the rest.
  assert.ok(accepted < 12 * 1024 * 1024, `the server could send ${accepted}`);
  assert.ok(report.bytes < 700_000, `${report.bytes} bytes came`);
  assert.deepEqual([report.ok, report.stopped, report.broken.count], [false, true, 0]);
});

test('a stall of 700 ms is a gap', async (t) => {
  const stall: Send = async (socket, body) => {
    socket.write(body.subarray(0, 200_000));
    await delay(700);
    socket.end(body.subarray(200_000));
  };
  const { client, report } = await download(t, stall, { bytesPerSecond: 2_000_000 });
  assert.equal(report.ok, true);
  const gap = gapAround(client.arrivals, report.startedMs + 200, report.endedMs);
  // The bytes from before the stall took 100 ms to read.
  assert.ok(gap !== undefined && gap.ms > 500 && gap.ms < 1500, `gap ${gap?.ms} ms`);
});

test('a corrupted byte is found', async (t) => {
  const corrupt: Send = (socket, body) => {
    const copy = Buffer.from(body);
    copy[123_456] ^= 1;
    socket.end(copy);
  };
  const { report } = await download(t, corrupt);
  assert.deepEqual([report.ok, report.broken.count, report.bytes], [false, 0, 400_000]);
  assert.match(report.problems[0], /sha256/);
});

test('a reset is a break', async (t) => {
  const reset: Send = (socket, body) => {
    socket.write(body.subarray(0, 1000), () => setTimeout(() => socket.resetAndDestroy(), 50));
  };
  const { report } = await download(t, reset);
  assert.deepEqual([report.ok, report.broken.count, report.broken.kept[0].kind], [false, 1, 'reset']);
});

test('a close before the last byte is a break', async (t) => {
  const { report } = await download(t, (socket, body) => void socket.end(body.subarray(0, 399_999)));
  assert.deepEqual([report.ok, report.broken.count, report.broken.kept[0].kind], [false, 1, 'early-close']);
});

test('a byte too many is found', async (t) => {
  const { report } = await download(
    t,
    (socket, body) => void socket.end(Buffer.concat([body, Buffer.alloc(1)])),
  );
  assert.equal(report.ok, false);
  assert.match(report.problems[0], /more than/);
});

test('a reset after the last byte is a break', async (t) => {
  const { target } = await serve(t, (socket) => {
    socket.once('data', () => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${file.bytes.length}\r\n\r\n`);
      socket.write(file.bytes);
      socket.on('end', () => socket.resetAndDestroy());
    });
  });
  const client = new Download({ target, expectedBytes: file.bytes.length, expectedSha256: file.sha256 });
  const report = await client.run(never);
  assert.deepEqual([report.ok, report.broken.count], [false, 1]);
});

test('an unexpected length, status, encoding or header is found', async (t) => {
  for (const [header, why] of [
    ['HTTP/1.1 200 OK\r\nContent-Length: 400001\r\n\r\n', /Content-Length is 400001/],
    ['HTTP/1.1 404 Not Found\r\n\r\n', /404/],
    ['HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n', /Transfer-Encoding/],
    [`HTTP/1.1 200 OK\r\nX: ${'x'.repeat(20_000)}`, /header longer/],
  ] as const) {
    const { report } = await download(t, () => undefined, {}, header);
    assert.deepEqual([report.ok, report.broken.count], [false, 0]);
    assert.match(report.problems[0], why);
  }
});

test('a service that stops sending is a break', async (t) => {
  const { report } = await download(t, (socket, body) => void socket.write(body.subarray(0, 100)), {
    stallTimeoutMs: 200,
  });
  assert.deepEqual([report.ok, report.broken.kept[0].kind, report.bytes], [false, 'timeout', 100]);
});

test('without a listener the connection is refused', async () => {
  const target = { host: '127.0.0.1', port: await closedPort() };
  const report = await new Download({ target, expectedBytes: 1, expectedSha256: '' }).run(never);
  assert.deepEqual([report.ok, report.broken.kept[0].kind], [false, 'refused']);
});
