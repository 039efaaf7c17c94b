/**
 * Parses a frame: which kind of packet it holds, and where the packet's parts lie.
 *
 * Goal: every length is checked once, here, so that the readers of fields may trust it.
 * A `PacketView` is reused from frame to frame. It holds offsets into the frame's buffer and the few values that every
 * engine needs. It is void as soon as the next frame is parsed into it.
 *
 * Limits: two VLAN tags and IPV6_EXTENSION_HEADERS_MAX extension headers. AH ends the extension headers, because the packet
 * that it signs must be compared together with it. Lengths come from the IP header, so Ethernet padding is never payload.
 *
 * Failure: a frame whose lengths contradict each other is `malformed`, never half-parsed. An IPv6 packet with a fragment
 * header that is the only fragment (an atomic fragment, RFC 6946) counts as unfragmented.
 */
import type { Seq } from '../units.ts';
import { readI32, readU16 } from './bytes.ts';
import { ETHER_TYPE, ETHERNET } from './ethernet.ts';
import { ICMP, ICMP_ECHO_REPLY, ICMP_ECHO_REQUEST, ICMPV6_ECHO_REPLY, ICMPV6_ECHO_REQUEST } from './icmp.ts';
import { IP_PROTOCOL, IPV4, IPV4_MORE_FRAGMENTS, IPV4_OFFSET_MASK } from './ipv4.ts';
import { IPV6, IPV6_EXTENSION_HEADERS_MAX, IPV6_FRAGMENT } from './ipv6.ts';
import { TCP, TCP_FIN, TCP_SYN } from './tcp.ts';
import { UDP } from './udp.ts';
import { isVlanTag } from './vlan-tags.ts';

export const PACKET = {
  /** lengths contradict each other, or the frame ends before its headers do */
  malformed: 0,
  /** not IP: ARP, LLDP, ... (see etherType) */
  nonIp: 1,
  tcp: 2,
  udp: 3,
  icmp: 4,
  icmpv6: 5,
  /** every other IP protocol, and every fragment */
  otherIp: 6,
} as const;
export type PacketKind = (typeof PACKET)[keyof typeof PACKET];

/** Offset of AH's SPI, which follows the next header, the length and two reserved bytes. */
const AH_SPI = 4;

export class PacketView {
  kind: PacketKind = PACKET.malformed;
  etherType = 0;
  /** both VLAN ids, 12 bits each, 0 when untagged */
  vlan = 0;
  /** 4, 6, or 0 when not IP */
  ipVersion = 0;
  protocol = 0;
  fragment = false;
  /** Set for fragments only: the payload's place in the datagram, whether more fragments follow, and the datagram's id. */
  fragmentOffset = 0;
  moreFragments = false;
  fragmentId = 0;
  /** offsets into the buffer */
  l3 = 0;
  l4 = 0;
  /** first byte after the IP datagram (after the frame when not IP) */
  end = 0;
  /** offsets of the IP addresses, or of the Ethernet addresses where the frame is not IP */
  sourceAt = 0;
  destinationAt = 0;
  /** IPv4 addresses, 0 in every other packet */
  source4 = 0;
  destination4 = 0;
  /** or the two halves of the SPI of ESP and AH; 0 in a protocol without ports */
  sourcePort = 0;
  destinationPort = 0;
  /** ICMP type and echo id; the id is 0 in every message but an echo request or reply */
  icmpType = 0;
  icmpId = 0;
  /** TCP only, as the flags are */
  seq = 0 as Seq;
  ack = 0 as Seq;
  tcpFlags = 0;
  /** as it stands in the header: not scaled */
  tcpWindow = 0;
  /** TCP and UDP payload; for other packets everything after the IP header */
  payload = 0;
  payloadBytes = 0;

  /** Number of sequence numbers that a TCP segment takes: its payload, SYN and FIN (RFC 9293 section 3.4). */
  get seqLength(): number {
    return (
      this.payloadBytes +
      ((this.tcpFlags & TCP_SYN) !== 0 ? 1 : 0) +
      ((this.tcpFlags & TCP_FIN) !== 0 ? 1 : 0)
    );
  }
}

/** Parses the frame of `length` bytes at `at` into `view`. Returns its kind, which is also in the view. */
export function parsePacket(bytes: Uint8Array, at: number, length: number, view: PacketView): PacketKind {
  return parse(bytes, at, length, view, false);
}

/**
 * Like parsePacket, for a frame that the network card will cut into segments (virtio-net.ts, `isGso`): an IP length of 0
 * means that the packet extends to the end of the frame.
 */
