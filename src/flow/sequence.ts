/**
 * TCP sequence numbers: 32 bits that wrap (RFC 9293 section 3.4). Kept as int32; only differences mean anything. TCP
 * timestamps wrap alike and are compared by the same functions. Neither is ever compared with a number of another type:
 * both arguments have one type, `Seq` or a plain number.
 */

/** No window is larger (RFC 7323 section 2.3): the order of numbers further apart than this is unknown. */
export const SEQ_WINDOW_MAX = 0x40000000;

/** Returns a - b on the circle: negative when `a` is before `b`. */
export function seqDiff<S extends number>(a: S, b: S): number {
  return (a - b) | 0;
}

export function seqAdd<S extends number>(a: S, n: number): S {
  return ((a + n) | 0) as S;
}

export function seqBefore<S extends number>(a: S, b: S): boolean {
  return ((a - b) | 0) < 0;
}

export function seqAtOrBefore<S extends number>(a: S, b: S): boolean {
  return ((a - b) | 0) <= 0;
}

/** Returns true if `a` is at or before `b`, by no more than a window. */
export function seqWithinWindowBefore<S extends number>(a: S, b: S): boolean {
  return (b - a) >>> 0 <= SEQ_WINDOW_MAX;
}

/** Returns the later of the two. */
export function seqMax<S extends number>(a: S, b: S): S {
  return ((a - b) | 0) >= 0 ? a : b;
}
