/**
 * Rewrites the segment that an ICMP error quotes, in place, with both checksums: TCP's, if the quote reaches that far,
 * and the error's own, which covers the quote.
 *
 * Who hears an error knows the quoted segment as he sent it. So this is tcp-fields.ts backwards: an error on its way to
 * the VM quotes the VM's output in the client's numbers, and one on its way out quotes the VM's input in the VM's
 * numbers. A number or an option that the quote cuts off is left as it is: nobody can make use of half of it.
 */
import { readI32, readU16, writeI32, writeU16 } from '../wire/bytes.ts';
import { adjustChecksum32 } from '../wire/checksum.ts';
import { ICMP } from '../wire/icmp.ts';
import type { PacketView } from '../wire/packet.ts';
import { findTcpOption, TCP, TCP_ACK, TCP_OPTION, TCP_TIMESTAMPS_BYTES } from '../wire/tcp.ts';

/** The VM will hear of its own segment: the client's numbers become the VM's. */
export function translateQuotedOutput(
  bytes: Uint8Array,
  view: PacketView,
  quote: PacketView,
  seqDelta: number,
  tsDelta: number,
): void {
  if (seqDelta !== 0) addTo(bytes, view, quote, quote.l4 + TCP.seq, -seqDelta);
  if (tsDelta !== 0) {
    const option = timestamps(bytes, quote);
    if (option >= 0) addTo(bytes, view, quote, option + 2, -tsDelta);
  }
}

/** The client will hear of its own segment: the VM's numbers, which it echoed, become the client's. */
export function translateQuotedInput(
  bytes: Uint8Array,
  view: PacketView,
  quote: PacketView,
  seqDelta: number,
  tsDelta: number,
): void {
  if (!acknowledges(bytes, quote)) return;
  if (seqDelta !== 0) {
    addTo(bytes, view, quote, quote.l4 + TCP.ack, seqDelta);
    const sack = option(bytes, quote, TCP_OPTION.sack);
    const end = sack < 0 ? 0 : sack + bytes[sack + 1];
    for (let edge = sack + 2; edge + 4 <= end; edge += 4) addTo(bytes, view, quote, edge, seqDelta);
  }
  if (tsDelta !== 0) {
    const found = timestamps(bytes, quote);
    if (found >= 0) addTo(bytes, view, quote, found + 6, tsDelta);
  }
}

/** `at` is one of the quoted segment's ports. */
export function replaceQuotedPort(
  bytes: Uint8Array,
  view: PacketView,
  quote: PacketView,
  at: number,
  port: number,
): void {
  const before = readU16(bytes, at);
  writeU16(bytes, at, port);
  adjust(bytes, view, quote, at, before, port);
}

/** Flags come behind the acknowledgement; a quote may end in between, and a stack leaves the field of a SYN zero. */
function acknowledges(bytes: Uint8Array, { l4, end }: PacketView): boolean {
  if (l4 + TCP.ack + 4 > end) return false;
  if (l4 + TCP.flags >= end) return readI32(bytes, l4 + TCP.ack) !== 0;
  return (bytes[l4 + TCP.flags] & TCP_ACK) !== 0;
}

function option(bytes: Uint8Array, quote: PacketView, kind: number): number {
  return findTcpOption(bytes, quote.l4 + TCP.headerBytesMin, quote.payload, kind);
}

function timestamps(bytes: Uint8Array, quote: PacketView): number {
  const found = option(bytes, quote, TCP_OPTION.timestamps);
  return found >= 0 && bytes[found + 1] === TCP_TIMESTAMPS_BYTES ? found : -1;
}

function addTo(bytes: Uint8Array, view: PacketView, quote: PacketView, at: number, delta: number): void {
  if (at + 4 > quote.end) return;
  const before = readI32(bytes, at);
  const after = (before + delta) | 0;
  writeI32(bytes, at, after);
  adjust(bytes, view, quote, at, before, after);
}

function adjust(
  bytes: Uint8Array,
  view: PacketView,
  quote: PacketView,
  at: number,
  before: number,
  after: number,
): void {
  const odd = ((at - view.l4) & 1) !== 0;
  const outerAt = view.l4 + ICMP.checksum;
  let outer = adjustChecksum32(readU16(bytes, outerAt), before, after, odd);
  const innerAt = quote.l4 + TCP.checksum;
  if (innerAt + 2 <= quote.end) {
    const was = readU16(bytes, innerAt);
    const is = adjustChecksum32(was, before, after, odd);
    writeU16(bytes, innerAt, is);
    outer = adjustChecksum32(outer, was, is, false);
  }
  writeU16(bytes, outerAt, outer);
}
