/** Breaks for the invariants of translate. */
import type { Break } from './break.ts';

export const TRANSLATE: readonly Break[] = [];
