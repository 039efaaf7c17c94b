/** A TCP segment on the wire: reads one into a reused object, and writes a header with its options. */
import { get16, get32, put16, put32 } from './packets.ts';

export const FIN = 1;
export const SYN = 2;
export const RST = 4;
export const PSH = 8;
export const ACK = 16;

const HEADER_BYTES = 20;
const OPTION = { end: 0, nop: 1, mss: 2, sackPermitted: 4, sack: 5, timestamps: 8 };

/** A received segment; reused. */
export class Segment {
  frame: Uint8Array = new Uint8Array(0);
  sourcePort = 0;
  destinationPort = 0;
  seq = 0;
  ack = 0;
  flags = 0;
  window = 0;
  payloadAt = 0;
  payloadBytes = 0;
  /** 0 if the option is missing */
  mss = 0;
  sackPermitted = false;
  hasTimestamps = false;
  tsVal = 0;
  tsEcr = 0;

  /** Reads the segment between `at` and `end`, which `IpPacket` has checked. */
  read(frame: Uint8Array, at: number, end: number): void {
    const optionsEnd = at + ((frame[at + 12] >> 4) << 2);
    this.frame = frame;
    this.sourcePort = get16(frame, at);
    this.destinationPort = get16(frame, at + 2);
    this.seq = get32(frame, at + 4);
    this.ack = get32(frame, at + 8);
    this.flags = frame[at + 13];
    this.window = get16(frame, at + 14);
    this.payloadAt = optionsEnd;
    this.payloadBytes = end - optionsEnd;
    this.mss = 0;
    this.sackPermitted = false;
    this.hasTimestamps = false;
    for (let o = at + HEADER_BYTES; o < optionsEnd && frame[o] !== OPTION.end; ) {
      if (frame[o] === OPTION.nop) {
        o += 1;
        continue;
      }
      const length = frame[o + 1];
      if (length < 2 || o + length > optionsEnd) return;
      if (frame[o] === OPTION.mss && length === 4) this.mss = get16(frame, o + 2);
      else if (frame[o] === OPTION.sackPermitted && length === 2) this.sackPermitted = true;
      else if (frame[o] === OPTION.timestamps && length === 10) {
        this.hasTimestamps = true;
        this.tsVal = get32(frame, o + 2);
        this.tsEcr = get32(frame, o + 6);
      }
      o += length;
    }
  }
}

/** The header of a segment to be sent, ports left out. */
export type Header = {
  readonly flags: number;
  readonly seq: number;
  readonly ack: number;
  readonly window: number;
  /** 0: without the option */
  readonly mss: number;
  readonly sackPermitted: boolean;
  readonly hasTimestamps: boolean;
  readonly tsVal: number;
  readonly tsEcr: number;
  /** Edges of the blocks, two each; empty: without the option. */
  readonly sackBlocks: readonly number[];
};

/** Returns the header's length; options are padded as Linux does. */
export function headerBytesOf({ mss, sackPermitted, hasTimestamps, sackBlocks }: Header): number {
  const permitted = sackPermitted ? (hasTimestamps ? 2 : 4) : 0;
  const timestamps = hasTimestamps ? (sackPermitted ? 10 : 12) : 0;
  const sack = sackBlocks.length > 0 ? 4 + 4 * sackBlocks.length : 0;
  return HEADER_BYTES + (mss > 0 ? 4 : 0) + permitted + timestamps + sack;
}

/** Writes all of the header but ports and checksum at `at`. Returns the place after it. */
export function writeHeader(frame: Uint8Array, at: number, header: Header): number {
  const { flags, mss, sackPermitted, hasTimestamps, sackBlocks } = header;
  put32(frame, at + 4, header.seq);
  put32(frame, at + 8, header.ack);
  frame[at + 12] = headerBytesOf(header) << 2;
  frame[at + 13] = flags;
  put16(frame, at + 14, header.window);
  let o = at + HEADER_BYTES;
  if (mss > 0) {
    frame[o] = OPTION.mss;
    frame[o + 1] = 4;
    put16(frame, o + 2, mss);
    o += 4;
  }
  if (sackPermitted) {
    frame[o] = OPTION.sackPermitted;
    frame[o + 1] = 2;
    o += 2;
    if (!hasTimestamps) o = nops(frame, o);
  }
  if (hasTimestamps) {
    if (!sackPermitted) o = nops(frame, o);
    frame[o] = OPTION.timestamps;
    frame[o + 1] = 10;
    put32(frame, o + 2, header.tsVal);
    put32(frame, o + 6, header.tsEcr);
    o += 10;
  }
  if (sackBlocks.length > 0) {
    o = nops(frame, o);
    frame[o] = OPTION.sack;
    frame[o + 1] = 2 + 4 * sackBlocks.length;
    for (let i = 0; i < sackBlocks.length; i++) put32(frame, o + 2 + 4 * i, sackBlocks[i]);
    o += 2 + 4 * sackBlocks.length;
  }
  return o;
}

/** Two of them, so that what follows is aligned. */
function nops(frame: Uint8Array, at: number): number {
  frame[at] = OPTION.nop;
  frame[at + 1] = OPTION.nop;
  return at + 2;
}
