/** Where two frames differ, and the bytes around it. */
import { seqAtOrBefore, seqBefore, seqDiff, seqMax } from '../flow/sequence.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';

export type FrameBytes = { bytes: Uint8Array; at: number; length: number };

/** The bytes from shortly before a difference on; `offset` is their place in the frame's payload. */
export type Excerpt = { offset: number; hex: string };

export type Difference = {
  /** of the secondary's frame in the list */
  index: number;
  /** where in the primary's payload, and in the secondary's */
  primaryOffset: number;
  secondaryOffset: number;
};

const BEFORE_BYTES = 8;
const EXCERPT_BYTES = 32;

/** The first byte of the stream that the primary's segment and one of the secondary's have otherwise, or null. */
export function firstStreamDifference(primary: FrameBytes, secondaries: FrameBytes[]): Difference | null {
  const mine = viewOf(primary);
  const end = (mine.seq + mine.payloadBytes) | 0;
  let first: Difference | null = null;
  for (const [index, secondary] of secondaries.entries()) {
    const theirs = viewOf(secondary);
    if (theirs.kind !== PACKET.tcp) continue;
    const theirEnd = (theirs.seq + theirs.payloadBytes) | 0;
    const from = seqMax(mine.seq, theirs.seq);
    const to = seqAtOrBefore(end, theirEnd) ? end : theirEnd;
    if (!seqBefore(from, to)) continue;
    const skip = seqDiff(from, mine.seq);
    const theirSkip = seqDiff(from, theirs.seq);
    const same = sameBytes(
      primary.bytes,
      mine.payload + skip,
      secondary.bytes,
      theirs.payload + theirSkip,
      seqDiff(to, from),
    );
    if (same === seqDiff(to, from)) continue;
    if (first !== null && first.primaryOffset <= skip + same) continue;
    first = { index, primaryOffset: skip + same, secondaryOffset: theirSkip + same };
  }
  return first;
}

/** The first byte that two payloads have otherwise; the end of the shorter one when there is none. */
export function firstPayloadDifference(primary: FrameBytes, secondary: FrameBytes): Difference {
  const mine = viewOf(primary);
  const theirs = viewOf(secondary);
  const common = Math.min(mine.payloadBytes, theirs.payloadBytes);
  const same = sameBytes(primary.bytes, mine.payload, secondary.bytes, theirs.payload, common);
  return { index: 0, primaryOffset: same, secondaryOffset: same };
}

export function excerptOf(frame: FrameBytes, payloadOffset: number): Excerpt {
  const view = viewOf(frame);
  const offset = Math.max(0, Math.min(payloadOffset - BEFORE_BYTES, view.payloadBytes));
  const from = view.payload + offset;
  const to = Math.min(from + EXCERPT_BYTES, view.payload + view.payloadBytes);
  return { offset, hex: Buffer.from(frame.bytes.subarray(from, to)).toString('hex') };
}

const FLAG_NAMES = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG'];

/** "SYN ACK", or null when it is not TCP. */
export function flagsOf(frame: FrameBytes): string | null {
  const view = viewOf(frame);
  if (view.kind !== PACKET.tcp) return null;
  return FLAG_NAMES.filter((_, bit) => (view.tcpFlags & (1 << bit)) !== 0).join(' ');
}

function sameBytes(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number, length: number): number {
  let same = 0;
  while (same < length && a[aAt + same] === b[bAt + same]) same++;
  return same;
}

function viewOf({ bytes, at, length }: FrameBytes): PacketView {
  const view = new PacketView();
  parsePacket(bytes, at, length, view);
  return view;
}
