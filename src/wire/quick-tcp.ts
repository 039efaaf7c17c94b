/**
 * Parses the common frame in a few loads: TCP in IPv4 without options or in IPv6 without extension headers, unfragmented and
 * untagged.
 */
import type { Seq } from '../units.ts';
import { PACKET, type PacketView } from './packet.ts';

const ETHERNET_BYTES = 14;
const IPV4_BYTES = 20;
const IPV6_BYTES = 40;
const TCP_BYTES = 20;
const TCP_PROTOCOL = 6;
/** EtherType, then version and header length (IPv4) or version (IPv6): the four bytes from the EtherType on. */
const IPV4_PLAIN = 0x080045;
const IPV6 = 0x86dd6;
/** IPv6: the two addresses, one after the other. */
const ADDRESSES6_BYTES = 32;
/** Mask for the four bytes from IPv4's fragment field on: more fragments, the offset, and the protocol. */
const IPV4_FRAGMENT_AND_PROTOCOL = 0x3fff00ff;

/**
 * Returns true if the frame is a common one; the view is then filled exactly as parsePacket would fill it. Returns false for
 * every other frame, well-formed or not; parsePacket must then fill the view.
 */
export function parseQuickTcp(bytes: DataView, at: number, length: number, view: PacketView): boolean {
  if (length < ETHERNET_BYTES + IPV4_BYTES + TCP_BYTES) return false;
  const l3 = at + ETHERNET_BYTES;
  const kind = bytes.getUint32(at + 12);
  let l4: number;
  let end: number;
  if (kind >>> 8 === IPV4_PLAIN) {
    if ((bytes.getInt32(l3 + 6) & IPV4_FRAGMENT_AND_PROTOCOL) !== TCP_PROTOCOL) return false;
    l4 = l3 + IPV4_BYTES;
    end = l3 + bytes.getUint16(l3 + 2);
    view.ipVersion = 4;
    view.etherType = 0x0800;
    view.sourceAt = l3 + 12;
    view.destinationAt = l3 + 16;
    view.source4 = bytes.getInt32(l3 + 12);
    view.destination4 = bytes.getInt32(l3 + 16);
  } else if (kind >>> 12 === IPV6) {
    if (length < ETHERNET_BYTES + IPV6_BYTES + TCP_BYTES || bytes.getUint8(l3 + 6) !== TCP_PROTOCOL)
      return false;
    l4 = l3 + IPV6_BYTES;
    end = l4 + bytes.getUint16(l3 + 4);
    view.ipVersion = 6;
    view.etherType = 0x86dd;
    view.sourceAt = l3 + 8;
    view.destinationAt = l3 + 24;
    view.source4 = 0;
    view.destination4 = 0;
  } else return false;
  const offsetFlagsWindow = bytes.getInt32(l4 + 12);
  const payload = l4 + ((offsetFlagsWindow >>> 28) << 2);
  if (end > at + length || payload < l4 + TCP_BYTES || payload > end) return false;
  const ports = bytes.getInt32(l4);
  view.kind = PACKET.tcp;
  view.vlan = 0;
  view.protocol = TCP_PROTOCOL;
  view.fragment = false;
  view.l3 = l3;
  view.l4 = l4;
  view.end = end;
  view.sourcePort = ports >>> 16;
  view.destinationPort = ports & 0xffff;
  view.icmpType = 0;
  view.icmpId = 0;
  view.seq = bytes.getInt32(l4 + 4) as Seq;
  view.ack = bytes.getInt32(l4 + 8) as Seq;
  view.tcpFlags = (offsetFlagsWindow >>> 16) & 0xff;
  view.tcpWindow = offsetFlagsWindow & 0xffff;
  view.payload = payload;
  view.payloadBytes = end - payload;
  return true;
}

/** What two twins need not have in common, and their place. */
export type TwinView = Pick<PacketView, 'seq' | 'ack' | 'tcpWindow' | 'payload' | 'payloadBytes'>;

/**
 * Returns true if the frame is a common one, and a twin of the one in `twin`, whose bytes are `twinBytes`: a segment of the same flow
 * with the same place, lengths, flags and first four bytes of options. Its fields in `view` are then filled, and they alone. Returns
 * false for every other frame; `parseQuickTcp` must then parse it.
 */
export function parseQuickTwin(
  bytes: DataView,
  at: number,
  length: number,
  twinBytes: DataView,
  twin: PacketView,
  view: TwinView,
): boolean {
  const l3 = at + ETHERNET_BYTES;
  const headerBytes = twin.l4 - twin.l3;
  if (twin.vlan !== 0 || length < ETHERNET_BYTES + twin.end - twin.l3) return false;
  if (bytes.getUint32(at + 12) >>> 8 === IPV4_PLAIN) {
    if (headerBytes !== IPV4_BYTES) return false;
    if (bytes.getUint16(l3 + 2) !== twin.end - twin.l3) return false;
    if ((bytes.getInt32(l3 + 6) & IPV4_FRAGMENT_AND_PROTOCOL) !== TCP_PROTOCOL) return false;
    if (bytes.getInt32(l3 + 12) !== twin.source4 || bytes.getInt32(l3 + 16) !== twin.destination4)
      return false;
  } else {
    if (twin.ipVersion !== 6 || headerBytes !== IPV6_BYTES || bytes.getUint32(at + 12) >>> 12 !== IPV6)
      return false;
    if (bytes.getUint16(l3 + 4) !== twin.end - twin.l4 || bytes.getUint8(l3 + 6) !== TCP_PROTOCOL)
      return false;
    for (let i = 8; i < 8 + ADDRESSES6_BYTES; i += 4)
      if (bytes.getInt32(l3 + i) !== twinBytes.getInt32(twin.l3 + i)) return false;
  }
  const l4 = l3 + headerBytes;
  const dataOffset = twin.payload - twin.l4;
  const offsetFlagsWindow = bytes.getInt32(l4 + 12);
  if (bytes.getInt32(l4) !== twinBytes.getInt32(twin.l4) || bytes.getInt32(l4 + 4) !== twin.seq) return false;
  if (offsetFlagsWindow >>> 16 !== twinBytes.getUint16(twin.l4 + 12)) return false;
  if (dataOffset > TCP_BYTES && bytes.getInt32(l4 + TCP_BYTES) !== twinBytes.getInt32(twin.l4 + TCP_BYTES))
    return false;
  view.seq = twin.seq;
  view.ack = bytes.getInt32(l4 + 8) as Seq;
  view.tcpWindow = offsetFlagsWindow & 0xffff;
  view.payload = l4 + dataOffset;
  view.payloadBytes = twin.payloadBytes;
  return true;
}
