/**
 * The first fragment of a TCP segment, looked at as TCP: it has the whole header, whose checksum covers what the
 * other fragments carry too. A fragment too small for the header (RFC 1858 calls it tiny) is left as it is.
 */
import { readI32, readU16 } from './bytes.ts';
import { IP_PROTOCOL, IPV4, IPV4_OFFSET_MASK } from './ipv4.ts';
import { PACKET, type PacketView } from './packet.ts';
import { TCP } from './tcp.ts';

/** Of IPv6's fragment header, from its end: the offset, and three more bits. */
const IPV6_OFFSET_BEFORE_END = 6;
const IPV6_OFFSET_MASK = 0xfff8;

/** `view` holds a parsed fragment. Answers whether it is a first one of TCP; the view then is as of a whole segment. */
export function viewFirstFragment(bytes: Uint8Array, view: PacketView): boolean {
  if (!view.fragment || view.protocol !== IP_PROTOCOL.tcp) return false;
  const { l4, end } = view;
  const offset =
    view.ipVersion === 4
      ? readU16(bytes, view.l3 + IPV4.fragment) & IPV4_OFFSET_MASK
      : readU16(bytes, l4 - IPV6_OFFSET_BEFORE_END) & IPV6_OFFSET_MASK;
  if (offset !== 0 || l4 + TCP.headerBytesMin > end) return false;
  const headerBytes = (bytes[l4 + TCP.dataOffset] >> 4) << 2;
  if (headerBytes < TCP.headerBytesMin || l4 + headerBytes > end) return false;
  view.kind = PACKET.tcp;
  view.fragment = false;
  view.sourcePort = readU16(bytes, l4 + TCP.sourcePort);
  view.destinationPort = readU16(bytes, l4 + TCP.destinationPort);
  view.seq = readI32(bytes, l4 + TCP.seq);
  view.ack = readI32(bytes, l4 + TCP.ack);
  view.tcpFlags = bytes[l4 + TCP.flags];
  view.payload = l4 + headerBytes;
  view.payloadBytes = end - view.payload;
  return true;
}
