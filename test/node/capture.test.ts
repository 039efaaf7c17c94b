import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { TAP, type Tap } from '../../src/datapath/tap.ts';
import { systemClock } from '../../src/io/clock.ts';
import { Capture } from '../../src/node/capture.ts';
import { EventLog } from '../../src/observe/event-log.ts';

test('there is one capture at a time, and a tap until it is stopped or reaches its limit', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'colo-capture-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  const events = new EventLog({ path: join(folder, 'events'), node: 'a', now: () => 0 });
  let changes = 0;
  const capture = new Capture(events, systemClock, () => changes++);
  const tap = (): Tap | null => capture.tap;
  assert.equal(tap(), null);
  assert.equal(capture.stop(), null);

  const path = join(folder, 'one.pcapng');
  capture.start(path, 100_000);
  assert.throws(() => capture.start(join(folder, 'two.pcapng'), 100_000), { code: 'COLO_CAPTURE_RUNNING' });
  const frame = Buffer.alloc(1000);
  tap()?.(TAP.released, frame, 0, frame.length, 'match');
  assert.deepEqual(capture.stop(), { path, frames: 1 });
  assert.equal(tap(), null);
  // The end is emitted when the file is closed; the next capture does not wait for that.
  const ends = () => events.after(0).filter((event) => event.type === 'capture.ended');
  for (let tries = 0; ends().length === 0; tries++) {
    assert.ok(tries < 200, 'the first capture ends');
    await sleep(10);
  }

  capture.start(join(folder, 'three.pcapng'), 10_000);
  for (let i = 0; i < 20; i++) tap()?.(TAP.released, frame, 0, frame.length, 'match');
  for (let tries = 0; tap() !== null; tries++) {
    assert.ok(tries < 200, 'the limit ends the capture');
    await sleep(10);
  }
  await sleep(50);
  assert.ok(statSync(join(folder, 'three.pcapng')).size <= 10_000);
  assert.deepEqual(
    ends().map((event) => event.reason),
    ['requested', 'limit'],
  );
  assert.equal(changes, 4);
  await events.close();
});
