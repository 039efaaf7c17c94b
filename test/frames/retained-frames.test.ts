import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RetainedFrames } from '../../src/frames/retained-frames.ts';
import { SlabPool } from '../../src/frames/slabs.ts';

test('what was not removed is drained once and in order, in whatever order frames were removed', () => {
  const range = fc.tuple(fc.nat(30), fc.nat(10));
  fc.assert(
    fc.property(fc.array(range, { maxLength: 12 }), fc.nat(25), (ranges, frames) => {
      const pool = new SlabPool(64, 64);
      const list = new RetainedFrames(pool);
      const expected = new Set<number>();
      for (let i = 0; i < frames; i++) {
        const slab = pool.acquire();
        assert.equal(list.add(slab, i, 1), i);
        pool.unref(slab);
        expected.add(i);
      }
      for (const [from, more] of ranges) {
        list.remove(from, from + more);
        for (let i = from; i <= from + more; i++) expected.delete(i);
      }
      assert.equal(pool.inUse, expected.size);
      const left: number[] = [];
      list.drain((_slab, at) => left.push(at));
      assert.deepEqual(left, [...expected]);
      assert.equal(pool.inUse, 0);
      assert.equal(list.next, 0, 'numbers start at zero again');
      list.drain(() => assert.fail('handed out twice'));
    }),
  );
});

test('numbers continue when removed frames are compacted, and removing them again does no harm', () => {
  const pool = new SlabPool(64, 1);
  const slab = pool.acquire();
  const list = new RetainedFrames(pool);
  for (let i = 0; i < 10_000; i++) {
    assert.equal(list.add(slab, i, 1), i);
    if (i >= 5) list.remove(i - 5, i - 5);
  }
  list.remove(0, 100);
  assert.equal(list.next, 10_000);
  assert.equal(list.frames, 5);
  const left: number[] = [];
  list.drain((_slab, at) => left.push(at));
  assert.deepEqual(left, [9995, 9996, 9997, 9998, 9999]);
  pool.unref(slab);
  assert.equal(pool.inUse, 0);
});

test('frames are taken by their tags, in order, and the others stay with their numbers', () => {
  const pool = new SlabPool(64, 1);
  const slab = pool.acquire();
  const list = new RetainedFrames(pool);
  const takeWhere = (wanted: number) => {
    const taken: number[] = [];
    list.takeWhere(
      (tag) => tag === wanted,
      (_slab, at, _length, tag) => taken.push(at, tag),
    );
    return taken;
  };
  for (const [at, tag] of [7, 8, 7, 9, 8].entries()) list.add(slab, at, 10, tag, at);
  assert.deepEqual(takeWhere(8), [1, 8, 4, 8]);
  assert.deepEqual(takeWhere(8), []);
  assert.deepEqual(
    [0, 1, 2, 3, 4].map((number) => list.has(number)),
    [true, false, true, true, false],
  );
  assert.equal(list.frames, 3);
  assert.equal(list.bytes, 30);
  assert.deepEqual(takeWhere(7), [0, 7, 2, 7]);
  assert.equal(list.oldest, 3);
  assert.equal(list.sinceOf(3), 3);
  assert.deepEqual(takeWhere(9), [3, 9]);
  assert.equal(list.next, 0, 'numbers start at zero again');
  pool.unref(slab);
  assert.equal(pool.inUse, 0);
});

test('clear removes without handing out', () => {
  const pool = new SlabPool(64, 1);
  const slab = pool.acquire();
  const list = new RetainedFrames(pool);
  list.add(slab, 0, 1);
  pool.unref(slab);
  list.clear();
  assert.equal(list.frames, 0);
  assert.equal(pool.inUse, 0);
});
