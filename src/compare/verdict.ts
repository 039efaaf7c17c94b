/** What the comparator says of held output, and why a divergence is one. */

export const VERDICT = { match: 0, wait: 1, diverged: 2 } as const;
export type Verdict = (typeof VERDICT)[keyof typeof VERDICT];

/**
 * signed: a connection whose signature covers its sequence numbers begins; only a checkpoint makes them the same in
 * both VMs. fragments: the PVM's fragments overlap, so nobody can say what they mean.
 */
export type DivergenceReason =
  | 'diverged-bytes'
  | 'diverged-flags'
  | 'diverged-length'
  | 'diverged-signed'
  | 'diverged-fragments';

/** Why a frame left: shown in captures. */
export type ReleaseCause = 'match' | 'harmless' | 'commit' | 'alone';
