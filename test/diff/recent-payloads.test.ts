import assert from 'node:assert/strict';
import { test } from 'node:test';
import { hashBytes, RecentPayloads } from '../../src/diff/recent-payloads.ts';

test('a payload that is taken is forgotten, and so are older ones', () => {
  const recent = new RecentPayloads();
  for (const hash of [1, 2, 3, 2]) recent.add(hash);
  recent.take(2);
  assert.deepEqual(
    [1, 2, 3].map((hash) => recent.has(hash)),
    [false, true, true],
  );
});

test('only the latest payloads are known', () => {
  const recent = new RecentPayloads();
  for (let hash = 0; hash < 100; hash++) recent.add(hash);
  assert.deepEqual([recent.has(35), recent.has(36), recent.has(99)], [false, true, true]);
});

test('payloads of other bytes or lengths have other hashes', () => {
  const of = (text: string, seed = 0): number => hashBytes(Buffer.from(`--${text}`), 2, text.length, seed);
  const hashes = [of(''), of('\0'), of('\0\0'), of('a'), of('b'), of('ab'), of('ba'), of('a', 1)];
  assert.equal(new Set(hashes).size, hashes.length);
  assert.equal(of('same'), of('same'));
});
