/**
 * What the SVM has said and the client has perhaps not heard: kept until the primary confirms it, so that a
 * promotion can send it at once and no client waits for a retransmission timer.
 *
 * Frames are numbered from 0 in each epoch. Confirmations come in ranges, mostly in order. A commit forgets all.
 * Limit: the comparator holds the same frames on the primary and forces a checkpoint long before this grows large.
 */
import { NO_SLAB, type SlabPool } from '../frames/slabs.ts';
import type { SlabId } from '../units.ts';

export class KeptOutput {
  private readonly slabs: SlabPool;
  private slab: SlabId[] = [];
  private at: number[] = [];
  private length: number[] = [];
  /** index of the first frame in the arrays */
  private base = 0;
  /** frames before this position were confirmed and let go */
  private first = 0;

  constructor(slabs: SlabPool) {
    this.slabs = slabs;
  }

  /** Number of the next frame. */
  get next(): number {
    return this.base + this.slab.length;
  }

  get frames(): number {
    return this.slab.length - this.first;
  }

  add(slab: SlabId, at: number, length: number): number {
    this.slabs.ref(slab);
    this.slab.push(slab);
    this.at.push(at);
    this.length.push(length);
    return this.base + this.slab.length - 1;
  }

  /** The client has frames `from` to `to`, both included. */
  confirm(from: number, to: number): void {
    const last = Math.min(to - this.base, this.slab.length - 1);
    for (let i = Math.max(from - this.base, this.first); i <= last; i++) {
      if (this.slab[i] < 0) continue;
      this.slabs.unref(this.slab[i]);
      this.slab[i] = NO_SLAB;
    }
    while (this.first < this.slab.length && this.slab[this.first] < 0) this.first++;
    if (this.first >= 4096) this.compact();
  }

  /** Hands out what was not confirmed, in order, and forgets it. */
  drain(take: (slab: SlabId, at: number, length: number) => void): void {
    for (let i = this.first; i < this.slab.length; i++) {
      if (this.slab[i] < 0) continue;
      take(this.slab[i], this.at[i], this.length[i]);
      this.slabs.unref(this.slab[i]);
    }
    this.reset();
  }

  /** Visits what was not confirmed, in order; the visitor must not add or confirm. */
  forEach(visit: (index: number, slab: SlabId, at: number, length: number) => void): void {
    for (let i = this.first; i < this.slab.length; i++)
      if (this.slab[i] >= 0) visit(this.base + i, this.slab[i], this.at[i], this.length[i]);
  }

  clear(): void {
    this.drain(() => {});
  }

  private reset(): void {
    this.slab = [];
    this.at = [];
    this.length = [];
    this.base = 0;
    this.first = 0;
  }

  private compact(): void {
    this.slab.splice(0, this.first);
    this.at.splice(0, this.first);
    this.length.splice(0, this.first);
    this.base += this.first;
    this.first = 0;
  }
}
