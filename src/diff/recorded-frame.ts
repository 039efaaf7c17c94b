/** A frame of a recording, and what it holds. */
import { COMPARE_AS, compareAs } from '../compare/classes.ts';
import type { FrameBytes } from '../divergence/difference.ts';
import type { Instant } from '../units.ts';
import { writeU16 } from '../wire/bytes.ts';
import { ICMP_QUOTE } from '../wire/icmp.ts';
import { IP_LENGTH_MAX, IP_PROTOCOL, IPV4 } from '../wire/ipv4.ts';
import { IPV6 } from '../wire/ipv6.ts';
import { PACKET, type PacketKind, type PacketView, parseGsoPacket, parsePacket } from '../wire/packet.ts';
import { hashBytes } from './recent-payloads.ts';

/** Its bytes, its number in the file, and its time. */
export type RecordedFrame = FrameBytes & {
  originalLength: number;
  number: number;
  fileMs: number;
  /** By the clock that both recordings are merged by. */
  ms: Instant;
};

/** Ports and sequence number: as much as an ICMP error has to quote (RFC 792). */
const QUOTED_BYTES = 8;
const PORTS_BYTES = 4;

/** Returns a copy of the bytes from `from` to `to`; a Buffer's own `slice` returns none. */
export function copied(bytes: Uint8Array, from: number, to: number): Uint8Array {
  return Uint8Array.prototype.slice.call(bytes, from, to);
}

/**
 * Parses a frame as it was before its capture cut it. An IP length of 0 is that of a packet which the network card would have cut
 * into segments: the packet extends to the end of the frame, and gets that length.
 */
export function parseRecorded(frame: RecordedFrame, view: PacketView): PacketKind {
  const { bytes, at, originalLength } = frame;
  const kind = parsePacket(bytes, at, originalLength, view);
  if (kind !== PACKET.malformed || parseGsoPacket(bytes, at, originalLength, view) === PACKET.malformed)
    return kind;
  const header = view.ipVersion === 4 ? 0 : IPV6.headerBytes;
  const lengthAt = view.l3 + (view.ipVersion === 4 ? IPV4.totalLength : IPV6.payloadLength);
  writeU16(bytes, lengthAt, Math.min(IP_LENGTH_MAX, view.end - view.l3 - header));
  return view.kind;
}

/** Returns true if a packet is longer than IP can say, and so than the comparator reads. */
export function isBeyondIp({ ipVersion, l3, end }: PacketView): boolean {
  return end - l3 - (ipVersion === 6 ? IPV6.headerBytes : 0) > IP_LENGTH_MAX;
}

/** Returns a hash by which a datagram of one VM is recognised in the other's recording. */
export function payloadHash(bytes: Uint8Array, view: PacketView): number {
  if (compareAs(view) === COMPARE_AS.quote) return quoteHash(bytes, view);
  return hashBytes(bytes, view.payload, view.payloadBytes);
}

/** Two VMs may quote one packet differently: only what is the same in any case counts (compare/rules/icmp-error.ts). */
function quoteHash(bytes: Uint8Array, { payload, payloadBytes, end }: PacketView): number {
  const quote = payload + ICMP_QUOTE;
  let hash = hashBytes(bytes, payload, 2);
  const isIpv4 = bytes[quote] >> 4 === 4;
  const headerBytes = isIpv4 ? (bytes[quote] & 15) << 2 : IPV6.headerBytes;
  if (quote + headerBytes + QUOTED_BYTES > end) return hashBytes(bytes, payload, payloadBytes);
  const [source, protocolAt, addressesBytes] = isIpv4
    ? [quote + IPV4.source, quote + IPV4.protocol, 8]
    : [quote + IPV6.source, quote + IPV6.nextHeader, 32];
  const l4 = quote + headerBytes;
  hash = hashBytes(bytes, source, addressesBytes, hash);
  const isIcmp = bytes[protocolAt] === IP_PROTOCOL.icmp || bytes[protocolAt] === IP_PROTOCOL.icmpv6;
  return hashBytes(bytes, l4, isIcmp ? 2 : PORTS_BYTES, hash ^ bytes[protocolAt]);
}
