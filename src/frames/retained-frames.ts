/**
 * A list of retained frames, oldest first: each one refs its slab until it is removed or drained.
 *
 * Frames are numbered in the order in which they are added, from 0 after each `clear`; any one can be removed by its number.
 * Removed frames leave a gap that is closed in bulk, so adding and removing cost constant time. Beside its place a frame has
 * a tag and a time, whose meaning is the owner's. The list has no limit of its own: its owner knows one.
 */
import { invariant } from '../error.ts';
import type { SlabId } from '../units.ts';
import { NO_SLAB, type SlabPool } from './slabs.ts';

/** The columns are compacted when this many places before the oldest frame are unused. */
const COMPACT_AT = 1024;

export class RetainedFrames {
  /** how many frames are retained, and their bytes */
  frames = 0;
  bytes = 0;
  private readonly slabs: SlabPool;
  /* Columns; a removed frame has NO_SLAB. */
  private slab: SlabId[] = [];
  private at: number[] = [];
  private length: number[] = [];
  private tag: number[] = [];
  private sinceMs: number[] = [];
  /** number of the frame in place 0 */
  private base = 0;
  /** every place before this one is unused */
  private first = 0;

  constructor(slabs: SlabPool) {
    this.slabs = slabs;
  }

  /** Number that the next frame gets. */
  get next(): number {
    return this.base + this.slab.length;
  }

  /** Number of the oldest retained frame; `next` when there is none. */
  get oldest(): number {
    return this.base + this.first;
  }

  /** Retains a frame; returns its number. */
  add(slab: SlabId, at: number, length: number, tag = 0, sinceMs = 0): number {
    this.slabs.ref(slab);
    this.slab.push(slab);
    this.at.push(at);
    this.length.push(length);
    this.tag.push(tag);
    this.sinceMs.push(sinceMs);
    this.frames++;
    this.bytes += length;
    return this.next - 1;
  }

  /** Whether frame `number`, from `oldest` on, is still retained. */
  has(number: number): boolean {
    return this.slab[number - this.base] >= 0;
  }

  /** When frame `number`, which must be retained, was added: the time that its owner gave. */
  sinceOf(number: number): number {
    return this.sinceMs[number - this.base];
  }

  /** The tag of frame `number`, which must be retained. */
  tagOf(number: number): number {
    return this.tag[number - this.base];
  }

  /** Number of the oldest frame with this tag and length; -1 when there is none. */
  find(tag: number, length: number): number {
    for (let i = this.first; i < this.slab.length; i++)
      if (this.slab[i] >= 0 && this.tag[i] === tag && this.length[i] === length) return this.base + i;
    return -1;
  }

  /** Removes the frames numbered `from` to `to`, both included, as far as they are retained. */
  remove(from: number, to = from): void {
    const last = Math.min(to - this.base, this.slab.length - 1);
    for (let i = Math.max(from - this.base, this.first); i <= last; i++) this.removeAt(i);
    this.closeGap();
  }

  /** Hands out the oldest frames, up to `framesMax` of them, and removes them. `take` neither adds nor removes. */
  takeOldest(framesMax: number, take: (slab: SlabId, at: number, length: number, tag: number) => void): void {
    for (let left = framesMax; left > 0 && this.frames > 0; left--) {
      const i = this.first;
      take(this.slab[i], this.at[i], this.length[i], this.tag[i]);
      this.remove(this.base + i);
    }
    if (this.frames === 0) this.clear();
  }

  /** Hands out in order the frames whose tag `isWanted`, and removes them. Neither callback adds or removes. */
  takeWhere(
    isWanted: (tag: number) => boolean,
    take: (slab: SlabId, at: number, length: number, tag: number) => void,
  ): void {
    for (let i = this.first; i < this.slab.length; i++) {
      if (this.slab[i] < 0 || !isWanted(this.tag[i])) continue;
      take(this.slab[i], this.at[i], this.length[i], this.tag[i]);
      this.removeAt(i);
    }
    this.closeGap();
    if (this.frames === 0) this.clear();
  }

  /** Hands out every frame in order, and empties the list first: a frame that `take` adds stays in it. */
  drain(take: (slab: SlabId, at: number, length: number, tag: number) => void): void {
    const { slab, at, length, tag, first } = this;
    this.slab = [];
    this.at = [];
    this.length = [];
    this.tag = [];
    this.sinceMs = [];
    this.base = 0;
    this.first = 0;
    this.frames = 0;
    this.bytes = 0;
    for (let i = first; i < slab.length; i++) {
      if (slab[i] < 0) continue;
      take(slab[i], at[i], length[i], tag[i]);
      this.slabs.unref(slab[i]);
    }
  }

  /** Visits every frame in order; the visitor neither adds nor removes. */
  forEach(visit: (number: number, slab: SlabId, at: number, length: number) => void): void {
    const { frames } = this;
    for (let i = this.first; i < this.slab.length; i++)
      if (this.slab[i] >= 0) visit(this.base + i, this.slab[i], this.at[i], this.length[i]);
    invariant(this.frames === frames, 'retained frames changed while they were visited');
  }

  clear(): void {
    this.drain(() => {});
    invariant(this.frames === 0 && this.bytes === 0, 'cleared frames are still counted');
  }

  private closeGap(): void {
    while (this.first < this.slab.length && this.slab[this.first] < 0) this.first++;
    if (this.first >= COMPACT_AT) this.compact();
  }

  private removeAt(i: number): void {
    if (this.slab[i] < 0) return;
    this.frames--;
    this.bytes -= this.length[i];
    this.slabs.unref(this.slab[i]);
    this.slab[i] = NO_SLAB;
  }

  private compact(): void {
    for (const column of [this.slab, this.at, this.length, this.tag, this.sinceMs])
      column.splice(0, this.first);
    this.base += this.first;
    this.first = 0;
  }
}