export function parseGsoPacket(bytes: Uint8Array, at: number, length: number, view: PacketView): PacketKind {
  return parse(bytes, at, length, view, true);
}

function parse(bytes: Uint8Array, at: number, length: number, view: PacketView, gso: boolean): PacketKind {
  const frameEnd = at + length;
  view.kind = PACKET.malformed;
  view.vlan = 0;
  view.ipVersion = 0;
  view.protocol = 0;
  view.fragment = false;
  view.source4 = 0;
  view.destination4 = 0;
  view.sourcePort = 0;
  view.destinationPort = 0;
  view.icmpType = 0;
  view.icmpId = 0;
  view.tcpFlags = 0;
  view.tcpWindow = 0;
  view.etherType = 0;
  if (length < ETHERNET.headerBytes) return PACKET.malformed;

  let l3 = at + ETHERNET.headerBytes;
  let etherType = readU16(bytes, at + ETHERNET.etherType);
  for (let tags = 0; isVlanTag(etherType) && tags < 2; tags++) {
    if (l3 + ETHERNET.tagBytes > frameEnd) return PACKET.malformed;
    view.vlan = (view.vlan << 12) | (readU16(bytes, l3) & 0xfff);
    etherType = readU16(bytes, l3 + 2);
    l3 += ETHERNET.tagBytes;
  }
  view.etherType = etherType;
  view.l3 = l3;
  if (etherType === ETHER_TYPE.ipv4) return parseIpv4(bytes, l3, frameEnd, view, gso);
  if (etherType === ETHER_TYPE.ipv6) return parseIpv6(bytes, l3, frameEnd, view, gso);
  view.sourceAt = at + ETHERNET.source;
  view.destinationAt = at + ETHERNET.destination;
  view.l4 = l3;
  view.end = frameEnd;
  view.payload = l3;
  view.payloadBytes = frameEnd - l3;
  view.kind = PACKET.nonIp;
  return PACKET.nonIp;
}

function parseIpv4(
  bytes: Uint8Array,
  l3: number,
  frameEnd: number,
  view: PacketView,
  gso: boolean,
): PacketKind {
  if (l3 + IPV4.headerBytesMin > frameEnd) return PACKET.malformed;
  const headerBytes = (bytes[l3] & 0x0f) << 2;
  const ownLength = readU16(bytes, l3 + IPV4.totalLength);
  const totalLength = ownLength === 0 && gso ? frameEnd - l3 : ownLength;
  if (bytes[l3] >> 4 !== 4 || headerBytes < IPV4.headerBytesMin) return PACKET.malformed;
  if (totalLength < headerBytes || l3 + totalLength > frameEnd) return PACKET.malformed;
  view.ipVersion = 4;
  view.protocol = bytes[l3 + IPV4.protocol];
  readIpv4Addresses(bytes, l3, view);
  view.end = l3 + totalLength;
  const fragment = readU16(bytes, l3 + IPV4.fragment);
  if ((fragment & (IPV4_MORE_FRAGMENTS | IPV4_OFFSET_MASK)) !== 0) {
    view.fragment = true;
    view.fragmentOffset = (fragment & IPV4_OFFSET_MASK) << 3;
    view.moreFragments = (fragment & IPV4_MORE_FRAGMENTS) !== 0;
    view.fragmentId = readU16(bytes, l3 + IPV4.id);
    if (!isSoundFragment(view, view.end - l3 - headerBytes)) return PACKET.malformed;
  }
  return parseTransport(bytes, l3 + headerBytes, view);
}

/** Reads both addresses of an IPv4 header at `l3`, whose length the caller has checked, into the view. */
export function readIpv4Addresses(bytes: Uint8Array, l3: number, view: PacketView): void {
  view.sourceAt = l3 + IPV4.source;
  view.destinationAt = l3 + IPV4.destination;
  view.source4 = readI32(bytes, view.sourceAt);
  view.destination4 = readI32(bytes, view.destinationAt);
}

/**
 * Returns true if a fragment with so many payload bytes is possible: every fragment but the last has whole units of eight
 * bytes, and the datagram is at most 65535 bytes long.
 */
function isSoundFragment(view: PacketView, bytes: number): boolean {
  if (bytes === 0 || (view.moreFragments && (bytes & 7) !== 0)) return false;
  return view.fragmentOffset + bytes <= 0xffff;
}

