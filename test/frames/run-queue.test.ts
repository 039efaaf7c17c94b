import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RunQueue } from '../../src/frames/run-queue.ts';
import { SlabPool } from '../../src/frames/slabs.ts';

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
