/**
 * Comparing ICMP errors: what is said about a packet, and about which one.
 *
 * An error quotes the packet that it is about. Both VMs got that packet, but not every bit of it is the same in both, or
 * reaches them as it was sent: the node translates TCP's acknowledgement number, kernels join segments before they look at
 * them. The receiver uses the quote to find out whose error it is. So addresses, protocol, ports, TCP's sequence number,
 * ICMP's id and the rest of a UDP datagram are compared, and not: length, identification, hop limit and checksums, what
 * comes behind TCP's sequence number, and, for TCP, how much is quoted.
 */

import type { SlabId } from '../units.ts';
import { ICMP_QUOTE } from '../wire/icmp.ts';
import { IP_PROTOCOL, IPV4 } from '../wire/ipv4.ts';
import { IPV6 } from '../wire/ipv6.ts';
import type { Comparator } from './comparator.ts';
import { PAYLOAD, PAYLOAD_BYTES, SLAB } from './held-frames.ts';
import type { DivergenceReason } from './verdict.ts';

/** Ports and sequence number: as much as an error has to quote (RFC 792). */
const TCP_QUOTED_BYTES = 8;

/** How two held ICMP errors differ, or null. */
export function quoteDifference(comparator: Comparator, id: number, other: number): DivergenceReason | null {
  const { words } = comparator.frames;
  const bytes = words[id + PAYLOAD_BYTES];
  const otherBytes = words[other + PAYLOAD_BYTES];
  const l4 = quotedTransport(comparator, id, Math.min(bytes, otherBytes));
  const protocol = l4 < 0 ? -1 : quotedProtocol(comparator, id);
  if (bytes !== otherBytes && protocol !== IP_PROTOCOL.tcp) return 'diverged-length';
  if (l4 < 0) return same(comparator, id, other, 0, bytes) ? null : 'diverged-bytes';
  const agree =
    // Type and code; what follows the checksum: MTU, pointer, gateway.
    same(comparator, id, other, 0, 2) &&
    same(comparator, id, other, 4, ICMP_QUOTE) &&
    sameIp(comparator, id, other, l4) &&
    sameTransport(comparator, id, other, protocol, l4, bytes);
  return agree ? null : 'diverged-bytes';
}

/** Are bytes `from` to `to` of the messages the same? */
function same(comparator: Comparator, id: number, other: number, from: number, to: number): boolean {
  return from >= to || comparator.samePayload(id, from, other, from, to - from);
}

function sameIp(comparator: Comparator, id: number, other: number, l4: number): boolean {
  const q = ICMP_QUOTE;
  if (isQuotedIpv4(comparator, id)) {
    return (
      same(comparator, id, other, q, q + IPV4.totalLength) &&
      same(comparator, id, other, q + IPV4.fragment, q + IPV4.ttl) &&
      same(comparator, id, other, q + IPV4.protocol, q + IPV4.checksum) &&
      same(comparator, id, other, q + IPV4.source, l4)
    );
  }
  return (
    same(comparator, id, other, q, q + IPV6.payloadLength) &&
    same(comparator, id, other, q + IPV6.nextHeader, q + IPV6.hopLimit) &&
    same(comparator, id, other, q + IPV6.source, l4)
  );
}

function sameTransport(
  comparator: Comparator,
  id: number,
  other: number,
  protocol: number,
  l4: number,
  end: number,
): boolean {
  switch (protocol) {
    case IP_PROTOCOL.tcp:
      return same(comparator, id, other, l4, l4 + TCP_QUOTED_BYTES);
    case IP_PROTOCOL.udp:
    case IP_PROTOCOL.udpLite:
      return same(comparator, id, other, l4, l4 + 6) && same(comparator, id, other, l4 + 8, end);
    case IP_PROTOCOL.icmp:
    case IP_PROTOCOL.icmpv6:
      return same(comparator, id, other, l4, l4 + 2) && same(comparator, id, other, l4 + 4, end);
    default:
      return same(comparator, id, other, l4, end);
  }
}

/** Where the quoted packet's transport header begins in the payload, or -1 when eight bytes of it are not all there. */
function quotedTransport(comparator: Comparator, id: number, bytes: number): number {
  if (bytes < ICMP_QUOTE + IPV4.headerBytesMin) return -1;
  const version = quotedByte(comparator, id, 0) >> 4;
  let l4 = -1;
  if (version === 4) l4 = ICMP_QUOTE + ((quotedByte(comparator, id, 0) & 15) << 2);
  else if (version === 6) l4 = ICMP_QUOTE + IPV6.headerBytes;
  return l4 >= ICMP_QUOTE + IPV4.headerBytesMin && l4 + TCP_QUOTED_BYTES <= bytes ? l4 : -1;
}

function isQuotedIpv4(comparator: Comparator, id: number): boolean {
  return quotedByte(comparator, id, 0) >> 4 === 4;
}

function quotedProtocol(comparator: Comparator, id: number): number {
  return quotedByte(comparator, id, isQuotedIpv4(comparator, id) ? IPV4.protocol : IPV6.nextHeader);
}

function quotedByte(comparator: Comparator, id: number, at: number): number {
  const { words } = comparator.frames;
  return comparator.bytesOf(words[id + SLAB] as SlabId)[words[id + PAYLOAD] + ICMP_QUOTE + at];
}
