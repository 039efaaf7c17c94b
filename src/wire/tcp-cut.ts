/**
 * Cuts a TCP segment to the first bytes of its payload, or to none, which makes it a bare ACK: lengths, flags and checksums then
 * say so. Nothing else changes.
 */
import { readU16, writeU16 } from './bytes.ts';
import { adjustChecksum, checksumChange32, foldChecksum, sumWords } from './checksum.ts';
import { IPV4 } from './ipv4.ts';
import { IPV6 } from './ipv6.ts';
import type { PacketView } from './packet.ts';
import { TCP, TCP_ACK, TCP_FIN } from './tcp.ts';
import { endGso, partialChecksumAt } from './virtio-net.ts';

/** Of the flags, what the receiver's congestion control needs of a bare ACK (RFC 3168). */
const TCP_ECE = 0x40;

/** A frame in `bytes`, which begins at `at` with a virtio-net header of `headerBytes`, and was parsed into `view`. */
export type ParsedFrame = { bytes: Uint8Array; at: number; headerBytes: number; view: PacketView };

/**
 * Writes the frame to `to` in `target`, with the first `payloadBytes` of its payload. Returns its length there. The segment has no
 * SYN, RST or urgent data.
 */
export function cutSegment(frame: ParsedFrame, payloadBytes: number, target: Uint8Array, to: number): number {
  const { bytes, at, headerBytes, view } = frame;
  const end = view.payload + payloadBytes;
  const length = end - at;
  for (let i = 0; i < length; i++) target[to + i] = bytes[at + i];
  const l3 = to + view.l3 - at;
  const l4 = to + view.l4 - at;
  const flags = bytes[view.l4 + TCP.flags];
  const cutFlags = payloadBytes === 0 ? flags & (TCP_ACK | TCP_ECE) : flags & ~TCP_FIN;
  target[l4 + TCP.flags] = cutFlags;
  writeLength(target, l3, l4, length - (view.l4 - at), view.ipVersion);

  const segmentBytes = checksumChange32(view.end - view.l4, end - view.l4, 0);
  const checksum = l4 + TCP.checksum;
  if (partialChecksumAt(bytes, at, view.end - at, headerBytes) >= 0) {
    // The sum of the pseudo header, not complemented.
    writeU16(target, checksum, ~adjustChecksum(~readU16(target, checksum) & 0xffff, segmentBytes));
  } else {
    const removed = foldChecksum(sumWords(bytes, end, view.end - end, 0));
    const aligned = ((end - view.l4) & 1) === 0 ? removed : ((removed & 0xff) << 8) | (removed >>> 8);
    const change = segmentBytes + aligned + checksumChange32(flags, cutFlags, 0);
    writeU16(target, checksum, adjustChecksum(readU16(target, checksum), change));
  }
  endGso(target, to, headerBytes, payloadBytes);
  return length;
}

/** Writes the packet's length, which follows from that of its segment. */
function writeLength(
  bytes: Uint8Array,
  l3: number,
  l4: number,
  segmentBytes: number,
  ipVersion: number,
): void {
  if (ipVersion === 6) {
    writeU16(bytes, l3 + IPV6.payloadLength, l4 - l3 - IPV6.headerBytes + segmentBytes);
    return;
  }
  const before = readU16(bytes, l3 + IPV4.totalLength);
  const after = l4 - l3 + segmentBytes;
  writeU16(bytes, l3 + IPV4.totalLength, after);
  const checksum = l3 + IPV4.checksum;
  writeU16(bytes, checksum, adjustChecksum(readU16(bytes, checksum), checksumChange32(before, after, 0)));
}
