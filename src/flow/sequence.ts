/**
 * TCP sequence numbers: 32 bits that wrap (RFC 9293 section 3.4). Kept as int32; only differences mean anything.
 */

/** No window is larger (RFC 7323 section 2.3): numbers further apart than this say nothing about each other. */
export const SEQ_WINDOW_MAX = 0x40000000;

/** a - b on the circle: negative when `a` is before `b`. */
export function seqDiff(a: number, b: number): number {
  return (a - b) | 0;
}

export function seqAdd(a: number, n: number): number {
  return (a + n) | 0;
}

export function seqBefore(a: number, b: number): boolean {
  return ((a - b) | 0) < 0;
}

export function seqAtOrBefore(a: number, b: number): boolean {
  return ((a - b) | 0) <= 0;
}

/** Is `a` at or before `b`, by no more than a window? */
export function seqWithinWindowBefore(a: number, b: number): boolean {
  return (b - a) >>> 0 <= SEQ_WINDOW_MAX;
}

export function seqMax(a: number, b: number): number {
  return ((a - b) | 0) >= 0 ? a : b;
}
