/** The client of the control socket against a process that is not a node, or a node that ends or hangs within a response. */
import assert from 'node:assert/strict';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { NodeClient } from '../../src/cli/client.ts';
import { tempFolder } from '../temp-folder.ts';

const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n';
const CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n';
const REFUSED = 'HTTP/1.1 409 Conflict\r\nContent-Length: 100\r\n\r\n';

/** Accepts, and gives each request to `reply`. */
async function client(
  t: TestContext,
  timeoutS: number,
  reply: (socket: Socket) => void,
): Promise<NodeClient> {
  const path = join(tempFolder(t), 'sock');
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', () => reply(socket));
    t.after(() => socket.destroy());
  });
  t.after(() => server.close());
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return new NodeClient(path, timeoutS);
}

async function read(events: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of events);
}

for (const [name, bytes] of [
  ['the headers', OK],
  ['half a response', `${OK}{"node":`],
  ['half an error', `${REFUSED}{"code":`],
] as const) {
  test(`a process that sends ${name} and nothing more: the timeout counts`, async (t) => {
    const node = await client(t, 0.2, (socket) => socket.write(bytes));
    await assert.rejects(node.call('GET', '/status'), { code: 'COLO_NODE_TIMEOUT' });
    await assert.rejects(read(node.events(0, 'now')), { code: 'COLO_NODE_TIMEOUT' });
  });

  test(`a process that sends ${name} and closes: the connection is what failed`, async (t) => {
    const node = await client(t, 60, (socket) => socket.end(bytes));
    await assert.rejects(node.call('GET', '/status'), { code: 'COLO_NODE_UNREACHABLE' });
    await assert.rejects(read(node.events(0, 'follow')), { code: 'COLO_NODE_UNREACHABLE' });
  });
}

for (const [name, bytes] of [
  ['no HTTP', 'SSH-2.0-OpenSSH_9.2\r\n'],
  ['no object', `${CHUNKED}4\r\nnull\r\n0\r\n\r\n`],
  ['an error without a code', `${REFUSED.replace('100', '2')}{}`],
] as const) {
  test(`a process that sends ${name} is not a node`, async (t) => {
    const node = await client(t, 60, (socket) => socket.end(bytes));
    await assert.rejects(node.call('GET', '/status'), { code: 'COLO_NODE_PROTOCOL' });
    await assert.rejects(read(node.events(0, 'follow')), { code: 'COLO_NODE_PROTOCOL' });
  });
}

test('an event without an end does not fill the memory', async (t) => {
  const node = await client(t, 60, (socket) => {
    const MIB = 2 ** 20;
    socket.write(CHUNKED);
    const fill = (): void => {
      while (socket.writable && socket.write(`${MIB.toString(16)}\r\n${'x'.repeat(MIB)}\r\n`));
    };
    socket.on('drain', fill);
    fill();
  });
  await assert.rejects(read(node.events(0, 'follow')), { code: 'COLO_NODE_PROTOCOL' });
});

test('a follower waits for the next event without a limit', async (t) => {
  const line = `${JSON.stringify({ seq: 1, type: 'late' })}\n`;
  const node = await client(t, 0.1, (socket) => {
    socket.write(CHUNKED);
    setTimeout(() => socket.end(`${line.length.toString(16)}\r\n${line}\r\n0\r\n\r\n`), 400);
  });
  await read(node.events(0, 'follow'));
});
