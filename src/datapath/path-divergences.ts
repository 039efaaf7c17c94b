/**
 * The divergences of a primary's path: explains them (divergence/explainer.ts), and while a capture runs knows the held frames that
 * differ by their place, for the comments. There is at most one such frame for each flow, so there are fewer than held frames.
 *
 * `settle` before a commit releases them, `clear` after it.
 */
import type { Comparator, ComparatorSink } from '../compare/comparator.ts';
import type { Divergence } from '../divergence/explained.ts';
import { Explainer } from '../divergence/explainer.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { SlabId } from '../units.ts';

const SLAB = 2 ** 32;

export class PathDivergences {
  private readonly comparator: Comparator;
  private readonly explainer: Explainer;
  private readonly captured = new Map<number, Divergence>();

  constructor(comparator: Comparator, slabs: SlabPool, settled: (divergence: Divergence) => void) {
    this.comparator = comparator;
    this.explainer = new Explainer(comparator, slabs, 'plain', settled);
  }

  /** Explains what the comparator's sink was notified of. */
  explain(
    capture: 'captured' | 'not-captured',
    ...[key, reason, primary, secondary]: Parameters<ComparatorSink['diverged']>
  ): Divergence {
    const { frames } = this.comparator;
    const divergence = this.explainer.explain(key, reason, primary, secondary);
    if (capture === 'captured')
      this.captured.set(placeOf(frames.slabOf(primary), frames.offsetOf(primary)), divergence);
    return divergence;
  }

  /** The epoch ends, and everything is still held. */
  settle(): void {
    this.explainer.settle();
  }

  /** Returns the comment of a frame that a commit releases. */
  commentOf(slab: SlabId, at: number): string {
    const divergence = this.captured.get(placeOf(slab, at));
    if (divergence === undefined) return 'commit';
    const { reason, class: one, why } = divergence;
    return `commit, ${reason}, ${one}: ${why}`;
  }

  clear(): void {
    this.captured.clear();
  }
}

const placeOf = (slab: SlabId, at: number): number => slab * SLAB + at;
