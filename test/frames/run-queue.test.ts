import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RunQueue } from '../../src/frames/run-queue.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import type { SlabId } from '../../src/units.ts';

function queue(runBytesMax = 1000) {
  const pool = new SlabPool(4096, 4);
  const runs = new RunQueue(pool, runBytesMax);
  const drained = () => {
    const all: number[][] = [];
    runs.drain((slab, start, end, tag) => {
      all.push([slab, start, end, tag]);
      pool.unref(slab);
    });
    return all;
  };
  return { pool, runs, drained };
}

test('neighbours become one run, with the tag of the first', () => {
  const { pool, runs, drained } = queue();
  const slab = pool.acquire();
  runs.push(slab, 4, 60, 7);
  runs.push(slab, 68, 10, 8);
  runs.push(slab, 82, 1, 9);
  assert.equal(runs.runs, 1);
  assert.equal(runs.bytes, 83);
  assert.deepEqual(drained(), [[slab, 0, 83, 7]]);
  assert.equal(runs.bytes, 0);
  pool.unref(slab);
  assert.equal(pool.inUse, 0, 'one count for each run');
});

test('a gap, an earlier place, another slab and a full run begin a new one', () => {
  const { pool, runs, drained } = queue(100);
  const [a, b] = [pool.acquire(), pool.acquire()];
  runs.push(a, 4, 40, 1);
  runs.push(a, 49, 40, 2);
  runs.push(a, 4, 40, 3);
  runs.push(b, 48, 8, 4);
  runs.push(b, 60, 96, 5);
  assert.deepEqual(drained(), [
    [a, 0, 44, 1],
    [a, 45, 89, 2],
    [a, 0, 44, 3],
    [b, 44, 56, 4],
    [b, 56, 156, 5],
  ]);
});

test('a run that is pushed during a drain waits for the next drain', () => {
  const { pool, runs, drained } = queue();
  const slab = pool.acquire();
  runs.push(slab, 4, 10);
  runs.drain((taken) => {
    pool.unref(taken);
    runs.push(slab, 18, 10);
  });
  assert.deepEqual(drained(), [[slab, 14, 28, 0]]);
});

test('clear unrefs the slabs', () => {
  const { pool, runs } = queue();
  const slab = pool.acquire();
  runs.push(slab, 4, 10);
  runs.push(slab, 500, 10);
  pool.unref(slab);
  runs.clear();
  assert.equal(pool.inUse, 0);
  assert.equal(runs.runs, 0);
});

test('some of it: from the front, as many runs as fit and at least one, and the accounts of the rest are right', () => {
  const { pool, runs, drained } = queue(28);
  const slab = pool.acquire();
  for (const at of [4, 18, 100, 200, 300]) runs.push(slab, at, 10);
  assert.deepEqual([runs.runs, runs.frames, runs.bytes], [4, 5, 70]);
  const some = (bytesMax: number) => {
    const starts: number[] = [];
    runs.drain((taken, start) => {
      starts.push(start);
      pool.unref(taken);
    }, bytesMax);
    return starts;
  };
  assert.deepEqual(some(1), [0]);
  assert.deepEqual([runs.runs, runs.frames, runs.bytes], [3, 3, 42]);
  assert.deepEqual(some(28), [96, 196]);
  assert.deepEqual([runs.runs, runs.frames, runs.bytes], [1, 1, 14]);
  assert.deepEqual(some(14), [296]);
  assert.deepEqual([runs.runs, runs.frames, runs.bytes], [0, 0, 0]);
  assert.deepEqual(drained(), []);
  pool.unref(slab);
  assert.equal(pool.inUse, 0);
});

/** Frames as the queue hands them out, with their prefixes. */
function drainedBytes(pool: SlabPool, runs: RunQueue): Buffer {
  const parts: Buffer[] = [];
  runs.drain((slab, start, end) => {
    parts.push(Buffer.from(pool.buffer(slab).subarray(start, end)));
    pool.unref(slab);
  });
  return Buffer.concat(parts);
}

/** A slab with these frames one after another, each with its prefix; and where the frames lie. */
function slabWith(pool: SlabPool, lengths: number[]): { slab: SlabId; places: [number, number][] } {
  const slab = pool.acquire();
  const places: [number, number][] = [];
  let at = 0;
  for (const [i, length] of lengths.entries()) {
    pool.buffer(slab).writeUInt32BE(length, at);
    pool.buffer(slab).fill(i + 1, at + 4, at + 4 + length);
    places.push([at + 4, length]);
    at += 4 + length;
  }
  return { slab, places };
}

function framed(value: number, length: number, padTo = length): Buffer {
  const bytes = Buffer.alloc(4 + padTo);
  bytes.writeUInt32BE(padTo);
  return bytes.fill(value, 4, 4 + length);
}

test('a short frame is filled up with zeros where a minimum is given; it and its neighbours stay as they are', () => {
  const pool = new SlabPool(4096, 4);
  const runs = new RunQueue(pool, 1000, 'plain', 60);
  const { slab, places } = slabWith(pool, [42, 59, 60, 1, 1514]);
  const before = Buffer.from(pool.buffer(slab));
  for (const [at, length] of places) runs.push(slab, at, length);
  pool.unref(slab);
  assert.equal(runs.frames, 5);
  assert.equal(runs.bytes, 4 * 64 + 1518);
  assert.equal(runs.runs, 4, 'padded frames are neighbours of each other');
  const all = [framed(1, 42, 60), framed(2, 59, 60), framed(3, 60), framed(4, 1, 60), framed(5, 1514)];
  assert.deepEqual(drainedBytes(pool, runs), Buffer.concat(all));
  assert.deepEqual(pool.buffer(slab), before);
  assert.equal(pool.inUse, 1, 'the slab for padding');
  runs.clear();
  assert.equal(pool.inUse, 0);
});

test('slabs for padding are used again, and what an earlier frame left there is not sent', () => {
  const pool = new SlabPool(200, 2);
  const runs = new RunQueue(pool, 1000, 'plain', 60);
  for (let round = 0; round < 20; round++) {
    const { slab, places } = slabWith(pool, [round % 2 === 0 ? 59 : 3]);
    runs.push(slab, ...places[0]);
    pool.unref(slab);
    assert.deepEqual(drainedBytes(pool, runs), framed(1, places[0][1], 60), `round ${round}`);
  }
});

test('without a slab for padding a short frame leaves as it is', () => {
  const pool = new SlabPool(200, 1);
  const runs = new RunQueue(pool, 1000, 'plain', 60);
  const { slab, places } = slabWith(pool, [42]);
  runs.push(slab, ...places[0]);
  assert.deepEqual(drainedBytes(pool, runs), framed(1, 42));
  pool.unref(slab);
  assert.equal(pool.inUse, 0);
});

test('without a minimum a short frame leaves as it is, from where it lies', () => {
  const { pool, runs, drained } = queue();
  const slab = pool.acquire();
  runs.push(slab, 4, 42);
  assert.deepEqual(drained(), [[slab, 0, 46, 0]]);
});
