/** Breaks for the invariants of link, io, config, capture and cli. */
import type { Break } from './break.ts';

export const LINK: readonly Break[] = [];
