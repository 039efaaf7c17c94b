import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { seqAdd, seqAtOrBefore, seqBefore, seqDiff, seqMax } from '../../src/flow/sequence.ts';

const sequence = fc.oneof(fc.constantFrom(0, -1, 1, 0x7fffffff, -0x80000000), fc.integer());
const ahead = fc.oneof(fc.constantFrom(1, 0x7fffffff), fc.integer({ min: 1, max: 0x7fffffff }));

test('0 comes after 0xffffffff', () => {
  assert.equal(seqAdd(-1, 1), 0);
  assert.equal(seqDiff(0, -1), 1);
  assert.equal(seqBefore(-1, 0), true);
  assert.equal(seqBefore(0, -1), false);
  assert.equal(seqMax(-1, 0), 0);
});

test('2^31 is a point like any other', () => {
  assert.equal(seqAdd(0x7fffffff, 1), -0x80000000);
  assert.equal(seqBefore(0x7fffffff, -0x80000000), true);
  assert.equal(seqMax(0x7fffffff, -0x80000000), -0x80000000);
});

test('unsigned numbers mean the same as signed ones', () => {
  fc.assert(
    fc.property(sequence, sequence, (a, b) => {
      assert.equal(seqDiff(a >>> 0, b >>> 0), seqDiff(a, b));
      assert.equal(seqBefore(a >>> 0, b), seqBefore(a, b));
      assert.equal(seqAdd(a >>> 0, b), seqAdd(a, b));
    }),
  );
});

test('a number up to 2^31 - 1 ahead is after, wherever the circle is cut', () => {
  fc.assert(
    fc.property(sequence, ahead, (a, n) => {
      const b = seqAdd(a, n);
      assert.equal(b, b | 0, 'stays an int32');
      assert.equal(seqDiff(b, a), n);
      assert.equal(seqDiff(a, b), -n);
      assert.deepEqual([seqBefore(a, b), seqBefore(b, a)], [true, false]);
      assert.deepEqual([seqAtOrBefore(a, b), seqAtOrBefore(b, a)], [true, false]);
      assert.deepEqual([seqMax(a, b), seqMax(b, a)], [b, b]);
    }),
  );
});

test('a number is at, and not before, itself', () => {
  fc.assert(
    fc.property(sequence, (a) => {
      assert.deepEqual(
        [seqDiff(a, a), seqBefore(a, a), seqAtOrBefore(a, a), seqMax(a, a)],
        [0, false, true, a],
      );
    }),
  );
});
