import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COLO_MESSAGE, coloMessageBytes, ReverseParser } from '../../src/checkpoint/colo-messages.ts';
import { u16, u32 } from '../frames.ts';

function parser() {
  const log: string[] = [];
  const one = new ReverseParser({
    passThrough: (bytes) => log.push(`through ${bytes.toString('hex')}`),
    message: (message) => log.push(message),
    garbled: (what) => log.push(`garbled: ${what}`),
  });
  return { log, feed: (bytes: Uint8Array) => one.feed(bytes) };
}

/** Two return-path messages (one of them empty), READY, and two checkpoints. */
const STREAM = Buffer.concat([
  u16(4, 8),
  Buffer.alloc(8, 7),
  u16(1, 0),
  u32(0),
  u32(2),
  u32(5),
  u32(6),
  u32(2),
  u32(5),
  u32(6),
]);
const MESSAGES = [
  `through 00040008${'07'.repeat(8)}`,
  'through 00010000',
  'ready',
  'reply',
  'received',
  'loaded',
  'reply',
  'received',
  'loaded',
];

test('a stream is cut into the same messages, however its bytes arrive', () => {
  for (let split = 0; split <= STREAM.length; split++) {
    const { log, feed } = parser();
    feed(STREAM.subarray(0, split));
    feed(STREAM.subarray(split));
    assert.deepEqual(log, MESSAGES);
  }
  const { log, feed } = parser();
  for (const byte of STREAM) feed(Uint8Array.of(byte));
  assert.deepEqual(log, MESSAGES);
});

test('without a return path the first message is READY', () => {
  const { log, feed } = parser();
  feed(u32(0));
  feed(u32(2));
  assert.deepEqual(log, ['ready', 'reply']);
});

test('a message that is passed through is a copy: a later read into the buffer does not change it', () => {
  const passed: Buffer[] = [];
  const one = new ReverseParser({ passThrough: (bytes) => passed.push(bytes), message() {}, garbled() {} });
  const buffer = Buffer.concat([u16(3, 4), Buffer.alloc(4, 9)]);
  one.feed(buffer);
  buffer.fill(0);
  assert.equal(passed[0].toString('hex'), '0003000409090909');
});

for (const [name, bytes] of [
  ['a READY with bytes', u16(0, 4)],
  ['a return-path message that is too long', u16(4, 4097)],
  ['text', Buffer.from('HTTP/1.1')],
  ['a second READY', u32(0, 0)],
  ['a REQUEST from the secondary', u32(0, 1)],
  ['an unknown message', u32(0, 7)],
] as const) {
  test(`${name} is reported as garbled once, and the parser ignores what follows`, () => {
    const { log, feed } = parser();
    feed(bytes);
    feed(u32(2, 5, 6));
    assert.equal(log.filter((line) => line.startsWith('garbled')).length, 1);
    assert.ok(log.at(-1)?.startsWith('garbled'));
  });
}

test('a COLO message is four bytes, big-endian', () => {
  assert.equal(coloMessageBytes(COLO_MESSAGE.request).toString('hex'), '00000001');
});
