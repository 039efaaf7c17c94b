/** Where the payloads of two frames differ. */
import { seqAtOrBefore, seqBefore, seqDiff, seqMax } from '../flow/sequence.ts';
import type { PacketView } from '../wire/packet.ts';

/** A frame where it lies: from `at` on, `length` bytes. */
export type FrameBytes = { bytes: Uint8Array; at: number; length: number };

/** A parsed frame's payload, as its view has it. */
type Parsed = { bytes: Uint8Array; view: Pick<PacketView, 'seq' | 'payload' | 'payloadBytes'> };

/** Offsets of the first byte that differs, from the beginning of each payload. */
export type Difference = { primaryOffset: number; secondaryOffset: number };

/** Returns the first byte of the stream in which two segments differ, or null if they do not, or do not overlap. */
export function streamDifference(primary: Parsed, secondary: Parsed): Difference | null {
  const mine = primary.view;
  const theirs = secondary.view;
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
export function payloadDifference(primary: Parsed, secondary: Parsed): Difference {
  const mine = primary.view;
  const theirs = secondary.view;
  const common = Math.min(mine.payloadBytes, theirs.payloadBytes);
  const same = sameBytes(primary.bytes, mine.payload, secondary.bytes, theirs.payload, common);
  return { primaryOffset: same, secondaryOffset: same };
}

/** Returns how many bytes are the same before the first that differs. */
function sameBytes(a: Uint8Array, aAt: number, b: Uint8Array, bAt: number, length: number): number {
  let same = 0;
  while (same < length && a[aAt + same] === b[bAt + same]) same++;
  return same;
}
