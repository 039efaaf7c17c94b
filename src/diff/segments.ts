/** TCP segments that a replay makes or shortens: with the headers of one that was recorded. Checksums are not kept. */
import { readU16, writeI32, writeU16 } from '../wire/bytes.ts';
import { IPV4 } from '../wire/ipv4.ts';
import { IPV6 } from '../wire/ipv6.ts';
import type { PacketView } from '../wire/packet.ts';
import { TCP, TCP_FIN } from '../wire/tcp.ts';

const WINDOW = 0xffff;

/** Returns a segment of the flow of the one in `view`, with a payload of zeros. */
export function segmentLike(
  { bytes, at }: { bytes: Uint8Array; at: number },
  view: PacketView,
  wanted: { seq: number; ack: number; flags: number; payloadBytes: number },
): Uint8Array {
  const l4 = view.l4 - at;
  const l3 = view.l3 - at;
  const made = new Uint8Array(l4 + TCP.headerBytesMin + wanted.payloadBytes);
  made.set(bytes.subarray(at, view.l4 + TCP.seq));
  writeI32(made, l4 + TCP.seq, wanted.seq);
  writeI32(made, l4 + TCP.ack, wanted.ack);
  made[l4 + TCP.dataOffset] = (TCP.headerBytesMin / 4) << 4;
  made[l4 + TCP.flags] = wanted.flags;
  writeU16(made, l4 + TCP.window, WINDOW);
  if (view.ipVersion === 4) writeU16(made, l3 + IPV4.totalLength, made.length - l3);
  else writeU16(made, l3 + IPV6.payloadLength, made.length - l3 - IPV6.headerBytes);
  return made;
}

/** Cuts `cut` payload bytes off the front of the segment in `view`, in place: it then begins `cut` bytes further on. */
export function trimFront(bytes: Uint8Array, at: number, view: PacketView, cut: number): void {
  const seq = (view.seq + cut) | 0;
  bytes.copyWithin(at + cut, at, view.payload);
  writeI32(bytes, view.l4 + cut + TCP.seq, seq);
  const lengthAt = view.l3 + cut + (view.ipVersion === 4 ? IPV4.totalLength : IPV6.payloadLength);
  writeU16(bytes, lengthAt, readU16(bytes, lengthAt) - cut);
}

export function clearFin(bytes: Uint8Array, view: PacketView): void {
  bytes[view.l4 + TCP.flags] &= ~TCP_FIN;
}
