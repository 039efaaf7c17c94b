/**
 * Rewrites the sequence numbers, timestamps and ports of one TCP segment in place, checksum kept by RFC 1624.
 *
 * Which fields: seq and TSval count in the sender's numbers; ack, SACK blocks and TSecr in the receiver's. A map
 * holds what to add to turn the VM's numbers into the client's, so the VM's output has seq and TSval moved up, and
 * the VM's input has ack, SACK blocks and TSecr moved down. Differences are modulo 2^32.
 */
import { readI32, readU16, writeI32, writeU16 } from '../wire/bytes.ts';
import { adjustChecksum32 } from '../wire/checksum.ts';
import type { PacketView } from '../wire/packet.ts';
import { findTcpOption, TCP, TCP_ACK, TCP_OPTION, TCP_SYN, TCP_TIMESTAMPS_BYTES } from '../wire/tcp.ts';

/** TSval of a segment, or 0 when it has none (0 is also a legal TSval, and then a shift of 0 is right). */
export function readTsVal(bytes: Uint8Array, view: PacketView): number {
  const option = timestamps(bytes, view);
  return option < 0 ? 0 : readI32(bytes, option + 2);
}

/** TSecr of a segment, or 0 when it has none. */
export function readTsEcr(bytes: Uint8Array, view: PacketView): number {
  const option = timestamps(bytes, view);
  return option < 0 ? 0 : readI32(bytes, option + 6);
}

export function hasTimestamps(bytes: Uint8Array, view: PacketView): boolean {
  return timestamps(bytes, view) >= 0;
}

/** The VM said this: its own numbers become the client's. */
export function translateOutput(
  bytes: Uint8Array,
  view: PacketView,
  seqDelta: number,
  tsDelta: number,
): void {
  if (seqDelta !== 0) addTo(bytes, view, view.l4 + TCP.seq, seqDelta);
  if (tsDelta !== 0) {
    const option = timestamps(bytes, view);
    if (option >= 0) addTo(bytes, view, option + 2, tsDelta);
  }
}

/** The VM will hear this: the client's echo of the VM's numbers becomes the VM's own. */
export function translateInput(bytes: Uint8Array, view: PacketView, seqDelta: number, tsDelta: number): void {
  if ((view.tcpFlags & TCP_ACK) === 0) return;
  if (seqDelta !== 0) {
    addTo(bytes, view, view.l4 + TCP.ack, -seqDelta);
    translateSack(bytes, view, -seqDelta);
  }
  if (tsDelta !== 0) {
    const option = timestamps(bytes, view);
    if (option >= 0) addTo(bytes, view, option + 6, -tsDelta);
  }
}

/** `at` is one of the segment's ports. */
export function replacePort(bytes: Uint8Array, view: PacketView, at: number, port: number): void {
  const before = readU16(bytes, at);
  writeU16(bytes, at, port);
  const checksumAt = view.l4 + TCP.checksum;
  writeU16(bytes, checksumAt, adjustChecksum32(readU16(bytes, checksumAt), before, port, false));
}

/** TSval becomes `value`; `option` is where the timestamps are. */
export function replaceTsVal(bytes: Uint8Array, view: PacketView, option: number, value: number): void {
  addTo(bytes, view, option + 2, value - readI32(bytes, option + 2));
}

/** TSecr becomes `value`; `option` is where the timestamps are. */
export function replaceTsEcr(bytes: Uint8Array, view: PacketView, option: number, value: number): void {
  addTo(bytes, view, option + 6, value - readI32(bytes, option + 6));
}

/** A SYN without ACK: who sends it opens the connection. */
export function opensConnection(flags: number): boolean {
  return (flags & (TCP_SYN | TCP_ACK)) === TCP_SYN;
}

function translateSack(bytes: Uint8Array, view: PacketView, delta: number): void {
  const sack = findTcpOption(bytes, view.l4 + TCP.headerBytesMin, view.payload, TCP_OPTION.sack);
  if (sack < 0) return;
  const end = sack + bytes[sack + 1];
  for (let edge = sack + 2; edge + 4 <= end; edge += 4) addTo(bytes, view, edge, delta);
}

/** Where the timestamps option is, or -1. */
export function timestamps(bytes: Uint8Array, view: PacketView): number {
  const option = findTcpOption(bytes, view.l4 + TCP.headerBytesMin, view.payload, TCP_OPTION.timestamps);
  return option >= 0 && bytes[option + 1] === TCP_TIMESTAMPS_BYTES ? option : -1;
}

function addTo(bytes: Uint8Array, view: PacketView, at: number, delta: number): void {
  const before = readI32(bytes, at);
  const after = (before + delta) | 0;
  writeI32(bytes, at, after);
  const checksumAt = view.l4 + TCP.checksum;
  const odd = ((at - view.l4) & 1) !== 0;
  writeU16(bytes, checksumAt, adjustChecksum32(readU16(bytes, checksumAt), before, after, odd));
}
