/** What the frames that a node makes itself have in common: their tags, their padding, and the checksum of ICMPv6. */
import type { Place } from '../link/places-message.ts';
import { foldChecksum, sumWords } from '../wire/checksum.ts';
import { ETHERNET, ETHERNET_FRAME_BYTES_MIN } from '../wire/ethernet.ts';
import { ICMP } from '../wire/icmp.ts';
import { IP_PROTOCOL } from '../wire/ipv4.ts';

/** Returns a frame with these tags, at least as long as Ethernet requires, behind its stream length prefix. */
export function frameIn(tags: Place['tags'], untagged: readonly number[]): Uint8Array {
  const words = tags.flatMap(({ etherType, id }) => [etherType >> 8, etherType & 255, id >> 8, id & 255]);
  const { etherType } = ETHERNET;
  const frame = [...untagged.slice(0, etherType), ...words, ...untagged.slice(etherType)];
  const bytes = Math.max(frame.length, ETHERNET_FRAME_BYTES_MIN);
  const out = new Uint8Array(4 + bytes);
  out[2] = bytes >> 8;
  out[3] = bytes & 255;
  out.set(frame, 4);
  return out;
}

/** Writes the checksum of an ICMPv6 message between these addresses, in which it is zero still. */
export function writeIcmpv6Checksum(
  icmp: number[],
  source: readonly number[],
  destination: readonly number[],
): void {
  const pseudo = [...source, ...destination, 0, 0, 0, icmp.length, 0, 0, 0, IP_PROTOCOL.icmpv6, ...icmp];
  writeChecksum(icmp, ICMP.checksum, pseudo);
}

/** Writes the checksum of `summed` into `bytes` at `at`. */
export function writeChecksum(bytes: number[], at: number, summed: readonly number[] = bytes): void {
  const checksum = foldChecksum(sumWords(Uint8Array.from(summed), 0, summed.length, 0));
  bytes[at] = checksum >> 8;
  bytes[at + 1] = checksum & 255;
}
