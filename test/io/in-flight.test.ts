import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SlabPool } from '../../src/frames/slabs.ts';
import { FramePort } from '../../src/io/frame-port.ts';
import { InFlight } from '../../src/io/in-flight.ts';
import type { SlabId } from '../../src/units.ts';
import { fakePair, framed, pumpAll, unframed } from './fake-stream.ts';

const FRAMES = ['a', 'bcd', 'efghijklmnopqrst', 'uv'].map((text) => Buffer.from(text));
const ALL = framed(...FRAMES);

/** A port whose kernel takes `room` bytes of what is written, and what `closeWhole` notifies of. */
function ended(room: number, isFull: boolean, pieces: number) {
  const slabs = new SlabPool(256 * 1024, 8);
  const port = new FramePort('out', slabs);
  const [near, far] = fakePair();
  const unsent: number[][] = [];
  port.seat({
    handler: { frame() {}, batchEnd() {} },
    unsent: (frames, bytes) => unsent.push([frames, bytes]),
  });
  port.attach(near);
  near.stalled = true;
  near.stalledRoom = room;
  near.isFull = isFull;
  const slab = slabs.acquire() as SlabId;
  ALL.copy(slabs.buffer(slab), 0);
  let at = 0;
  for (const [i, frame] of FRAMES.entries()) {
    port.out.push(slab, at + 4, frame.length);
    at += 4 + frame.length;
    if (pieces > 1 && i < pieces - 1) port.flush();
  }
  port.closeWhole();
  return { port, unsent, arrived: far.inbox, slabs, near };
}

for (const pieces of [1, 2, 4]) {
  test(`a stream that is closed ends at a frame boundary, wherever the kernel stopped: ${pieces} pieces`, () => {
    for (let room = 0; room < ALL.length; room++) {
      const { port, unsent, arrived } = ended(room, false, pieces);
      const frames = unframed(arrived);
      assert.deepEqual(frames, FRAMES.slice(0, frames.length));
      const rest = FRAMES.slice(frames.length);
      const bytes = rest.reduce((sum, { length }) => sum + length, 0);
      assert.deepEqual(unsent, rest.length === 0 ? [] : [[rest.length, bytes]], `room for ${room}`);
      assert.equal(port.lastEnd, 'whole');
    }
  });
}

test('a kernel that has no room for the rest of a frame leaves a cut', () => {
  for (let room = 0; room < ALL.length; room++) {
    const { port, unsent, arrived } = ended(room, true, 1);
    const boundaries = [0, 5, 12, 32, 38];
    assert.equal(port.lastEnd, boundaries.includes(arrived.length) ? 'whole' : 'cut', `${arrived.length}`);
    assert.equal(unsent[0][0], FRAMES.length - boundaries.findLastIndex((at) => at <= arrived.length));
  }
});

test('a peer that leaves before the kernel has taken all: where it ended is not known', () => {
  const slabs = new SlabPool(256 * 1024, 8);
  const port = new FramePort('out', slabs);
  const [near, far] = fakePair();
  const unsent: number[][] = [];
  port.seat({
    handler: { frame() {}, batchEnd() {} },
    unsent: (frames, bytes) => unsent.push([frames, bytes]),
  });
  port.attach(near);
  near.stalled = true;
  port.writeOwn(ALL);
  far.close();
  pumpAll(near);
  assert.equal(port.lastEnd, 'unknown');
  assert.deepEqual(unsent, [[4, 22]]);
  const [again] = fakePair();
  port.attach(again);
  assert.equal(port.lastEnd, 'whole');
});

test('pieces that were taken are forgotten', () => {
  const inFlight = new InFlight(4);
  for (let i = 0; i < 5000; i++) {
    inFlight.push(framed(Buffer.alloc(10)));
    inFlight.push(framed(Buffer.alloc(10)));
    inFlight.done();
  }
  assert.deepEqual(inFlight.unsent(5000 * 14 + 3).cut?.rest.length, 11);
  assert.equal(inFlight.unsent(0).frames, 5000);
  while (!inFlight.isEmpty) inFlight.done();
  assert.throws(() => inFlight.done(), /the kernel took a piece that was not written/);
});
