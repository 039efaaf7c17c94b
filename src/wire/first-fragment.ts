/**
 * The first fragment of a TCP segment, viewed as TCP. It has the whole TCP header, and the checksum in it covers the other
 * fragments too. A fragment that is too small for the header ("tiny", RFC 1858 section 3) is not viewed.
 */
import type { Seq } from '../units.ts';
import { readI32, readU16 } from './bytes.ts';
import { IP_PROTOCOL, IPV4, IPV4_OFFSET_MASK } from './ipv4.ts';
import { IPV6_FRAGMENT } from './ipv6.ts';
import { PACKET, type PacketView } from './packet.ts';
import { TCP } from './tcp.ts';

/** The field with the offset of an IPv6 fragment, and three more bits: bytes before the end of the fragment header. */
const IPV6_OFFSET_BEFORE_END = IPV6_FRAGMENT.headerBytes - IPV6_FRAGMENT.offset;

/**
 * Returns true if `view`, which holds a parsed packet, is the first fragment of a TCP segment. The view then reads as that of
 * a whole segment.
 */
export function viewFirstFragment(bytes: Uint8Array, view: PacketView): boolean {
  if (!view.fragment || view.protocol !== IP_PROTOCOL.tcp) return false;
  const { l4, end } = view;
  const offset =
    view.ipVersion === 4
      ? readU16(bytes, view.l3 + IPV4.fragment) & IPV4_OFFSET_MASK
      : readU16(bytes, l4 - IPV6_OFFSET_BEFORE_END) & IPV6_FRAGMENT.offsetMask;
  if (offset !== 0 || l4 + TCP.headerBytesMin > end) return false;
  const headerBytes = (bytes[l4 + TCP.dataOffset] >> 4) << 2;
  if (headerBytes < TCP.headerBytesMin || l4 + headerBytes > end) return false;
  view.kind = PACKET.tcp;
  view.fragment = false;
  view.sourcePort = readU16(bytes, l4 + TCP.sourcePort);
  view.destinationPort = readU16(bytes, l4 + TCP.destinationPort);
  view.seq = readI32(bytes, l4 + TCP.seq) as Seq;
  view.ack = readI32(bytes, l4 + TCP.ack) as Seq;
  view.tcpFlags = bytes[l4 + TCP.flags];
  view.payload = l4 + headerBytes;
  view.payloadBytes = end - view.payload;
  return true;
}
