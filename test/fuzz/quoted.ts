/**
 * TCP that is not a whole segment: in a first fragment, and quoted by an ICMP error. A second opinion, written plainly, that
 * shares nothing with src/wire/icmp-quote.ts and src/compare/rules/icmp-error.ts.
 */
import type { PacketView } from '../../src/wire/packet.ts';

const TCP = 6;
const UDP = [17, 136];
const ICMP = [1, 58];
const MESSAGE_BYTES = 8;

/** Returns true for the first fragment of a segment, if it has the whole header. */
export function beginsTcp(
  bytes: Buffer,
  { fragment, fragmentOffset, protocol, l4, end }: PacketView,
): boolean {
  if (!fragment || fragmentOffset !== 0 || protocol !== TCP || l4 + 20 > end) return false;
  const headerBytes = (bytes[l4 + 12] >> 4) * 4;
  return headerBytes >= 20 && l4 + headerBytes <= end;
}

/**
 * The TCP segment that an error quotes: where it and its IP addresses lie, where the quote ends, and whether the quote has all
 * of it.
 */
export type QuotedTcp = { l4: number; end: number; sourceAt: number; whole: boolean };

/** Returns the segment that the error in `view` quotes; null if the packet is not such an error or cuts the ports off. */
export function quotedTcp(bytes: Buffer, view: PacketView): QuotedTcp | null {
  const four = view.ipVersion === 4;
  const errors = four ? [3, 4, 5, 11, 12] : [1, 2, 3, 4];
  if (view.protocol !== (four ? 1 : 58) || view.fragment || !errors.includes(view.icmpType)) return null;
  const l3 = view.l4 + MESSAGE_BYTES;
  const headerBytes = four ? 20 : 40;
  if (l3 + headerBytes > view.end || bytes[l3] >> 4 !== view.ipVersion) return null;
  const lengthOfPacket = four ? bytes.readUInt16BE(l3 + 2) : 40 + bytes.readUInt16BE(l3 + 4);
  // RFC 4884: unreachable, time exceeded and parameter problem may give the length of the quote.
  let quoted = view.end - l3;
  if (four && [3, 11, 12].includes(view.icmpType)) quoted = 4 * bytes[view.l4 + 5] || quoted;
  if (!four && [1, 3].includes(view.icmpType)) quoted = 8 * bytes[view.l4 + 4] || quoted;
  const end = Math.min(view.end, l3 + quoted, l3 + lengthOfPacket);
  const l4 = four ? afterIpv4(bytes, l3) : afterIpv6(bytes, l3, end);
  if (l4 === null || l4 + 4 > end) return null;
  if (l4 + 12 < end && bytes[l4 + 12] >> 4 < 5) return null;
  return { l4, end, sourceAt: l3 + (four ? 12 : 8), whole: end === l3 + lengthOfPacket };
}

function afterIpv4(bytes: Buffer, l3: number): number | null {
  const headerBytes = 4 * (bytes[l3] & 15);
  const later = (bytes.readUInt16BE(l3 + 6) & 0x1fff) !== 0;
  return headerBytes < 20 || later || bytes[l3 + 9] !== TCP ? null : l3 + headerBytes;
}

function afterIpv6(bytes: Buffer, l3: number, end: number): number | null {
  let at = l3 + 40;
  let next = bytes[l3 + 6];
  for (let headers = 0; headers < 8 && [0, 43, 44, 60].includes(next) && at + 8 <= end; headers++) {
    if (next === 44 && (bytes.readUInt16BE(at + 2) & 0xfff8) !== 0) return null;
    const bytesOfIt = next === 44 ? 8 : 8 * (bytes[at + 1] + 1);
    next = bytes[at];
    at += bytesOfIt;
  }
  return next === TCP ? at : null;
}

/** Returns what is compared of a message that quotes a packet (docs/comparison.md): equal for two messages that match. */
export function saidOfQuoted(message: Buffer): string {
  const whole = message.toString('latin1');
  const packet = message.subarray(MESSAGE_BYTES);
  const version = packet.length < 20 ? 0 : packet[0] >> 4;
  const headerBytes = version === 4 ? 4 * (packet[0] & 15) : 40;
  if ((version !== 4 && version !== 6) || headerBytes < 20 || headerBytes + 8 > packet.length) return whole;
  const masked = Buffer.from(message);
  const header = masked.subarray(MESSAGE_BYTES, MESSAGE_BYTES + headerBytes);
  const quoted = masked.subarray(MESSAGE_BYTES + headerBytes);
  masked.fill(0, 2, 4);
  // Length, identification, hop limit and checksum.
  if (version === 4) for (const at of [2, 3, 4, 5, 8, 10, 11]) header[at] = 0;
  else for (const at of [4, 5, 7]) header[at] = 0;
  const protocol = header[version === 4 ? 9 : 6];
  if (UDP.includes(protocol)) quoted.fill(0, 6, 8);
  if (ICMP.includes(protocol)) quoted.fill(0, 2, 4);
  const end = protocol === TCP ? MESSAGE_BYTES + headerBytes + 8 : masked.length;
  return masked.toString('latin1', 0, end);
}
