import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { Pages } from '../../../lab/clients/pages.ts';
import { randomFile, serve, whenDone, within } from './servers.ts';

const { bytes, sha256 } = randomFile(5000);
const FILE = { path: '/file', bytes: bytes.length, sha256 };
const HEAD = `HTTP/1.0 200 OK\r\nContent-Length: ${bytes.length}\r\n\r\n`;

/** `parts`: what the server sends for each request before it closes. */
async function pages(t: TestContext, parts: (count: number) => readonly (string | Buffer)[]) {
  let count = 0;
  const { target } = await serve(t, (socket) =>
    socket.once('data', () => {
      count += 1;
      for (const part of parts(count)) socket.write(part);
      socket.end();
    }),
  );
  const client = new Pages({ target, files: [FILE], everyMs: 1, timeoutMs: 1000 });
  return within(5000, client.run(whenDone(() => client.fetched > 10)));
}

test('a correct server: every page is the file', async (t) => {
  const { ok, fetched, findings, broken } = await pages(t, () => [HEAD, bytes]);
  assert.deepEqual([ok, findings.count, broken.count], [true, 0, 0]);
  assert.ok(fetched > 10, `${fetched}`);
});

test('a page with one other byte is found', async (t) => {
  const other = Buffer.from(bytes);
  other[4000] ^= 1;
  const { ok, findings } = await pages(t, (count) => [HEAD, count === 5 ? other : bytes]);
  assert.deepEqual([ok, findings.count], [false, 1]);
});

test('a page that ends too early is a broken connection', async (t) => {
  const { findings, broken } = await pages(t, (count) => [HEAD, count === 5 ? bytes.subarray(1) : bytes]);
  assert.deepEqual([findings.count, broken.count], [0, 1]);
});

test('an error of the server is found', async (t) => {
  const { findings } = await pages(t, (count) => [count === 5 ? HEAD.replace('200', '500') : HEAD, bytes]);
  assert.equal(findings.count, 1);
});
