/** Checks the frames of the simulated stack with the production parser and checksums, as a second opinion. */
import assert from 'node:assert/strict';
import { headerChecksumHolds, transportChecksum } from '../../../src/wire/checksum.ts';
import { PACKET, PacketView, parsePacket } from '../../../src/wire/packet.ts';

const view = new PacketView();

export function judgeFrame(frame: Uint8Array): PacketView {
  const kind = parsePacket(frame, 0, frame.length, view);
  assert.notEqual(kind, PACKET.malformed);
  if (kind === PACKET.nonIp) {
    assert.equal(view.etherType, 0x0806);
    assert.equal(frame.length, 42);
    return view;
  }
  assert.notEqual(kind, PACKET.otherIp);
  assert.equal(view.end, frame.length);
  if (view.ipVersion === 4) assert.ok(headerChecksumHolds(frame, view.l3, 20), 'IPv4 header checksum');
  const length = view.end - view.l4;
  const sum =
    kind === PACKET.icmp
      ? headerChecksumHolds(frame, view.l4, length)
      : transportChecksum(
          frame,
          view.sourceAt,
          view.ipVersion === 4 ? 8 : 32,
          view.protocol,
          view.l4,
          length,
        ) === 0;
  assert.ok(sum, 'transport checksum');
  return view;
}
