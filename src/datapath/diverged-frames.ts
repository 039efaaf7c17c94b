/**
 * For a capture: the comments of held frames that differ from the SVM's, by their place. There is at most one for each flow, so
 * there are fewer than held frames. `clear` when a commit has released them.
 */
import type { Divergence } from '../divergence/explained.ts';
import type { SlabId } from '../units.ts';

const SLAB = 2 ** 32;

export class DivergedFrames {
  private readonly comments = new Map<number, string>();

  add(slab: SlabId, at: number, { reason, class: one, why }: Divergence): void {
    this.comments.set(slab * SLAB + at, `commit, ${reason}, ${one}: ${why}`);
  }

  /** Returns the comment of a frame that a commit releases. */
  commentOf(slab: SlabId, at: number): string {
    return this.comments.get(slab * SLAB + at) ?? 'commit';
  }

  clear(): void {
    this.comments.clear();
  }
}