function parseIpv6(
  bytes: Uint8Array,
  l3: number,
  frameEnd: number,
  view: PacketView,
  gso: boolean,
): PacketKind {
  if (l3 + IPV6.headerBytes > frameEnd || bytes[l3] >> 4 !== 6) return PACKET.malformed;
  const ownLength = readU16(bytes, l3 + IPV6.payloadLength);
  const end = ownLength === 0 && gso ? frameEnd : l3 + IPV6.headerBytes + ownLength;
  if (end > frameEnd) return PACKET.malformed;
  view.ipVersion = 6;
  view.sourceAt = l3 + IPV6.source;
  view.destinationAt = l3 + IPV6.destination;
  view.end = end;

  let next = bytes[l3 + IPV6.nextHeader];
  let at = l3 + IPV6.headerBytes;
  for (let headers = 0; isSkippedExtension(next); headers++) {
    if (headers === IPV6_EXTENSION_HEADERS_MAX || at + 8 > end) return PACKET.malformed;
    if (next === IP_PROTOCOL.ipv6Fragment) {
      const fragment = readU16(bytes, at + IPV6_FRAGMENT.offset);
      next = bytes[at];
      at += IPV6_FRAGMENT.headerBytes;
      view.fragmentOffset = fragment & IPV6_FRAGMENT.offsetMask;
      view.moreFragments = (fragment & IPV6_FRAGMENT.more) !== 0;
      if (view.fragmentOffset === 0 && !view.moreFragments) continue;
      view.fragment = true;
      view.fragmentId = readI32(bytes, at - IPV6_FRAGMENT.headerBytes + IPV6_FRAGMENT.id);
      if (!isSoundFragment(view, end - at)) return PACKET.malformed;
      // Only in the first fragment does a header follow; every fragment is otherIp, so none is parsed here.
      break;
    }
    next = bytes[at];
    at += (bytes[at + 1] + 1) << 3;
    if (at > end) return PACKET.malformed;
  }
  view.protocol = next;
  return parseTransport(bytes, at, view);
}

function isSkippedExtension(next: number): boolean {
  return (
    next === IP_PROTOCOL.hopByHop ||
    next === IP_PROTOCOL.ipv6Routing ||
    next === IP_PROTOCOL.ipv6Destination ||
    next === IP_PROTOCOL.ipv6Fragment
  );
}

function parseTransport(bytes: Uint8Array, l4: number, view: PacketView): PacketKind {
  view.l4 = l4;
  view.payload = l4;
  view.payloadBytes = view.end - l4;
  let kind: PacketKind = PACKET.otherIp;
  if (!view.fragment) {
    if (view.protocol === IP_PROTOCOL.tcp) kind = parseTcp(bytes, l4, view);
    else if (view.protocol === IP_PROTOCOL.udp) kind = parseUdp(bytes, l4, view);
    else if (view.protocol === IP_PROTOCOL.udpLite) kind = parseUdpLite(bytes, l4, view);
    else if (view.protocol === IP_PROTOCOL.icmp && view.ipVersion === 4)
      kind = parseIcmp(bytes, l4, view, PACKET.icmp);
    else if (view.protocol === IP_PROTOCOL.icmpv6 && view.ipVersion === 6) {
      kind = parseIcmp(bytes, l4, view, PACKET.icmpv6);
    } else kind = parseOther(bytes, l4, view);
  }
  view.kind = kind;
  return kind;
}

function parseTcp(bytes: Uint8Array, l4: number, view: PacketView): PacketKind {
  if (l4 + TCP.headerBytesMin > view.end) return PACKET.malformed;
  const headerBytes = (bytes[l4 + TCP.dataOffset] >> 4) << 2;
  if (headerBytes < TCP.headerBytesMin || l4 + headerBytes > view.end) return PACKET.malformed;
  view.sourcePort = readU16(bytes, l4 + TCP.sourcePort);
  view.destinationPort = readU16(bytes, l4 + TCP.destinationPort);
  view.seq = readI32(bytes, l4 + TCP.seq) as Seq;
  view.ack = readI32(bytes, l4 + TCP.ack) as Seq;
  view.tcpFlags = bytes[l4 + TCP.flags];
  view.tcpWindow = readU16(bytes, l4 + TCP.window);
  view.payload = l4 + headerBytes;
  view.payloadBytes = view.end - view.payload;
  return PACKET.tcp;
}

function parseUdp(bytes: Uint8Array, l4: number, view: PacketView): PacketKind {
  if (l4 + UDP.headerBytes > view.end) return PACKET.malformed;
  const length = readU16(bytes, l4 + UDP.length);
  if (length < UDP.headerBytes || l4 + length > view.end) return PACKET.malformed;
  readPorts(bytes, l4, view);
  // If bytes follow the datagram (UDP options, RFC 9868), the payload to compare begins with the UDP length and has them too.
  view.payload = l4 + length === view.end ? l4 + UDP.headerBytes : l4 + UDP.length;
  view.payloadBytes = view.end - view.payload;
  return PACKET.udp;
}

