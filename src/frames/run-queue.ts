/**
 * Frames on their way out, gathered into runs: neighbours in one slab leave as one piece of memory, with the
 * prefixes that already lie between them. Each run refs its slab once, until it is written.
 *
 * Ethernet frames have at least 60 bytes without their checksum (IEEE 802.3 clause 4.4.2), and a NIC may drop what is shorter.
 * A queue with `frameBytesMin` copies a shorter frame to a slab of its own and fills it up with zeros there; its neighbours
 * stay where they lie. If no slab is free the frame leaves as it is: the NIC may then drop it, as it may drop any frame.
 */

import { invariant } from '../error.ts';
import { NONE, type SlabId } from '../units.ts';
import { writeI32 } from '../wire/bytes.ts';
import { type Framing, prefixBytesOf } from './frame-reader.ts';
import { OwnSlab } from './own-slab.ts';
import type { SlabPool } from './slabs.ts';

export class RunQueue {
  readonly slabs: SlabPool;
  bytes = 0;
  frames = 0;
  private readonly runBytesMax: number;
  private readonly prefixBytes: number;
  private readonly frameBytesMin: number;
  private readonly padded: OwnSlab;
  private slabIds: SlabId[] = [];
  private starts: number[] = [];
  private ends: number[] = [];
  private tags: number[] = [];
  private frameCounts: number[] = [];

  /** `frameBytesMin`: shorter frames are padded, for which `framing` must be plain. */
  constructor(slabs: SlabPool, runBytesMax: number, framing: Framing = 'plain', frameBytesMin = 0) {
    invariant(frameBytesMin === 0 || framing === 'plain', 'frames with a virtio-net header are not padded');
    this.slabs = slabs;
    this.padded = new OwnSlab(slabs);
    this.frameBytesMin = frameBytesMin;
    this.prefixBytes = prefixBytesOf(framing);
    this.runBytesMax = runBytesMax;
  }

  get runs(): number {
    return this.slabIds.length;
  }

  /** Adds the frame at (slab, at, length), whose prefix lies before it. A run keeps its first frame's `tag`. */
  push(slab: SlabId, at: number, length: number, tag = 0): void {
    const padded = length < this.frameBytesMin ? this.pad(slab, at, length) : NONE;
    if (padded === NONE) this.append(slab, at, length, tag);
    else this.append(this.padded.slab, padded, this.frameBytesMin, tag);
  }

  private append(slab: SlabId, at: number, length: number, tag: number): void {
    const start = at - this.prefixBytes;
    const end = at + length;
    this.bytes += end - start;
    this.frames++;
    const last = this.slabIds.length - 1;
    if (
      last >= 0 &&
      this.slabIds[last] === slab &&
      this.ends[last] === start &&
      end - this.starts[last] <= this.runBytesMax
    ) {
      this.ends[last] = end;
      this.frameCounts[last]++;
      return;
    }
    this.slabs.ref(slab);
    this.slabIds.push(slab);
    this.starts.push(start);
    this.ends.push(end);
    this.tags.push(tag);
    this.frameCounts.push(1);
  }

  /** Hands out the oldest runs with their refs, which the taker gives back: up to `bytesMax` bytes, but at least one run. */
  drain(
    take: (slab: SlabId, start: number, end: number, tag: number) => void,
    bytesMax = Number.POSITIVE_INFINITY,
  ): void {
    if (this.slabIds.length === 1) {
      this.drainOne(take);
      return;
    }
    let runs = 0;
    let bytes = 0;
    for (; runs < this.runs; runs++) {
      const length = this.ends[runs] - this.starts[runs];
      if (runs > 0 && bytes + length > bytesMax) break;
      bytes += length;
      this.frames -= this.frameCounts[runs];
    }
    this.bytes -= bytes;
    const slabIds = this.slabIds.splice(0, runs);
    const starts = this.starts.splice(0, runs);
    const ends = this.ends.splice(0, runs);
    const tags = this.tags.splice(0, runs);
    this.frameCounts.splice(0, runs);
    const empty = this.frames === 0 && this.bytes === 0;
    invariant(empty === (this.runs === 0), 'a run queue counts other frames than it has');
    for (let i = 0; i < runs; i++) take(slabIds[i], starts[i], ends[i], tags[i]);
  }

  /** The common case, without a new list for each column. */
  private drainOne(take: (slab: SlabId, start: number, end: number, tag: number) => void): void {
    const slab = this.slabIds.pop() as SlabId;
    const start = this.starts.pop() as number;
    const end = this.ends.pop() as number;
    const tag = this.tags.pop() as number;
    this.frameCounts.pop();
    this.frames = 0;
    this.bytes = 0;
    take(slab, start, end, tag);
  }

  clear(): void {
    this.drain((slab) => this.slabs.unref(slab));
    this.padded.clear();
  }

  /** Copies a frame to the slab for padding, and fills it up. Returns its offset there, or NONE if there is no room. */
  private pad(slab: SlabId, at: number, length: number): number {
    const { slabs, padded, prefixBytes, frameBytesMin } = this;
    const start = padded.take(prefixBytes + frameBytesMin);
    if (start === NONE) return NONE;
    const bytes = slabs.buffer(padded.slab);
    const to = start + prefixBytes;
    writeI32(bytes, start, frameBytesMin);
    slabs.buffer(slab).copy(bytes, to, at, at + length);
    bytes.fill(0, to + length, to + frameBytesMin);
    return to;
  }
}
