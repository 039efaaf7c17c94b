import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  block,
  type Endian,
  enhancedPacket,
  interfaceBlock,
  obsoletePacket,
  option,
  pcapng,
  section,
  simplePacket,
} from './captures.ts';
import { readAll } from './read-all.ts';

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/\s/g, ''), 'hex');
const FRAME = hex('ffffffffffff525400123456 0806 aa');

/** Section, interface "tap0" (nanoseconds), name resolution block (skipped), enhanced packet of 15 bytes. */
const LITERAL: Record<Endian, Buffer> = {
  little: hex(`
    0a0d0d0a 1c000000 4d3c2b1a 0100 0000 ffffffffffffffff 1c000000
    01000000 28000000 0100 0000 00000400 0200 0400 74617030 0900 0100 09000000 00000000 28000000
    04000000 10000000 00000000 10000000
    06000000 30000000 00000000 bc9ab718 d0f90ecf 0f000000 0f000000
      ffffffffffff525400123456 0806 aa 00 30000000`),
  big: hex(`
    0a0d0d0a 0000001c 1a2b3c4d 0001 0000 ffffffffffffffff 0000001c
    00000001 00000028 0001 0000 00040000 0002 0004 74617030 0009 0001 09000000 00000000 00000028
    00000004 00000010 00000000 00000010
    00000006 00000030 00000000 18b79abc cf0ef9d0 0000000f 0000000f
      ffffffffffff525400123456 0806 aa 00 00000030`),
};

for (const [endian, file] of Object.entries(LITERAL)) {
  test(`${endian}-endian: wherever the bytes are split`, () => {
    const { frames } = readAll(file);
    const [{ timeMs, ...seen }] = frames;
    assert.equal(frames.length, 1);
    assert.deepEqual(seen, {
      number: 1,
      hex: FRAME.toString('hex'),
      originalLength: 15,
      interfaceName: 'tap0',
    });
    assert.ok(Math.abs(timeMs - Number(0x18b79abccf0ef9d0n / 1000n) / 1000) < 0.001, `${timeMs}`);
    for (let cut = 0; cut <= file.length; cut++) assert.deepEqual(readAll(file, [cut]).frames, frames);
    const everywhere = Array.from(file, (_, i) => i);
    assert.deepEqual(readAll(file, everywhere), { frames, cutAt: null, timeless: 0 });
  });
}

for (const endian of ['little', 'big'] as const) {
  test(`${endian}-endian: resolutions and offsets`, () => {
    const cases: [number | undefined, bigint, number][] = [
      [undefined, 5_000_250n, 5000.25],
      [6, 5_000_250n, 5000.25],
      [3, 5_000n, 5000],
      [0, 5n, 5000],
      [9, 5_000_250_000n, 5000.25],
      [0x80 | 10, 5n << 10n, 5000],
      [0x80 | 20, (5n << 20n) + (1n << 18n), 5250],
      [0x80, 7n, 7000],
    ];
    for (const [resolution, units, ms] of cases) {
      const resolved = resolution === undefined ? {} : { resolution };
      const file = (offsetS?: number): Buffer =>
        Buffer.concat([
          section(endian),
          interfaceBlock(endian, { ...resolved, ...(offsetS === undefined ? {} : { offsetS }) }),
          enhancedPacket(endian, 0, units, FRAME),
        ]);
      assert.equal(readAll(file()).frames[0].timeMs, ms, `${resolution}`);
      assert.equal(readAll(file(-3)).frames[0].timeMs, ms - 3000);
      assert.equal(readAll(file(1_800_000_000)).frames[0].timeMs, ms + 1_800_000_000_000);
    }
  });

  test(`${endian}-endian: all three kinds of packet block, and a snapshot length`, () => {
    const file = Buffer.concat([
      section(endian),
      interfaceBlock(endian, { snapLength: 15 }),
      interfaceBlock(endian, { name: 'second' }),
      obsoletePacket(endian, 1, 2_000_000n, FRAME),
      simplePacket(endian, FRAME, 100),
      block(endian, 0x0bad, Buffer.alloc(5)),
      enhancedPacket(endian, 1, 3_000_000n, FRAME, { comment: 'epoch 1', original: 16 }),
      simplePacket(endian, FRAME.subarray(0, 14)),
    ]);
    const { frames, timeless } = readAll(file);
    assert.deepEqual(
      frames.map((f) => [f.number, f.timeMs, f.hex.length / 2, f.originalLength, f.interfaceName]),
      [
        [1, 2000, 15, 15, 'second'],
        [2, 2000, 15, 100, ''],
        [3, 3000, 15, 16, 'second'],
        [4, 3000, 14, 14, ''],
      ],
    );
    assert.equal(timeless, 2);
  });
}

