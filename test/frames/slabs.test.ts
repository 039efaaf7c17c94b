import assert from 'node:assert/strict';
import { test } from 'node:test';
import { newSlabMemory, SlabPool } from '../../src/frames/slabs.ts';

test('slabs are lent, counted, given back and lent again', () => {
  const pool = new SlabPool(64, 2);
  const a = pool.acquire();
  const b = pool.acquire();
  assert.equal(pool.acquire(), -1);
  assert.equal(pool.inUse, 2);
  pool.ref(a);
  pool.unref(a);
  assert.equal(pool.inUse, 2);
  pool.unref(a);
  assert.equal(pool.inUse, 1);
  assert.equal(pool.acquire(), a);
  assert.equal(pool.buffer(b).length, 64);
});

test('a waiter is called once, when a slab is free', () => {
  const pool = new SlabPool(64, 1);
  const slab = pool.acquire();
  const told: string[] = [];
  pool.whenFree(() => told.push('first'));
  pool.whenFree(() => told.push('second'));
  pool.unref(slab);
  assert.deepEqual(told, ['first']);
  pool.unref(pool.acquire());
  pool.unref(pool.acquire());
  assert.deepEqual(told, ['first', 'second']);
});

test('one count too few or too many is a bug that shows', () => {
  const pool = new SlabPool(64, 1);
  const slab = pool.acquire();
  pool.unref(slab);
  assert.throws(() => pool.unref(slab), { code: 'COLO_INVARIANT' });
  assert.throws(() => pool.ref(slab), { code: 'COLO_INVARIANT' });
});

test('a pool works in the memory that it is handed, whatever that held before', () => {
  const memory = newSlabMemory(65_536, 2);
  const before = new SlabPool(65_536, 2, memory);
  before.buffer(before.acquire()).fill(7);
  const pool = new SlabPool(65_536, 2, memory);
  const [a, b] = [pool.acquire(), pool.acquire()];
  assert.equal(pool.acquire(), -1);
  assert.equal(pool.buffer(a)[0], 7);
  pool.buffer(a).set([1, 2, 3], 0);
  pool.buffer(b).set([1, 2, 3], 10);
  assert.ok(pool.same(a, 0, b, 10, 3));
  assert.ok(!pool.same(a, 0, b, 9, 3));
});
