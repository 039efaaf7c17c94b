/**
 * The latest TCP segments of a VM, by flow, sequence number and a sum of their first bytes: did the PVM send this SVM segment
 * at this place, or the SVM itself before?
 *
 * The answer tells whether the SVM's numbers still have to be translated. The VMs' initial sequence numbers can be close
 * together (both count by the clock, from one secret), so numbers that are near each other prove nothing. Equal bytes at
 * one place do.
 *
 * Limits: one row per hash, and the later segment replaces the earlier one. A segment that is not found proves nothing.
 */
import { readI32 } from '../wire/bytes.ts';

const ROWS = 1 << 16;
const ROW_WORDS = 3;
export const SUMMED_BYTES = 16;

export class SentSegments {
  private readonly words = new Int32Array(ROWS * ROW_WORDS);

  add(flow: number, seq: number, sum: number): void {
    const row = rowOf(flow, seq);
    this.words[row] = flow;
    this.words[row + 1] = seq;
    this.words[row + 2] = sum;
  }

  has(flow: number, seq: number, sum: number): boolean {
    const row = rowOf(flow, seq);
    return this.words[row] === flow && this.words[row + 1] === seq && this.words[row + 2] === sum;
  }
}

/** Returns a hash of a payload's length and first SUMMED_BYTES. */
export function sumOf(bytes: Uint8Array, at: number, length: number): number {
  let sum = length;
  for (let i = length & ~3; i < length && i < SUMMED_BYTES; i++)
    sum = Math.imul(sum ^ bytes[at + i], 0x01000193);
  for (let i = 0; i + 4 <= length && i < SUMMED_BYTES; i += 4)
    sum = Math.imul(sum ^ readI32(bytes, at + i), 0x01000193);
  return sum;
}

function rowOf(flow: number, seq: number): number {
  const hash = Math.imul(flow ^ Math.imul(seq, 0x9e3779b1), 0x85ebca6b);
  return (hash >>> 16) * ROW_WORDS;
}
