import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hashBytes, RecentPayloads } from '../../src/diff/recent-payloads.ts';

test('a payload is taken as often as it was added; others stay', () => {
  const recent = new RecentPayloads();
  assert.equal(recent.take(1, 0), false);
  for (const hash of [1, 2, 3, 2]) recent.add(hash, 0);
  assert.deepEqual(
    [2, 2, 2, 3, 1].map((hash) => recent.take(hash, 1)),
    [true, true, false, true, true],
  );
});

test('the latest 64 payloads are known, for five seconds', () => {
  const recent = new RecentPayloads();
  for (let hash = 0; hash < 100; hash++) recent.add(hash, hash);
  assert.deepEqual([recent.take(35, 99), recent.take(36, 99), recent.take(99, 99)], [false, true, true]);
  assert.deepEqual([recent.take(50, 5051), recent.take(51, 5051)], [false, true]);
});

test('a hash depends on every byte, the length and the seed', () => {
  const of = (text: string, seed = 0): number => hashBytes(Buffer.from(`-${text}`), 1, text.length, seed);
  assert.equal(of('abc'), of('abc'));
  const texts = ['', '\0', '\0\0', 'ab', 'ba', 'abc', 'abd', 'bbc', 'abcd'];
  const hashes = [...texts.map((text) => of(text)), of('abc', 1)];
  assert.equal(new Set(hashes).size, hashes.length);
});
