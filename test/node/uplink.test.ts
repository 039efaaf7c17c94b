import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { SlabPool } from '../../src/frames/slabs.ts';
import { FramePort } from '../../src/io/frame-port.ts';
import { LIMITS } from '../../src/limits.ts';
import { UplinkKeeper } from '../../src/node/uplink.ts';
import { EventLog } from '../../src/observe/event-log.ts';

async function until(isMet: () => boolean): Promise<void> {
  for (let tries = 0; !isMet(); tries++) {
    assert.ok(tries < 500, 'not reached in 5 s');
    await sleep(10);
  }
}

test('a keeper dials until the uplink is connected, again when it is lost, and no more after close', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-keeper-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, 'up.sock');
  const events = new EventLog({ path: join(folder, 'events'), node: 'a', now: () => 0 });
  const emitted: string[] = [];
  events.subscribe((event) => emitted.push(event.type));
  const slabs = new SlabPool(LIMITS.slabBytes, 4);
  const frames: number[] = [];
  const port = new FramePort('uplink', slabs);
  port.seat({ handler: { frame: (_slab, _at, length) => frames.push(length), batchEnd() {} } });
  let changes = 0;
  const keeper = new UplinkKeeper(
    port,
    { kind: 'unix', mode: 'connect', path },
    { events, changed: () => changes++ },
  );
  void keeper.connect();
  await until(() => emitted.includes('uplink.down'));
  await sleep(350);
  assert.deepEqual(emitted, ['uplink.down'], 'emitted once per outage, not at every try');

  const accepted: Socket[] = [];
  const server: Server = createServer((socket) => accepted.push(socket)).listen(path);
  t.after(() => server.close());
  await until(() => port.isOpen && accepted.length === 1);
  // The stream ends within a frame: framing starts again at the next stream's first byte.
  accepted[0].write(Buffer.from([0, 0, 0, 60, 1, 2, 3]));
  await sleep(20);
  accepted[0].destroy();
  await until(() => accepted.length === 2 && port.isOpen);
  accepted[1].write(Buffer.concat([Buffer.from([0, 0, 0, 60]), Buffer.alloc(60)]));
  await until(() => frames.length === 1);
  assert.deepEqual(frames, [60]);
  assert.deepEqual(emitted, ['uplink.down', 'uplink.up', 'uplink.lost', 'uplink.up']);

  assert.equal(changes, 3, 'up, lost, up');

  keeper.close();
  await sleep(250);
  assert.equal(accepted.length, 2);
  assert.equal(emitted.length, 4, 'close emits no loss');
  await events.close();
});
