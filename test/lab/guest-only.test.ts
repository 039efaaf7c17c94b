import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { startGuestOnly } from '../../lab/guest-only.ts';
import { NIC } from '../../lab/vm.ts';
import { framed } from '../io/fake-stream.ts';

const frameFrom = (mac: string, text: string): Buffer =>
  Buffer.concat([Buffer.alloc(6), Buffer.from(mac.replaceAll(':', ''), 'hex'), Buffer.from(text)]);

function bytesOf(socket: Socket, count: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let all = Buffer.alloc(0);
    socket.on('data', (chunk: Buffer) => {
      all = Buffer.concat([all, chunk]);
      if (all.length >= count) resolve(all);
    });
    socket.once('close', () => reject(new Error(`closed after ${all.length} bytes`)));
  });
}

test('passt receives only the guest; the hub receives all of passt; both ends close together', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-lab-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const [hubPath, passtPath] = [join(folder, 'hub'), join(folder, 'passt')];
  const server = createServer();
  const passtSide = new Promise<Socket>((resolve) => server.once('connection', resolve));
  await new Promise<void>((resolve) => server.listen(passtPath, resolve));
  t.after(() => server.close());
  const filter = await startGuestOnly(hubPath, passtPath);
  const hub = connect(hubPath);
  const passt = await passtSide;

  const other = '52:54:00:c0:10:99';
  const heard = framed(frameFrom(NIC.mac, 'one'), frameFrom(NIC.mac, 'two'));
  const outward = bytesOf(passt, heard.length);
  hub.write(framed(frameFrom(NIC.mac, 'one'), frameFrom(other, 'not this'), frameFrom(NIC.mac, 'two')));
  assert.deepEqual(await outward, heard);

  const back = framed(frameFrom(other, 'three'), frameFrom(NIC.mac, 'four'));
  const inward = bytesOf(hub, back.length);
  passt.write(back);
  assert.deepEqual(await inward, back);

  const ended = new Promise((resolve) => passt.once('close', resolve));
  hub.destroy();
  await ended;
  await filter.close();
});
