/** Texts or messages of which one is longer: the same follows, some bytes further on. */
import { isText, type Sent, sharedAfter } from './sent.ts';

/** Bytes after the difference that one side may have more than the other before the same follows. */
const SKIP_BYTES_MAX = 32;
/** So many equal bytes show that the same follows. */
const EQUAL_BYTES = 12;
/** Of which so many are different from each other: zeros follow zeros everywhere. */
const DISTINCT_MIN = 4;
const TEXT_BYTES = 64;

/** Returns true if the same bytes follow the difference at other distances on the two sides. */
export function isRealigned(primary: Sent, secondary: Sent): boolean {
  for (let skip = 0; skip <= SKIP_BYTES_MAX; skip++) {
    for (let other = 0; other <= SKIP_BYTES_MAX; other++) {
      if (skip !== other && followsAlike(primary, primary.at + skip, secondary, secondary.at + other))
        return true;
    }
  }
  return false;
}

/** Returns true if both sides are text around the difference and end at different distances from it. */
export function isTextOfOtherLength(primary: Sent, secondary: Sent): boolean {
  if (primary.to - primary.at === secondary.to - secondary.at) return false;
  const before = Math.min(TEXT_BYTES, primary.at - primary.from);
  const otherBefore = Math.min(TEXT_BYTES, secondary.at - secondary.from);
  if (before + sharedAfter(primary, secondary) === 0) return false;
  return (
    isText(primary, primary.at - before, before + TEXT_BYTES) &&
    isText(secondary, secondary.at - otherBefore, otherBefore + TEXT_BYTES)
  );
}

function followsAlike(primary: Sent, at: number, secondary: Sent, otherAt: number): boolean {
  if (at + EQUAL_BYTES > primary.to || otherAt + EQUAL_BYTES > secondary.to) return false;
  for (let i = 0; i < EQUAL_BYTES; i++)
    if (primary.bytes[at + i] !== secondary.bytes[otherAt + i]) return false;
  const seen = new Set<number>();
  for (let i = 0; i < EQUAL_BYTES; i++) seen.add(primary.bytes[at + i]);
  return seen.size >= DISTINCT_MIN;
}
