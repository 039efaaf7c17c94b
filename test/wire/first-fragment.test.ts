import assert from 'node:assert/strict';
import { test } from 'node:test';
import { viewFirstFragment } from '../../src/wire/first-fragment.ts';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import { ethernet, fragmentExtension, ipv4, ipv6, tcpFrame, udpFrame } from '../frames.ts';

const whole = (version: 4 | 6) =>
  tcpFrame({ version, seq: 0x11223344, ack: 0x55667788, sourcePort: 4321, payload: Buffer.alloc(60, 1) });

function fragment(version: 4 | 6, offset: number, bytes: number, protocol = 6): Buffer {
  const segment = whole(version).subarray(version === 4 ? 34 : 54);
  const part = segment.subarray(offset, offset + bytes);
  if (version === 4) {
    return ethernet(0x0800, ipv4({ protocol, fragmentOffset: offset, moreFragments: true }, part));
  }
  return ethernet(0x86dd, ipv6({ next: protocol, extensions: [fragmentExtension(offset, true, 9)] }, part));
}

function viewOf(frame: Buffer): { first: boolean; view: PacketView } {
  const view = new PacketView();
  parsePacket(frame, 0, frame.length, view);
  return { first: viewFirstFragment(frame, view), view };
}

test('a first fragment is viewed as the segment that it begins', () => {
  for (const version of [4, 6] as const) {
    const { first, view } = viewOf(fragment(version, 0, 48));
    const expected = new PacketView();
    parsePacket(whole(version), 0, whole(version).length, expected);
    assert.equal(first, true);
    const of = (v: PacketView) => [
      v.kind,
      v.fragment,
      v.sourcePort,
      v.destinationPort,
      v.seq,
      v.ack,
      v.tcpFlags,
    ];
    assert.deepEqual(of(view), of(expected));
    assert.equal(view.payload - view.l4, 20);
    assert.equal(view.payloadBytes, 28);
  }
});

test('other fragments and other packets are not viewed', () => {
  for (const version of [4, 6] as const) {
    for (const frame of [
      fragment(version, 24, 24),
      fragment(version, 0, 16),
      fragment(version, 0, 48, 17),
      whole(version),
      udpFrame({ version }),
    ]) {
      const { first, view } = viewOf(frame);
      assert.equal(first, false);
      const again = new PacketView();
      parsePacket(frame, 0, frame.length, again);
      assert.deepEqual(view, again);
    }
    const long = fragment(version, 0, 24);
    long[(version === 4 ? 34 : 62) + 12] = 0x70;
    assert.equal(viewOf(long).first, false, 'options that the fragment cuts off');
    assert.equal(viewOf(long).view.kind, PACKET.otherIp);
  }
});
