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
