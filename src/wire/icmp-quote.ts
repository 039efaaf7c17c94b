/**
 * The TCP segment that an ICMP or ICMPv6 error quotes (RFC 792, RFC 4443, RFC 4884).
 *
 * A quote may end anywhere after the ports: RFC 792 asks for only eight bytes of TCP. The view of a quote is therefore not
 * one of a parsed packet: `end` is where the quote ends, `payload` where its options end or are cut. The reader of a field
 * must check that the field lies before them; `seq`, `ack` and `tcpFlags` of the view are not set.
 */
import { NONE } from '../units.ts';
import { readU16 } from './bytes.ts';
import { IP_PROTOCOL, IPV4, IPV4_OFFSET_MASK } from './ipv4.ts';
import { IPV6, IPV6_EXTENSION_HEADERS_MAX, IPV6_FRAGMENT } from './ipv6.ts';
import { PACKET, type PacketView, readIpv4Addresses } from './packet.ts';
import { TCP } from './tcp.ts';

const ICMP_UNREACHABLE = 3;
const ICMP_SOURCE_QUENCH = 4;
const ICMP_REDIRECT = 5;
const ICMP_TIME_EXCEEDED = 11;
const ICMP_PARAMETER_PROBLEM = 12;
const ICMPV6_UNREACHABLE = 1;
const ICMPV6_TIME_EXCEEDED = 3;
const ICMPV6_PARAMETER_PROBLEM = 4;

const ERROR_HEADER_BYTES = 8;
const PORTS_BYTES = 4;

/** Returns true if `view`, which holds a parsed packet, is an ICMP error that quotes a TCP segment; `quote` then views it. */
export function viewQuote(bytes: Uint8Array, view: PacketView, quote: PacketView): boolean {
  if (view.kind !== PACKET.icmp && view.kind !== PACKET.icmpv6) return false;
  if (!isError(view)) return false;
  const l3 = view.l4 + ERROR_HEADER_BYTES;
  quote.kind = PACKET.tcp;
  quote.vlan = view.vlan;
  quote.ipVersion = view.ipVersion;
  quote.protocol = IP_PROTOCOL.tcp;
  quote.fragment = false;
  quote.l3 = l3;
  quote.end = quoteEnd(bytes, view, l3);
  const l4 = view.ipVersion === 4 ? ipv4Payload(bytes, quote) : ipv6Payload(bytes, quote);
  if (l4 === NONE || l4 + PORTS_BYTES > quote.end) return false;
  quote.l4 = l4;
  quote.sourcePort = readU16(bytes, l4 + TCP.sourcePort);
  quote.destinationPort = readU16(bytes, l4 + TCP.destinationPort);
  let headerBytes: number = TCP.headerBytesMin;
  if (l4 + TCP.dataOffset < quote.end) headerBytes = (bytes[l4 + TCP.dataOffset] >> 4) << 2;
  if (headerBytes < TCP.headerBytesMin) return false;
  quote.payload = Math.min(l4 + headerBytes, quote.end);
  quote.payloadBytes = quote.end - quote.payload;
  return true;
}

function isError({ kind, icmpType: type }: PacketView): boolean {
  if (kind === PACKET.icmpv6) return type >= ICMPV6_UNREACHABLE && type <= ICMPV6_PARAMETER_PROBLEM;
  return (
    (type >= ICMP_UNREACHABLE && type <= ICMP_REDIRECT) ||
    type === ICMP_TIME_EXCEEDED ||
    type === ICMP_PARAMETER_PROBLEM
  );
}

/** Returns where the quote ends. An error may have extensions after the quote and then gives its length (RFC 4884 section 4). */
function quoteEnd(bytes: Uint8Array, view: PacketView, l3: number): number {
  if (l3 > view.end) return view.end;
  let quoted = 0;
  if (view.kind === PACKET.icmpv6) {
    const hasLength = view.icmpType === ICMPV6_UNREACHABLE || view.icmpType === ICMPV6_TIME_EXCEEDED;
    if (hasLength) quoted = bytes[view.l4 + 4] << 3;
  } else if (view.icmpType !== ICMP_SOURCE_QUENCH && view.icmpType !== ICMP_REDIRECT) {
    quoted = bytes[view.l4 + 5] << 2;
  }
  return quoted === 0 ? view.end : Math.min(view.end, l3 + quoted);
}

/** Returns where TCP begins, or NONE if the quoted packet is not TCP or its lengths are impossible. */
function ipv4Payload(bytes: Uint8Array, quote: PacketView): number {
  const { l3 } = quote;
  if (l3 + IPV4.headerBytesMin > quote.end || bytes[l3] >> 4 !== 4) return NONE;
  const headerBytes = (bytes[l3] & 0x0f) << 2;
  if (headerBytes < IPV4.headerBytesMin || bytes[l3 + IPV4.protocol] !== IP_PROTOCOL.tcp) return NONE;
  if ((readU16(bytes, l3 + IPV4.fragment) & IPV4_OFFSET_MASK) !== 0) return NONE;
  readIpv4Addresses(bytes, l3, quote);
  quote.end = Math.min(quote.end, l3 + readU16(bytes, l3 + IPV4.totalLength));
  return l3 + headerBytes;
}

function ipv6Payload(bytes: Uint8Array, quote: PacketView): number {
  const { l3 } = quote;
  if (l3 + IPV6.headerBytes > quote.end || bytes[l3] >> 4 !== 6) return NONE;
  quote.sourceAt = l3 + IPV6.source;
  quote.destinationAt = l3 + IPV6.destination;
  quote.source4 = 0;
  quote.destination4 = 0;
  quote.end = Math.min(quote.end, l3 + IPV6.headerBytes + readU16(bytes, l3 + IPV6.payloadLength));
  let next = bytes[l3 + IPV6.nextHeader];
  let at = l3 + IPV6.headerBytes;
  for (let headers = 0; next !== IP_PROTOCOL.tcp; headers++) {
    if (headers === IPV6_EXTENSION_HEADERS_MAX || at + 8 > quote.end) return NONE;
    const following = bytes[at];
    if (next === IP_PROTOCOL.ipv6Fragment) {
      const offset = readU16(bytes, at + IPV6_FRAGMENT.offset) & IPV6_FRAGMENT.offsetMask;
      if (offset !== 0) return NONE;
      at += IPV6_FRAGMENT.headerBytes;
    } else if (
      next === IP_PROTOCOL.hopByHop ||
      next === IP_PROTOCOL.ipv6Routing ||
      next === IP_PROTOCOL.ipv6Destination
    ) {
      at += (bytes[at + 1] + 1) << 3;
    } else return NONE;
    next = following;
  }
  return at;
}
