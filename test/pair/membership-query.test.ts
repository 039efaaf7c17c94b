import assert from 'node:assert/strict';
import { test } from 'node:test';
import { membershipQueries } from '../../src/pair/membership-query.ts';
import { internetChecksum, u32 } from '../frames.ts';

const UNTAGGED = { tags: [], addresses: [] };

/** Returns the frame without its length prefix, which is checked, and without padding. */
function frameOf(message: Uint8Array, bytes: number): Buffer {
  const frame = Buffer.from(message);
  assert.equal(frame.readUInt32BE(0), frame.length - 4);
  assert.ok(frame.length - 4 >= 60);
  return frame.subarray(4, 4 + bytes);
}

test('the VM is asked for its IPv4 groups as by a querier that nobody elects', () => {
  const frame = frameOf(membershipQueries([UNTAGGED])[0], 14 + 24 + 12);
  assert.equal(frame.toString('hex', 0, 14), '01005e000001fe434f4c4f000800');
  const ip = frame.subarray(14, 38);
  assert.equal(internetChecksum(ip), 0);
  assert.equal(ip.toString('hex', 0, 10), '46c0002400000000' + '0102', 'router alert, TTL 1, IGMP');
  assert.equal(ip.toString('hex', 12), '00000000' + 'e0000001' + '94040000', 'from nobody, to all systems');
  const igmp = frame.subarray(38);
  assert.equal(internetChecksum(igmp), 0);
  assert.equal(igmp[0], 0x11);
  assert.equal(igmp[1], 1, 'the answer may take a tenth of a second');
  assert.equal(igmp.toString('hex', 4), '00000000' + '027d' + '0000', 'all groups, version 3');
});

test('and for its IPv6 groups', () => {
  const frame = frameOf(membershipQueries([UNTAGGED])[1], 14 + 40 + 8 + 28);
  assert.equal(frame.toString('hex', 0, 14), '333300000001fe434f4c4f0086dd');
  assert.equal(frame.toString('hex', 14, 22), '60000000' + '0024' + '0001');
  assert.equal(frame.toString('hex', 22, 38), 'fe80000000000000fc434ffffe4c4f00');
  assert.equal(frame.toString('hex', 38, 54), 'ff020000000000000000000000000001');
  assert.equal(frame.toString('hex', 54, 62), '3a00' + '05020000' + '0100', 'router alert, then ICMPv6');
  const mld = frame.subarray(62);
  assert.equal(internetChecksum(frame.subarray(22, 54), u32(mld.length, 58), mld), 0);
  assert.equal(mld.toString('hex', 0, 2), '8200');
  assert.equal(mld.readUInt16BE(4), 100);
  assert.equal(mld.toString('hex', 8), `${'00'.repeat(16)}027d0000`);
});

test('each VLAN has queries of its own', () => {
  const tags = [{ etherType: 0x8100, id: 10 }];
  const [, , igmp, mld] = membershipQueries([UNTAGGED, { tags, addresses: [] }]);
  assert.equal(frameOf(igmp, 20).toString('hex', 12), '8100000a' + '0800' + '46c0');
  assert.equal(frameOf(mld, 20).toString('hex', 12), '8100000a' + '86dd' + '6000');
});