test('a new section has its own order of bytes and its own interfaces', () => {
  const one = Buffer.concat([
    section('little'),
    interfaceBlock('little', { name: 'a' }),
    interfaceBlock('little', { name: 'b' }),
    enhancedPacket('little', 1, 1000n, FRAME),
  ]);
  const two = Buffer.concat([
    section('big'),
    interfaceBlock('big', { name: 'c', resolution: 3 }),
    enhancedPacket('big', 0, 2n, FRAME),
  ]);
  const both = Buffer.concat([one, two]);
  for (const cuts of [[], Array.from(both, (_, i) => i)])
    assert.deepEqual(
      readAll(both, cuts).frames.map((f) => [f.interfaceName, f.timeMs]),
      [
        ['b', 1],
        ['c', 2],
      ],
    );
  const orphan = Buffer.concat([one, section('big'), enhancedPacket('big', 0, 2n, FRAME)]);
  const { frames, leftOut } = readAll(orphan);
  assert.equal(frames.length, 1);
  const what = `byte ${one.length + 28}: a frame of interface 0, but the section has described 0`;
  assert.match(leftOut!, new RegExp(what));
});

test('other blocks are skipped whatever their length, and their lengths are checked', () => {
  const start = Buffer.concat([section('little'), interfaceBlock('little')]);
  const secrets = block('little', 10, Buffer.alloc(3 << 20));
  const file = Buffer.concat([start, secrets, enhancedPacket('little', 0, 1000n, FRAME)]);
  assert.equal(readAll(file, [100, 70_000, 1 << 20, 3 << 20]).frames.length, 1);
  file.writeUInt32LE(8, start.length + secrets.length - 4);
  assert.throws(() => readAll(file, [100, 70_000]), {
    code: 'COLO_PCAP_GARBLED',
    message: new RegExp(`byte ${start.length}: a block's two lengths are ${secrets.length} and 8`),
  });
});

test('a file that ends within a block: the frames before it count, and its offset is reported', () => {
  const first = pcapng([{ ms: 1000, frame: FRAME }]);
  for (const last of [enhancedPacket('little', 0, 1n, FRAME), block('little', 10, Buffer.alloc(40))]) {
    const file = Buffer.concat([first, last]);
    for (let length = first.length + 1; length < file.length; length++) {
      const { frames, cutAt } = readAll(file.subarray(0, length));
      assert.deepEqual([frames.length, cutAt], [1, first.length], `${length} bytes`);
    }
  }
  assert.equal(readAll(first).cutAt, null);
});

