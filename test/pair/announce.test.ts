import assert from 'node:assert/strict';
import { test } from 'node:test';
import { announcements, withConfigured } from '../../src/pair/announce.ts';
import { address, internetChecksum, u32 } from '../frames.ts';

const MAC = '52:54:00:ab:cd:ef';

const UNTAGGED = { tags: [], addresses: [] };

/** Returns the frames as hex; checks padding and length prefix, and removes the prefix. */
function frames(addresses: string[], bytes: number): string[] {
  return announcements(MAC, withConfigured([UNTAGGED], addresses)).map((message) => {
    const frame = Buffer.from(message);
    assert.equal(frame.readUInt32BE(0), frame.length - 4);
    assert.ok(frame.length - 4 >= 60, 'at least as long as Ethernet requires');
    assert.ok(frame.subarray(4 + bytes).every((byte) => byte === 0) || frame.length > 64);
    return frame.toString('hex', 4);
  });
}

const PADDING = '00'.repeat(18);

test('one RARP frame announces the MAC to switches', () => {
  assert.deepEqual(frames([], 42), [
    'ffffffffffff' +
      '525400abcdef' +
      '8035' +
      '0001080006040003' +
      '525400abcdef' +
      '00000000' +
      '525400abcdef' +
      '00000000' +
      PADDING,
  ]);
});

test('one gratuitous ARP frame announces each IPv4 address', () => {
  const arp = (ip: string) =>
    'ffffffffffff' +
    '525400abcdef' +
    '0806' +
    '0001080006040001' +
    '525400abcdef' +
    ip +
    '000000000000' +
    ip +
    PADDING;
  assert.deepEqual(frames(['10.0.2.15', '192.168.255.1'], 42).slice(1), [arp('0a00020f'), arp('c0a8ff01')]);
});

for (const [text, full] of [
  ['fe80::5054:ff:feab:cdef', 'fe80000000000000505400fffeabcdef'],
  ['2001:db8:0:0:0:0:0:1', '20010db8000000000000000000000001'],
  ['2001:DB8::', '20010db8000000000000000000000000'],
  ['::1', '00000000000000000000000000000001'],
  ['::', '00000000000000000000000000000000'],
  ['::ffff:10.0.2.15', '00000000000000000000ffff0a00020f'],
  ['1:2:3:4:5:6:7::', '00010002000300040005000600070000'],
  ['64:ff9b::192.0.2.33', '0064ff9b0000000000000000c0000221'],
]) {
  test(`a neighbour advertisement announces ${text}`, () => {
    const frame = Buffer.from(announcements(MAC, withConfigured([UNTAGGED], [text]))[1].subarray(4));
    assert.equal(frame.length, 86);
    const allNodes = 'ff020000000000000000000000000001';
    const checksum = frame.toString('hex', 56, 58);
    assert.equal(
      frame.toString('hex'),
      '333300000001' +
        '525400abcdef' +
        '86dd' +
        '60000000' +
        '0020' +
        '3a' +
        'ff' +
        full +
        allNodes +
        '8800' +
        checksum +
        '20000000' +
        full +
        '0201' +
        '525400abcdef',
    );
    const icmp = Buffer.from(frame.subarray(54));
    icmp.writeUInt16BE(0, 2);
    const pseudo = Buffer.concat([Buffer.from(full, 'hex'), address('ff02::1'), u32(32, 58)]);
    assert.equal(checksum, internetChecksum(pseudo, icmp).toString(16).padStart(4, '0'));
  });
}

test('each VLAN has a RARP frame of its own, and the addresses that were used there', () => {
  const places = [
    { tags: [], addresses: ['0a00020f'] },
    { tags: [{ etherType: 0x8100, id: 10 }], addresses: ['c0a80a01'] },
    {
      tags: [
        { etherType: 0x88a8, id: 0x123 },
        { etherType: 0x8100, id: 20 },
      ],
      addresses: [],
    },
  ];
  const all = announcements(MAC, withConfigured(places, ['10.0.2.15', '10.0.2.16']));
  const types = all.map((message) => Buffer.from(message).toString('hex', 4 + 12, 4 + 22));
  assert.deepEqual(
    types.map((types) => /^(8100....|88a8....)*(8035|0806)/.exec(types)?.[0]),
    ['8035', '0806', '0806', '8100000a8035', '8100000a0806', '88a80123810000148035'],
    'the configured addresses once, untagged; then the VLAN 10 and the stacked one',
  );
  assert.equal(Buffer.from(all[4]).toString('hex', 4 + 32, 4 + 36), 'c0a80a01');
});
