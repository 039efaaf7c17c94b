/**
 * The latest TCP segments of the primary VM, by flow, place and first bytes: was this one of the secondary's said there?
 *
 * It tells whether a secondary's numbers have to be translated still. The two VMs' initial numbers can be close together
 * (they count by the clock, from one secret), so that being near proves nothing. Bytes that lie at one place do.
 *
 * Limits: one row per hash, the later segment wins; a segment that is not found proves nothing.
 */
import { readI32 } from '../wire/bytes.ts';

const ROWS = 1 << 16;
const ROW_WORDS = 3;
const LOOK_BYTES = 16;

export class SaidSegments {
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

/** Of a payload's first bytes and length. */
export function sumOf(bytes: Uint8Array, at: number, length: number): number {
  let sum = length;
  for (let i = 0; i + 4 <= length && i < LOOK_BYTES; i += 4)
    sum = Math.imul(sum ^ readI32(bytes, at + i), 0x01000193);
  return sum;
}

function rowOf(flow: number, seq: number): number {
  const hash = Math.imul(flow ^ Math.imul(seq, 0x9e3779b1), 0x85ebca6b);
  return (hash >>> 16) * ROW_WORDS;
}
