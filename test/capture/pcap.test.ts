import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pcap } from './captures.ts';
import { readAll } from './read-all.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');

/** One frame of 14 bytes, cut from 60, at 2026-11-25T00:00:00.000250Z: once per magic number. */
const LITERAL = {
  'little-endian, microseconds': hex(`
    d4c3b2a1 0200 0400 00000000 00000000 00000400 01000000
    80d2146a fa000000 0e000000 3c000000 ffffffffffff525400123456 0806`),
  'big-endian, microseconds': hex(`
    a1b2c3d4 0002 0004 00000000 00000000 00040000 00000001
    6a14d280 000000fa 0000000e 0000003c ffffffffffff525400123456 0806`),
  'little-endian, nanoseconds': hex(`
    4d3cb2a1 0200 0400 00000000 00000000 00000400 01000000
    80d2146a 90d00300 0e000000 3c000000 ffffffffffff525400123456 0806`),
  'big-endian, nanoseconds': hex(`
    a1b23c4d 0002 0004 00000000 00000000 00040000 00000001
    6a14d280 0003d090 0000000e 0000003c ffffffffffff525400123456 0806`),
};
const SEEN = {
  number: 1,
  timeMs: 0x6a14d280 * 1000 + 0.25,
  hex: 'ffffffffffff5254001234560806',
  originalLength: 60,
  interfaceName: '',
};

for (const [name, file] of Object.entries(LITERAL)) {
  test(`${name}: read alike wherever the bytes are split`, () => {
    for (let cut = 0; cut <= file.length; cut++) assert.deepEqual(readAll(file, [cut]).frames, [SEEN]);
    const everywhere = Array.from(file, (_, i) => i);
    assert.deepEqual(readAll(file, everywhere), { frames: [SEEN], cutAt: null, timeless: 0 });
  });
}

test('a file that ends within a record: the frames before it count, and its offset is reported', () => {
  const frame = Buffer.alloc(20, 7);
  const file = pcap([
    { ms: 1000, frame },
    { ms: 2000, frame },
  ]);
  for (let length = 24 + 37; length < file.length; length++) {
    const { frames, cutAt } = readAll(file.subarray(0, length));
    assert.deepEqual([frames.length, cutAt], [1, 24 + 36], `${length} bytes`);
  }
  assert.deepEqual(readAll(file.subarray(0, 24 + 36)).cutAt, null);
});

test('the upper half of the link type (frame check sequences) is ignored', () => {
  assert.equal(
    readAll(pcap([{ ms: 0, frame: Buffer.alloc(14) }], { linkType: 0x24000001 })).frames.length,
    1,
  );
});

const throwsAt = (file: Buffer, code: string, message: RegExp): void => {
  for (const cuts of [[], Array.from(file, (_, i) => i)])
    assert.throws(() => readAll(file, cuts), { code, message });
};

test('inconsistent files are refused', () => {
  const record = [{ ms: 0, frame: Buffer.alloc(60) }];
  throwsAt(
    pcap(record).subarray(0, 23),
    'COLO_PCAP_FORMAT',
    /^x\.pcap ends within its header, after 23 bytes;/,
  );
  throwsAt(
    pcap(record, { linkType: 113 }),
    'COLO_PCAP_LINKTYPE',
    /link type 113 \(Linux cooked.*tcpdump -i tap0/,
  );
  throwsAt(pcap(record, { linkType: 147 }), 'COLO_PCAP_LINKTYPE', /link type 147, not Ethernet/);
  const version = pcap(record);
  version.writeUInt16LE(1, 4);
  throwsAt(version, 'COLO_PCAP_FORMAT', /version 1, not 2/);
  const long = pcap(record);
  long.writeUInt32LE(262_145, 24 + 8);
  throwsAt(long, 'COLO_PCAP_GARBLED', /^x\.pcap, byte 24: a frame has a length of 262145 bytes/);
  throwsAt(
    pcap([{ ms: 0, frame: Buffer.alloc(60), original: 59 }]),
    'COLO_PCAP_GARBLED',
    /byte 24: 60 captured bytes of a frame that has 59/,
  );
});

test('a record that contradicts itself is left out and counted, and numbered', () => {
  const good = { ms: 1000, frame: Buffer.alloc(60) };
  for (const odd of [
    { ms: 1000, frame: Buffer.alloc(60), original: 59 },
    { ms: 0, frame: Buffer.alloc(0) },
  ]) {
    const file = pcap([odd, good, odd, good]);
    for (const cuts of [[], Array.from(file, (_, i) => i)]) {
      const { frames, leftOut, leftOutRecords } = readAll(file, cuts);
      assert.deepEqual([frames.map(({ number }) => number), leftOutRecords], [[2, 4], 2]);
      assert.match(leftOut!, /^x\.pcap, byte 24: /);
    }
  }
});

test('after damage the frames before it count', () => {
  const record = { ms: 0, frame: Buffer.alloc(60) };
  const file = pcap([record, record, record]);
  file.writeUInt32LE(262_145, 24 + 76 + 8);
  for (const cuts of [[], Array.from(file, (_, i) => i)]) {
    const { frames, damage, cutAt } = readAll(file, cuts);
    assert.deepEqual([frames.length, cutAt], [1, null]);
    assert.match(damage!, /^x\.pcap, byte 100: a frame has a length of 262145 bytes/);
  }
});
