import assert from 'node:assert/strict';
import { test } from 'node:test';
import { excerptOf, firstPayloadDifference, firstStreamDifference, flagsOf } from '../../src/diff/explain.ts';
import type { FrameBytes } from '../../src/divergence/difference.ts';
import { ACK, FIN, placed, RST, SYN, tcpFrame, udpFrame } from '../frames.ts';

const segment = (seq: number, text: string): FrameBytes =>
  placed(tcpFrame({ seq, payload: Buffer.from(text) }));
const datagram = (text: string): FrameBytes => placed(udpFrame({ payload: Buffer.from(text) }));

test('the first difference in a stream, across the wrap of sequence numbers', () => {
  const base = 0xffff_fffe;
  const primary = segment(base, 'abcdefgh');
  for (const same of [segment(base, 'abcdefgh'), segment(base, 'abc'), segment(base + 8, 'zzz')])
    assert.equal(firstStreamDifference(primary, same), null);
  assert.deepEqual(firstStreamDifference(primary, segment(base + 3, 'dXfgh')), {
    primaryOffset: 4,
    secondaryOffset: 1,
  });
  assert.deepEqual(firstStreamDifference(primary, segment(base - 2, '..aXc')), {
    primaryOffset: 1,
    secondaryOffset: 3,
  });
});

test('the first difference of two datagrams, or where the shorter one ends', () => {
  const difference = (a: string, b: string): number =>
    firstPayloadDifference(datagram(a), datagram(b)).primaryOffset;
  assert.deepEqual([difference('abc', 'abd'), difference('abc', 'ab'), difference('', 'x')], [2, 2, 0]);
});

test('an excerpt begins shortly before, and never leaves the payload', () => {
  const text = Array.from({ length: 60 }, (_, i) => String.fromCharCode(48 + i)).join('');
  const excerpt = (at: number): [number, string] => {
    const { offset, hex } = excerptOf(datagram(text), at);
    return [offset, Buffer.from(hex, 'hex').toString()];
  };
  assert.deepEqual(excerpt(0), [0, text.slice(0, 32)]);
  assert.deepEqual(excerpt(20), [12, text.slice(12, 44)]);
  assert.deepEqual(excerpt(59), [51, text.slice(51)]);
  assert.deepEqual(excerpt(60), [52, text.slice(52)]);
  assert.deepEqual(excerpt(1000), [60, '']);
});

test('flags', () => {
  const flags = (value: number): string | null => flagsOf(placed(tcpFrame({ flags: value })));
  assert.deepEqual([flags(SYN | ACK), flags(FIN), flags(RST), flags(0)], ['SYN ACK', 'FIN', 'RST', '']);
  assert.equal(flagsOf(datagram('x')), null);
});
