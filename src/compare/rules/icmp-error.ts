/**
 * The rule of ICMP: errors by what they report and which packet they quote, all other messages whole.
 *
 * An error quotes the packet that it is about. Both VMs got that packet, but not every bit of it is the same in both, or
 * reaches them as it was sent: the node translates TCP's acknowledgement number, and kernels join segments before they look
 * at them. The receiver uses the quote to find out whose error it is. So addresses, protocol, ports, TCP's sequence number,
 * ICMP's id and the rest of a UDP datagram are compared. Not compared are length, identification, hop limit and checksums,
 * what follows TCP's sequence number, and, for TCP, how much is quoted.
 *
 * Errors and other messages without an echo id share a flow; a bit of the frame tells which it is.
 */

import type { Framing } from '../../frames/frame-reader.ts';
import type { FlowId, FrameId, SlabId } from '../../units.ts';
import { ICMP_QUOTE, quotesPacket } from '../../wire/icmp.ts';
import { IP_PROTOCOL, IPV4 } from '../../wire/ipv4.ts';
import { IPV6 } from '../../wire/ipv6.ts';
import type { PacketView } from '../../wire/packet.ts';
import { RULE } from '../classes.ts';
import { FLAGS, PAYLOAD, PAYLOAD_BYTES, SLAB } from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import type { DivergenceReason } from '../verdict.ts';
import { DatagramRule } from './datagram.ts';

/** In FLAGS: an ICMP error. */
const IS_ERROR = 0x400;

export class IcmpRule extends DatagramRule {
  constructor(holding: Holding, framing: Framing) {
    super(holding, framing, RULE.icmp);
  }

  protected override describe(id: FrameId, flow: FlowId, packet: PacketView): void {
    super.describe(id, flow, packet);
    if (quotesPacket(packet.ipVersion, packet.icmpType)) this.holding.frames.words[id + FLAGS] = IS_ERROR;
  }

  protected override difference(id: FrameId, other: FrameId): DivergenceReason | null {
    const { words } = this.holding.frames;
    const errors = words[id + FLAGS] === IS_ERROR && words[other + FLAGS] === IS_ERROR;
    return errors ? errorDifference(this.holding, id, other) : super.difference(id, other);
  }
}

/** Ports and sequence number: as much as an error has to quote (RFC 792). */
const TCP_QUOTED_BYTES = 8;

/** Returns how two held ICMP errors differ, or null. */
function errorDifference(holding: Holding, id: FrameId, other: FrameId): DivergenceReason | null {
  const { words } = holding.frames;
  const bytes = words[id + PAYLOAD_BYTES];
  const otherBytes = words[other + PAYLOAD_BYTES];
  const l4 = quotedTransport(holding, id, Math.min(bytes, otherBytes));
  const protocol = l4 < 0 ? -1 : quotedProtocol(holding, id);
  if (bytes !== otherBytes && protocol !== IP_PROTOCOL.tcp) return 'diverged-length';
  if (l4 < 0) return same(holding, id, other, 0, bytes) ? null : 'diverged-bytes';
  const agree =
    // Type and code; then what follows the checksum: MTU, pointer, gateway.
    same(holding, id, other, 0, 2) &&
    same(holding, id, other, 4, ICMP_QUOTE) &&
    sameIp(holding, id, other, l4) &&
    sameTransport(holding, id, other, protocol, l4, bytes);
  return agree ? null : 'diverged-bytes';
}

/** Returns true if bytes `from` to `to` of the messages are the same. */
function same(holding: Holding, id: FrameId, other: FrameId, from: number, to: number): boolean {
  return from >= to || holding.samePayload(id, from, other, from, to - from);
}

function sameIp(holding: Holding, id: FrameId, other: FrameId, l4: number): boolean {
  const q = ICMP_QUOTE;
  if (isQuotedIpv4(holding, id)) {
    return (
      same(holding, id, other, q, q + IPV4.totalLength) &&
      same(holding, id, other, q + IPV4.fragment, q + IPV4.ttl) &&
      same(holding, id, other, q + IPV4.protocol, q + IPV4.checksum) &&
      same(holding, id, other, q + IPV4.source, l4)
    );
  }
  return (
    same(holding, id, other, q, q + IPV6.payloadLength) &&
    same(holding, id, other, q + IPV6.nextHeader, q + IPV6.hopLimit) &&
    same(holding, id, other, q + IPV6.source, l4)
  );
}

function sameTransport(
  holding: Holding,
  id: FrameId,
  other: FrameId,
  protocol: number,
  l4: number,
  end: number,
): boolean {
  switch (protocol) {
    case IP_PROTOCOL.tcp:
      return same(holding, id, other, l4, l4 + TCP_QUOTED_BYTES);
    case IP_PROTOCOL.udp:
    case IP_PROTOCOL.udpLite:
      return same(holding, id, other, l4, l4 + 6) && same(holding, id, other, l4 + 8, end);
    case IP_PROTOCOL.icmp:
    case IP_PROTOCOL.icmpv6:
      return same(holding, id, other, l4, l4 + 2) && same(holding, id, other, l4 + 4, end);
    default:
      return same(holding, id, other, l4, end);
  }
}

/** Returns where the quoted packet's transport header begins in the payload, or -1 if fewer than eight bytes of it are there. */
function quotedTransport(holding: Holding, id: FrameId, bytes: number): number {
  if (bytes < ICMP_QUOTE + IPV4.headerBytesMin) return -1;
  const version = quotedByte(holding, id, 0) >> 4;
  let l4 = -1;
  if (version === 4) l4 = ICMP_QUOTE + ((quotedByte(holding, id, 0) & 15) << 2);
  else if (version === 6) l4 = ICMP_QUOTE + IPV6.headerBytes;
  return l4 >= ICMP_QUOTE + IPV4.headerBytesMin && l4 + TCP_QUOTED_BYTES <= bytes ? l4 : -1;
}

function isQuotedIpv4(holding: Holding, id: FrameId): boolean {
  return quotedByte(holding, id, 0) >> 4 === 4;
}

function quotedProtocol(holding: Holding, id: FrameId): number {
  return quotedByte(holding, id, isQuotedIpv4(holding, id) ? IPV4.protocol : IPV6.nextHeader);
}

function quotedByte(holding: Holding, id: FrameId, at: number): number {
  const { words } = holding.frames;
  return holding.slabs.buffer(words[id + SLAB] as SlabId)[words[id + PAYLOAD] + ICMP_QUOTE + at];
}