test('inconsistent blocks are refused', () => {
  const start = Buffer.concat([section('little'), interfaceBlock('little')]);
  const refuse = (what: string, bytes: Buffer, message: RegExp, code = 'COLO_PCAP_GARBLED'): void => {
    const file = Buffer.concat([start, bytes]);
    for (const cuts of [[], Array.from(file, (_, i) => i)])
      assert.throws(() => readAll(file, cuts), { code, message }, what);
  };
  const packet = enhancedPacket('little', 0, 1n, FRAME);
  const changed = (at: number, value: number): Buffer => {
    const bytes = Buffer.from(packet);
    bytes.writeUInt32LE(value, at);
    return bytes;
  };
  const at = start.length;
  refuse('too short', changed(4, 28), new RegExp(`byte ${at}: a block of type 6 has a length of 28 bytes`));
  refuse('not a multiple', changed(4, 50), /has a length of 50 bytes \(a multiple of 4/);
  refuse('too long', changed(4, 0x100004), /has a length of 1048580 bytes/);
  refuse(
    'zero',
    Buffer.concat([Buffer.from([0xad, 0xb, 0, 0]), Buffer.alloc(8)]),
    /type 2989 has a length of 0/,
  );
  refuse('trailer', changed(packet.length - 4, 52), /a block's two lengths are 48 and 52/);
  refuse(
    'frame beyond block',
    changed(20, 17).fill(17, 24, 25),
    /a frame of 17 bytes is longer than its block/,
  );
  refuse('frame too long', changed(20, 262_145), /a frame has a length of 262145 bytes/);
  refuse('captured more than there was', changed(24, 14), /15 captured bytes of a frame that has 14/);
  refuse('no interface', changed(8, 1), /a frame of interface 1, but the section has described 1 so far/);
  refuse('simple beyond block', simplePacket('little', FRAME, 100), /a frame of 100 bytes is longer/);
  refuse('byte order', block('little', 0x0a0d0d0a, Buffer.alloc(16)), /without a byte-order magic/);
  refuse('version', section('little', 2), /pcapng of version 2, not 1/, 'COLO_PCAP_FORMAT');
  const badOption = Buffer.concat([
    Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]),
    option('little', 2, Buffer.alloc(4)),
  ]);
  badOption.writeUInt16LE(200, 10);
  refuse('option', block('little', 1, badOption), /an option of 200 bytes is longer than its block/);
  const wifi = Buffer.concat([
    interfaceBlock('little', { linkType: 105 }),
    enhancedPacket('little', 1, 1n, FRAME),
  ]);
  refuse('link type', wifi, /link type 105 \(Wi-Fi\)/, 'COLO_PCAP_LINKTYPE');
  assert.throws(() => readAll(section('little').subarray(0, 11)), { code: 'COLO_PCAP_FORMAT' });
  assert.throws(() => readAll(section('little').subarray(0, 27)), { code: 'COLO_PCAP_FORMAT' });
});

test('an interface that is not Ethernet is accepted if it has no frames', () => {
  const file = Buffer.concat([
    section('little'),
    interfaceBlock('little', { linkType: 105 }),
    interfaceBlock('little'),
    enhancedPacket('little', 1, 1n, FRAME),
  ]);
  assert.equal(readAll(file).frames.length, 1);
});

test('a frame that is not Ethernet or contradicts its block is left out and counted; the others keep their numbers', () => {
  const start = Buffer.concat([
    section('little'),
    interfaceBlock('little'),
    interfaceBlock('little', { linkType: 113 }),
  ]);
  const good = enhancedPacket('little', 0, 1000n, FRAME);
  const long = Buffer.from(good);
  long.writeUInt32LE(17, 20);
  long.writeUInt32LE(17, 24);
  const odd = [enhancedPacket('little', 0, 1000n, FRAME, { original: 14 }), long];
  odd.push(enhancedPacket('little', 7, 1000n, FRAME), simplePacket('little', FRAME, 100));
  const cooked = enhancedPacket('little', 1, 1000n, FRAME);
  const file = Buffer.concat([start, ...odd.flatMap((one) => [one, good]), cooked, good, cooked]);
  for (const cuts of [[], Array.from(file, (_, i) => i)]) {
    const { frames, leftOutRecords, byLinkType } = readAll(file, cuts);
    assert.deepEqual([frames.map(({ number }) => number), leftOutRecords], [[2, 4, 6, 8, 10], 4]);
    assert.deepEqual(byLinkType, [[113, 2]]);
  }
});

test('zeros, or anything that is no block, end the file: what came before counts', () => {
  const file = pcapng([{ ms: 1000, frame: FRAME }]);
  for (const rest of [Buffer.alloc(64), Buffer.alloc(64, 0xff), section('little', 2)]) {
    const damaged = Buffer.concat([file, rest]);
    for (const cuts of [[], Array.from(damaged, (_, i) => i)]) {
      const { frames, damage, cutAt } = readAll(damaged, cuts);
      assert.deepEqual([frames.length, cutAt], [1, null]);
      assert.ok(damage !== undefined);
    }
  }
});
