import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SentSegments, sumOf } from '../../src/diff/sent-segments.ts';

test('a segment is found by its flow, place and first bytes', () => {
  const sent = new SentSegments();
  sent.add(1, -5, 77);
  assert.equal(sent.has(1, -5, 77), true);
  assert.deepEqual([sent.has(2, -5, 77), sent.has(1, -4, 77), sent.has(1, -5, 78)], [false, false, false]);
});

test('of many segments the latest are found', () => {
  const sent = new SentSegments();
  for (let i = 0; i < 10_000; i++) sent.add(1 + (i % 7), i * 1448, i);
  let known = 0;
  for (let i = 9000; i < 10_000; i++) if (sent.has(1 + (i % 7), i * 1448, i)) known++;
  assert.ok(known > 950, `${known}`);
});

test('a sum depends on the first bytes and the length', () => {
  const of = (text: string): number => sumOf(Buffer.from(`-${text}`), 1, text.length);
  assert.equal(of('some bytes'), of('some bytes'));
  assert.equal(
    new Set([of(''), of('abcd'), of('abce'), of('abcdabcd'), of('abcdabce'), of('abc'), of('abd')]).size,
    7,
  );
});
