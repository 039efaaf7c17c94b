/** Where two frames differ, and the bytes around the difference. */
import { seqAtOrBefore, seqBefore, seqDiff, seqMax } from '../flow/sequence.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';

export type FrameBytes = { bytes: Uint8Array; at: number; length: number };

/** The bytes around a difference; `offset` is their place in the frame's payload. */
export type Excerpt = { offset: number; hex: string };

/** Where two payloads differ. */
export type Difference = { primaryOffset: number; secondaryOffset: number };

const BEFORE_BYTES = 8;
const EXCERPT_BYTES = 32;

/** Returns the first byte of the stream in which two segments differ, or null if they do not, or do not overlap. */
export function firstStreamDifference(primary: FrameBytes, secondary: FrameBytes): Difference | null {
  const mine = viewOf(primary);
  const theirs = viewOf(secondary);
  const from = seqMax(mine.seq, theirs.seq);
  const end = (mine.seq + mine.payloadBytes) | 0;
  const theirEnd = (theirs.seq + theirs.payloadBytes) | 0;
  const to = seqAtOrBefore(end, theirEnd) ? end : theirEnd;
  if (!seqBefore(from, to)) return null;
  const length = seqDiff(to, from);
  const skip = seqDiff(from, mine.seq);
  const theirSkip = seqDiff(from, theirs.seq);
  const same = sameBytes(
    primary.bytes,
    mine.payload + skip,
    secondary.bytes,
    theirs.payload + theirSkip,
    length,
  );
  return same === length ? null : { primaryOffset: skip + same, secondaryOffset: theirSkip + same };
}

/** Returns the first byte in which two payloads differ, or the end of the shorter one if none does. */
export function firstPayloadDifference(primary: FrameBytes, secondary: FrameBytes): Difference {
  const mine = viewOf(primary);
  const theirs = viewOf(secondary);
  const common = Math.min(mine.payloadBytes, theirs.payloadBytes);
  const same = sameBytes(primary.bytes, mine.payload, secondary.bytes, theirs.payload, common);
  return { primaryOffset: same, secondaryOffset: same };
}

/** Returns up to EXCERPT_BYTES of the payload, from BEFORE_BYTES before `payloadOffset` on. */
export function excerptOf(frame: FrameBytes, payloadOffset: number): Excerpt {
  const view = viewOf(frame);
  const offset = Math.max(0, Math.min(payloadOffset - BEFORE_BYTES, view.payloadBytes));
  const from = view.payload + offset;
  const to = Math.min(from + EXCERPT_BYTES, view.payload + view.payloadBytes);
  return { offset, hex: Buffer.from(frame.bytes.subarray(from, to)).toString('hex') };
}

const FLAG_NAMES = ['FIN', 'SYN', 'RST', 'PSH', 'ACK', 'URG'];

/** Returns the flags of a TCP segment, as in "SYN ACK"; null for other frames. */
export function flagsOf(frame: FrameBytes): string | null {
  const view = viewOf(frame);
  if (view.kind !== PACKET.tcp) return null;
  return FLAG_NAMES.filter((_, bit) => (view.tcpFlags & (1 << bit)) !== 0).join(' ');
}

/** Returns how many bytes are the same before the first that differs. */
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
