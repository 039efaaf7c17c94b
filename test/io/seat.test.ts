import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SlabPool } from '../../src/frames/slabs.ts';
import { FramePort } from '../../src/io/frame-port.ts';
import { Valve } from '../../src/io/seat.ts';
import { fakePair, framed } from './fake-stream.ts';

const IGNORE = { frame() {}, batchEnd() {} };

function openPort() {
  const slabs = new SlabPool(128 * 1024, 4);
  const port = new FramePort('vm', slabs);
  const [near, far] = fakePair();
  port.attach(near);
  return { port, near, far, slabs };
}

test('the end of a seat gives back its handler, its callbacks and every pause', () => {
  const { port, near, far, slabs } = openPort();
  const calls: string[] = [];
  const seat = port.seat({
    handler: { frame: () => calls.push('frame'), batchEnd: () => {} },
    written: () => calls.push('written'),
    lost: () => calls.push('lost'),
  });
  seat.pauseReading();
  seat.pauseReading();
  assert.ok(near.paused);
  seat.end();
  assert.ok(!near.paused);
  far.write(framed(Buffer.from('late')), () => {});
  near.pump();
  const slab = slabs.acquire();
  port.out.push(slab, 4, 1);
  slabs.unref(slab);
  port.close();
  assert.deepEqual(calls, []);
  seat.pauseReading();
  seat.resumeReading();
  seat.end();
  assert.equal(slabs.inUse, 0);
});

test('a port has one user at a time', () => {
  const { port } = openPort();
  const first = port.seat({ handler: IGNORE });
  assert.throws(() => port.seat({ handler: IGNORE }), { code: 'COLO_INVARIANT' });
  first.end();
  const second = port.seat({ handler: IGNORE });
  assert.throws(() => port.vacate(first), { code: 'COLO_INVARIANT' });
  second.end();
});

test('a seat resumes only what it has paused', () => {
  const { port, near } = openPort();
  const seat = port.seat({ handler: IGNORE });
  assert.throws(() => seat.resumeReading(), { code: 'COLO_INVARIANT' });
  assert.throws(() => port.resumeReading(), { code: 'COLO_INVARIANT' });
  assert.ok(!near.paused);
});

test('the port reads when every valve on it is open', () => {
  const { port, near } = openPort();
  const seat = port.seat({ handler: IGNORE });
  const [one, two] = [new Valve(seat), new Valve(seat)];
  one.shutIf(true);
  one.shutIf(true);
  two.shutIf(true);
  one.shutIf(false);
  assert.ok(near.paused);
  assert.deepEqual([one.isShut, two.isShut], [false, true]);
  two.shutIf(false);
  assert.ok(!near.paused);
});
