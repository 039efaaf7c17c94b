import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';
import { test } from 'node:test';
import { LinkRelay } from '../../lab/link-relay.ts';

/** A process that sends back what it receives. */
async function echo(t: { after(call: () => unknown): void }): Promise<number> {
  const server = net.createServer((socket) => {
    socket.on('error', () => {});
    socket.pipe(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  return (server.address() as net.AddressInfo).port;
}

test('every byte passes in order, late by the delay in each direction, and so does the end', async (t) => {
  const relay = new LinkRelay(4);
  t.after(() => relay.close());
  const socket = net.connect(await relay.to(await echo(t)), '127.0.0.1');
  t.after(() => socket.destroy());
  socket.setNoDelay(true);
  await once(socket, 'connect');
  let text = '';
  socket.on('data', (bytes) => {
    text += bytes.toString();
  });
  const startMs = performance.now();
  for (let i = 0; i < 100; i++) socket.write(`${i},`);
  while (text === '') await once(socket, 'data');
  assert.ok(performance.now() - startMs >= 8, 'twice the delay');
  socket.end();
  await once(socket, 'close');
  assert.equal(text, Array.from({ length: 100 }, (_, i) => `${i},`).join(''));
});

test('a relay without a process behind it closes its connections', async (t) => {
  const relay = new LinkRelay(0);
  t.after(() => relay.close());
  const socket = net.connect(await relay.to(1), '127.0.0.1');
  socket.on('error', () => {});
  socket.resume();
  await once(socket, 'close');
});
