/** What the comparator says of held output, and why a divergence is one. */

export const VERDICT = { match: 0, wait: 1, diverged: 2 } as const;
export type Verdict = (typeof VERDICT)[keyof typeof VERDICT];

export type DivergenceReason = 'diverged-bytes' | 'diverged-flags' | 'diverged-length';

/** Why a frame left: shown in captures. */
export type ReleaseCause = 'match' | 'harmless' | 'commit' | 'alone';
