import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SaidSegments, sumOf } from '../../src/diff/said-segments.ts';

test('a segment is known by flow, place and first bytes', () => {
  const said = new SaidSegments();
  said.add(1, -5, 77);
  assert.equal(said.has(1, -5, 77), true);
  assert.deepEqual([said.has(2, -5, 77), said.has(1, -4, 77), said.has(1, -5, 78)], [false, false, false]);
});

test('many segments: the latest are known', () => {
  const said = new SaidSegments();
  for (let i = 0; i < 10_000; i++) said.add(1 + (i % 7), i * 1448, i);
  let known = 0;
  for (let i = 9000; i < 10_000; i++) if (said.has(1 + (i % 7), i * 1448, i)) known++;
  assert.ok(known > 950, `${known}`);
});

test('sums', () => {
  const of = (text: string): number => sumOf(Buffer.from(`-${text}`), 1, text.length);
  assert.equal(of('some bytes'), of('some bytes'));
  assert.equal(new Set([of(''), of('abcd'), of('abce'), of('abcdabcd'), of('abcdabce')]).size, 5);
});
