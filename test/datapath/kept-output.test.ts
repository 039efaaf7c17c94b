import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { KeptOutput } from '../../src/datapath/kept-output.ts';
import { SlabPool } from '../../src/frames/slabs.ts';

test('what was not confirmed comes out once and in order, whatever order the confirmations had', () => {
  const range = fc.tuple(fc.nat(30), fc.nat(10));
  fc.assert(
    fc.property(fc.array(range, { maxLength: 12 }), fc.nat(25), (ranges, frames) => {
      const pool = new SlabPool(64, 64);
      const kept = new KeptOutput(pool);
      const expected = new Set<number>();
      for (let i = 0; i < frames; i++) {
        const slab = pool.acquire();
        assert.equal(kept.add(slab, i, 1), i);
        pool.unref(slab);
        expected.add(i);
      }
      for (const [from, more] of ranges) {
        kept.confirm(from, from + more);
        for (let i = from; i <= from + more; i++) expected.delete(i);
      }
      assert.equal(pool.inUse, expected.size);
      const left: number[] = [];
      kept.drain((_slab, at) => left.push(at));
      assert.deepEqual(left, [...expected]);
      assert.equal(pool.inUse, 0);
      assert.equal(kept.next, 0, 'the next epoch counts from zero');
      kept.drain(() => assert.fail('handed out twice'));
    }),
  );
});

test('numbers go on when confirmed frames are forgotten, and old confirmations do no harm', () => {
  const pool = new SlabPool(64, 1);
  const slab = pool.acquire();
  const kept = new KeptOutput(pool);
  for (let i = 0; i < 10_000; i++) {
    assert.equal(kept.add(slab, i, 1), i);
    if (i >= 5) kept.confirm(i - 5, i - 5);
  }
  kept.confirm(0, 100);
  assert.equal(kept.next, 10_000);
  assert.equal(kept.frames, 5);
  const left: number[] = [];
  kept.drain((_slab, at) => left.push(at));
  assert.deepEqual(left, [9995, 9996, 9997, 9998, 9999]);
  pool.unref(slab);
  assert.equal(pool.inUse, 0);
});

test('clear forgets without handing out', () => {
  const pool = new SlabPool(64, 1);
  const slab = pool.acquire();
  const kept = new KeptOutput(pool);
  kept.add(slab, 0, 1);
  pool.unref(slab);
  kept.clear();
  assert.equal(kept.frames, 0);
  assert.equal(pool.inUse, 0);
});
