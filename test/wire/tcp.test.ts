import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { NONE } from '../../src/units.ts';
import {
  bindingOptions,
  findTcpOption,
  findTimestamps,
  isSigned,
  opensConnection,
  settledOptions,
  TCP,
  TCP_OPTION,
} from '../../src/wire/tcp.ts';
import { ACK, PSH, padded, RST, SYN, sack, tcpFrame, timestamps } from '../frames.ts';

const find = (options: number[], kind: number): number =>
  findTcpOption(Uint8Array.from(options), 0, options.length, kind);

test('a segment with MD5 or TCP-AO among its options is signed', () => {
  const signed = (options: number[]) => isSigned(Uint8Array.from([9, ...options]), 1, 1 + options.length);
  const md5 = [19, 18, ...Array(16).fill(1)];
  const ao = [29, 4, 0, 0];
  for (const options of [md5, ao, [1, 1, ...md5], [2, 4, 5, 180, ...ao]]) assert.equal(signed(options), true);
  for (const options of [[], [8, 10, 19, 18, 29, 4, 0, 0, 0, 0], [0, ...md5], [19, 60], [29]])
    assert.equal(signed(options), false, `${options}`);
});

test('deconstructs a literal header', () => {
  const frame = tcpFrame({ sourcePort: 1, destinationPort: 2, seq: 3, ack: 4, flags: PSH, window: 5 });
  assert.equal(frame.toString('hex', 34, 50), '00010002000000030000000450080005');
  const header = frame.subarray(34);
  assert.equal(header.readUInt16BE(TCP.sourcePort), 1);
  assert.equal(header.readUInt16BE(TCP.destinationPort), 2);
  assert.equal(header.readUInt32BE(TCP.seq), 3);
  assert.equal(header.readUInt32BE(TCP.ack), 4);
  assert.equal(header[TCP.dataOffset] >> 4, 5);
  assert.equal(header[TCP.flags], PSH);
  assert.equal(header.readUInt16BE(TCP.window), 5);
  assert.equal(header.length, TCP.headerBytesMin);
});

test('finds an option after others and NOPs', () => {
  // MSS, SACK permitted, timestamps, NOP, window scale: what Linux sends with a SYN.
  const linux = [2, 4, 5, 0xb4, 4, 2, ...timestamps(7, 0), 1, 3, 3, 7];
  assert.equal(find(linux, TCP_OPTION.timestamps), 6);
  assert.equal(find(linux, TCP_OPTION.sack), -1);
  assert.equal(find(padded([1, 1, ...sack([[1, 2]])]), TCP_OPTION.sack), 2);
});

test('the end-of-options mark ends the search', () => {
  assert.equal(find([1, 0, ...timestamps(1, 2)], TCP_OPTION.timestamps), -1);
});

test('an option of an impossible length ends the search', () => {
  assert.equal(find([2, 0, ...timestamps(1, 2)], TCP_OPTION.timestamps), -1, 'length 0 would never end');
  assert.equal(find([2, 1, ...timestamps(1, 2)], TCP_OPTION.timestamps), -1);
  assert.equal(find([8, 10, 0, 0], TCP_OPTION.timestamps), -1, 'longer than the options');
  assert.equal(find([1, 8], TCP_OPTION.timestamps), -1, 'no length byte');
  assert.equal(find([], TCP_OPTION.timestamps), -1);
});

test('a SYN settles segment size, window scale, SACK and timestamps, and nothing else', () => {
  const settled = (options: number[]) => settledOptions(Uint8Array.from(options), 0, options.length);
  const linux = [2, 4, 5, 0xb4, 4, 2, ...timestamps(7, 0), 1, 3, 3, 7];
  assert.equal(settled(linux), (0x5b4 << 16) | (7 << 8) | 3);
  assert.equal(settled([3, 3, 7, ...timestamps(9, 9), 4, 2, 2, 4, 5, 0xb4, 34, 2]), settled(linux));
  assert.equal(settled([]), 0xff00);
  assert.equal(settled([3, 3, 0]), 0, 'a scale of 0 is a scale');
  assert.equal(settled([2, 2]), 0xff00, 'no byte after the options is read');
  assert.equal(settled([3, 2]), 0xff00);
});

test('options bind a peer to one VM, except those that it can do without', () => {
  const bound = (options: number[], before = 0, after = 0) =>
    bindingOptions(
      Uint8Array.from([...Array(before).fill(34), ...options, ...Array(after).fill(34)]),
      before,
      before + options.length,
    );
  const free = [
    2,
    4,
    5,
    0xb4,
    4,
    2,
    ...timestamps(7, 8),
    1,
    3,
    3,
    7,
    5,
    10,
    ...Array(8).fill(1),
    172,
    2,
    174,
    2,
  ];
  assert.equal(bound(free), 0);
  assert.equal(bound([19, 4, 1, 2, 29, 4, 1, 2]), 0, 'signatures are known by isSigned');
  assert.equal(bound([]), 0);
  const cookie = [34, 6, 1, 2, 3, 4];
  assert.notEqual(bound(cookie), 0);
  assert.equal(bound([...free, ...cookie]), bound(cookie));
  assert.equal(bound([1, ...cookie, 0, 34, 2], 3, 3), bound(cookie), 'nothing after the end counts');
  assert.equal(bound([30, 8, 0x20, 1, 9, 9, 9, 9]), 0, 'an acknowledgement alone');
  assert.notEqual(bound([30, 3, 0x20]), 0, 'too short for its flags');
  for (const cut of [[34], [34, 0], [34, 1], [34, 9, 1]]) assert.equal(bound(cut), 0, `${cut}`);
});

test('a SYN without ACK opens a connection', () => {
  assert.deepEqual([SYN, SYN | ACK, ACK, RST, SYN | 0xc0].map(opensConnection), [
    true,
    false,
    false,
    false,
    true,
  ]);
});

test('timestamps are found wherever they are, if their length is right', () => {
  const timestampsIn = (options: number[], end = options.length) =>
    findTimestamps(Uint8Array.from([...options, 9, 9]), 0, end);
  const stamps = timestamps(0xfffffffe, 1);
  assert.equal(timestampsIn([1, 1, ...stamps]), 2, 'the layout of RFC 7323 appendix A');
  assert.equal(timestampsIn([...stamps, 1, 1]), 0);
  assert.equal(timestampsIn([2, 4, 5, 0xb4, 4, 2, ...stamps]), 6);
  assert.equal(timestampsIn([1, 1, ...stamps], 11), NONE, 'cut');
  assert.equal(timestampsIn([1, 1, 8, 6, 1, 2, 3, 4, 0, 0, 0, 0]), NONE, 'a wrong length');
  assert.equal(timestampsIn([]), NONE);
});

test('an option that is found in any bytes lies within them', () => {
  const bytes = fc.uint8Array({ maxLength: 40 });
  fc.assert(
    fc.property(bytes, fc.nat(10), fc.nat(12), (options, at, kind) => {
      const found = findTcpOption(options, at, options.length, kind);
      if (found < 0) return;
      assert.ok(found >= at && options[found] === kind && options[found + 1] >= 2);
      assert.ok(found + options[found + 1] <= options.length);
    }),
  );
});