/** UDP-Lite's checksum covers `coverage` bytes, 0 meaning all (RFC 3828 section 3.1); the payload's length comes from IP. */
function parseUdpLite(bytes: Uint8Array, l4: number, view: PacketView): PacketKind {
  if (l4 + UDP.headerBytes > view.end) return PACKET.malformed;
  const coverage = readU16(bytes, l4 + UDP.length);
  if (coverage !== 0 && (coverage < UDP.headerBytes || l4 + coverage > view.end)) return PACKET.malformed;
  readPorts(bytes, l4, view);
  view.payload = l4 + UDP.headerBytes;
  view.payloadBytes = view.end - view.payload;
  return PACKET.udp;
}

function parseOther(bytes: Uint8Array, l4: number, view: PacketView): PacketKind {
  const hasPorts = view.protocol === IP_PROTOCOL.sctp || view.protocol === IP_PROTOCOL.dccp;
  if (hasPorts && l4 + 4 > view.end) return PACKET.malformed;
  readConversation(bytes, l4, view.end, view);
  return PACKET.otherIp;
}

/**
 * Reads what tells conversations of one protocol apart, into the ports of the view: ports of SCTP and DCCP, which lie where
 * UDP has them, or the SPI of ESP and AH (RFC 4303, RFC 4302). `end` is the first byte that is not there.
 */
function readConversation(bytes: Uint8Array, l4: number, end: number, view: PacketView): void {
  switch (view.protocol) {
    case IP_PROTOCOL.sctp:
    case IP_PROTOCOL.dccp:
    case IP_PROTOCOL.esp:
      if (l4 + 4 <= end) readPorts(bytes, l4, view);
      break;
    case IP_PROTOCOL.ah:
      if (l4 + AH_SPI + 4 <= end) readPorts(bytes, l4 + AH_SPI, view);
      break;
    default:
  }
}

function readPorts(bytes: Uint8Array, l4: number, view: PacketView): void {
  view.sourcePort = readU16(bytes, l4 + UDP.sourcePort);
  view.destinationPort = readU16(bytes, l4 + UDP.destinationPort);
}

function isEcho(kind: PacketKind, type: number): boolean {
  return kind === PACKET.icmp
    ? type === ICMP_ECHO_REQUEST || type === ICMP_ECHO_REPLY
    : type === ICMPV6_ECHO_REQUEST || type === ICMPV6_ECHO_REPLY;
}

function parseIcmp(bytes: Uint8Array, l4: number, view: PacketView, kind: PacketKind): PacketKind {
  if (l4 + 4 > view.end) return PACKET.malformed;
  const type = bytes[l4 + ICMP.type];
  view.icmpType = type;
  if (isEcho(kind, type)) {
    if (l4 + ICMP.headerBytes > view.end) return PACKET.malformed;
    view.icmpId = readU16(bytes, l4 + ICMP.id);
  }
  return kind;
}

/**
 * Parses the transport header of a datagram that came in fragments. Of its `total` bytes the first fragment has `bytesThere`,
 * at `l4`. `view` is that of one of its fragments; it gets the kind, ports and id of the whole datagram. Returns how many
 * bytes are header. TCP, and a header that makes no sense, stay `otherIp`.
 */
export function parseDatagram(
  bytes: Uint8Array,
  l4: number,
  bytesThere: number,
  total: number,
  view: PacketView,
): number {
  view.fragment = false;
  view.kind = PACKET.otherIp;
  if (bytesThere < UDP.headerBytes) return 0;
  const { protocol, ipVersion } = view;
  const udp = protocol === IP_PROTOCOL.udp && readU16(bytes, l4 + UDP.length) === total;
  if (udp || protocol === IP_PROTOCOL.udpLite) {
    view.kind = PACKET.udp;
    readPorts(bytes, l4, view);
    return UDP.headerBytes;
  }
  readConversation(bytes, l4, l4 + bytesThere, view);
  const icmp = ipVersion === 4 ? IP_PROTOCOL.icmp : IP_PROTOCOL.icmpv6;
  if (protocol === icmp) {
    view.icmpType = bytes[l4 + ICMP.type];
    view.kind = ipVersion === 4 ? PACKET.icmp : PACKET.icmpv6;
    if (isEcho(view.kind, view.icmpType)) view.icmpId = readU16(bytes, l4 + ICMP.id);
  }
  return 0;
}
