/** Breaks for the invariants of dropin. */
import type { Break } from './break.ts';

export const DROPIN: readonly Break[] = [];
