import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { SilentInput } from '../../src/datapath/silent-input.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { LIMITS, type Limits } from '../../src/limits.ts';
import type { Instant } from '../../src/units.ts';

function silent(slabBytes = 2048, slabsMax = 8192, limits: Limits = LIMITS) {
  const pool = new SlabPool(slabBytes, slabsMax);
  const input = new SilentInput(pool, limits);
  return {
    pool,
    input,
    receive(frame: Buffer, nowMs = 0) {
      const slab = pool.acquire();
      frame.copy(pool.buffer(slab));
      input.receive(slab, 0, frame.length, nowMs as Instant);
      pool.unref(slab);
    },
    passedOn: (frame: Buffer, nowMs = 0) => input.passedOn(frame, 0, frame.length, nowMs as Instant),
    left() {
      const all: string[] = [];
      input.drain((slab, at, length) => all.push(pool.buffer(slab).toString('latin1', at, at + length)));
      assert.equal(pool.inUse, 0);
      return all;
    },
  };
}

const frame = (text: string) => Buffer.from(text, 'latin1');

test('equal frames of uplink and link pair one to one, whichever brings them first', () => {
  const step = fc.record({ link: fc.boolean(), frame: fc.constantFrom('a', 'b', 'cc') });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 50 }), (steps) => {
      const { receive, passedOn, left } = silent();
      const open: Record<string, number> = { a: 0, b: 0, cc: 0 };
      for (const { link, frame: text } of steps) {
        open[text] += link ? -1 : 1;
        if (link) passedOn(frame(text));
        else receive(frame(text));
      }
      const counts: Record<string, number> = { a: 0, b: 0, cc: 0 };
      for (const text of left()) counts[text]++;
      for (const text of ['a', 'b', 'cc']) assert.equal(counts[text], Math.max(0, open[text]), text);
    }),
  );
});

test('a drain hands out the unmatched frames once, in order', () => {
  const { receive, passedOn, left } = silent();
  for (const text of ['1', '2', '3', '4']) receive(frame(text));
  passedOn(frame('2'));
  assert.deepEqual(left(), ['1', '3', '4']);
  assert.deepEqual(left(), []);
});

test('large frames that differ only in the last byte do not match', () => {
  const { receive, passedOn, left } = silent();
  const large = Buffer.alloc(1500, 'x');
  const other = Buffer.from(large);
  other[1499] = 0;
  receive(large);
  passedOn(other);
  assert.equal(left().length, 1);
});

test('the oldest frames are dropped at silentUplinkBytesMax and after silentUplinkMsMax', () => {
  const few = silent();
  few.receive(frame('old'), 0);
  few.receive(frame('young'), LIMITS.silentUplinkMsMax);
  few.receive(frame('new'), LIMITS.silentUplinkMsMax + 1);
  assert.deepEqual(few.left(), ['young', 'new']);

  const many = silent();
  const frames = LIMITS.silentUplinkBytesMax / 1024;
  for (let i = 0; i < frames + 10; i++) many.receive(Buffer.alloc(1024, i));
  assert.equal(many.input.frames, frames);
  many.input.clear();
  assert.equal(many.pool.inUse, 0);
});

test('a frame that the link brought more than silentUplinkMsMax ago matches nothing', () => {
  const { receive, passedOn, left } = silent();
  passedOn(frame('again'), 0);
  receive(frame('again'), LIMITS.silentUplinkMsMax + 1);
  assert.deepEqual(left(), ['again']);
});

test('a bounded number of the link’s frames is remembered while the uplink receives nothing', () => {
  const { receive, passedOn, left } = silent();
  for (let i = 0; i < 100_000; i++) passedOn(frame(`frame ${i}`));
  receive(frame('frame 99999'));
  receive(frame('frame 1'));
  assert.deepEqual(left(), ['frame 1']);
});

test('as many frames of the link as a set has places wait for the uplink at the same time; then the oldest is forgotten', () => {
  const { receive, passedOn, left } = silent(2048, 8192, { ...LIMITS, passedOnMax: 4 });
  for (const text of ['a', 'b', 'c', 'd']) passedOn(frame(text), 1);
  for (const text of ['d', 'a']) receive(frame(text), 1);
  passedOn(frame('a'), 2);
  for (const text of ['e', 'f']) passedOn(frame(text), 3);
  for (const text of ['a', 'c', 'e', 'f', 'b']) receive(frame(text), 4);
  assert.deepEqual(left(), ['b']);
});
