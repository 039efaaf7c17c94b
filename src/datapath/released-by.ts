/** Released frames by why they left. `promotion`: what the VM had sent before this node was promoted. */
import type { Comparator } from '../compare/comparator.ts';
import type { ReleaseCause } from '../compare/verdict.ts';

export type ReleasedBy = Record<ReleaseCause | 'promotion', number>;

/** Returns counts of all causes; their sum is the path's `releasedFrames`. */
export function releasedBy({ counters }: Comparator, promotion: number): ReleasedBy {
  return {
    match: counters.matched,
    made: counters.made,
    repeat: counters.repeated,
    harmless: counters.harmless,
    exempt: counters.exempt,
    commit: counters.releasedByCommit,
    alone: counters.releasedAlone,
    promotion,
  };
}
