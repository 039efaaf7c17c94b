/**
 * IP fragments of one VM, put together without copying: a datagram is a chain of held frames in order of offset.
 *
 * Fragments belong together by VLAN, addresses, protocol and identification. The identification groups one VM's
 * fragments and no more: the two VMs choose their own, and cut where they like. What is compared is the datagram
 * (datagram.ts), whose frames leave together. They may come in any order.
 *
 * Refused for good: fragments that overlap or contradict each other about the end. A receiver must drop such a
 * datagram (RFC 5722) or may read it in several ways, so nobody can say that two of them are the same.
 *
 * Limits: `fragmentedDatagramsMax` begun at once, `fragmentsPerDatagramMax` in each. Their memory is that of held frames,
 * their time that of held output (the PVM's) or of what only the SVM said.
 */
import { FlowTable } from '../flow/table.ts';
import type { Limits } from '../limits.ts';
import { type HeldFrames, NONE, PIECE, SEQ, SEQ_END } from './held-frames.ts';

/** What became of a fragment. `full`: there is no room for another datagram. */
export const FRAGMENT = { waits: 0, complete: 1, refused: 2, full: 3 } as const;
export type FragmentFate = (typeof FRAGMENT)[keyof typeof FRAGMENT];

const UNKNOWN = -1;

export class Fragments {
  private readonly limits: Limits;
  private readonly frames: HeldFrames;
  /** datagrams of which something is missing */
  private readonly table: FlowTable;
  private readonly first: Int32Array;
  private readonly last: Int32Array;
  private readonly counts: Int32Array;
  private readonly bytes: Int32Array;
  /** UNKNOWN until the last fragment has come */
  private readonly totals: Int32Array;
  private readonly refused: Uint8Array;

  constructor(frames: HeldFrames, hashSeed: number, limits: Limits) {
    const max = limits.fragmentedDatagramsMax;
    this.limits = limits;
    this.frames = frames;
    this.table = new FlowTable(max, hashSeed);
    this.first = new Int32Array(max);
    this.last = new Int32Array(max);
    this.counts = new Int32Array(max);
    this.bytes = new Int32Array(max);
    this.totals = new Int32Array(max);
    this.refused = new Uint8Array(max);
  }

  /** Datagrams of which something is missing. */
  get size(): number {
    return this.table.size;
  }

  /** The held fragment `id`, whose SEQ and SEQ_END say where it lies; the key has the identification in its last word. */
  add(key: Int32Array, id: number, more: boolean): FragmentFate {
    this.frames.words[id + PIECE] = NONE;
    let datagram = this.table.find(key);
    if (datagram < 0) {
      datagram = this.table.insert(key);
      if (datagram < 0) return FRAGMENT.full;
      this.first[datagram] = NONE;
      this.last[datagram] = NONE;
      this.counts[datagram] = 0;
      this.bytes[datagram] = 0;
      this.totals[datagram] = UNKNOWN;
      this.refused[datagram] = 0;
    }
    if (this.refused[datagram] !== 0) return FRAGMENT.waits;
    if (!this.fits(datagram, id, more) || !this.link(datagram, id)) {
      this.refused[datagram] = 1;
      return FRAGMENT.refused;
    }
    return this.bytes[datagram] === this.totals[datagram] ? FRAGMENT.complete : FRAGMENT.waits;
  }

  /** The first of a complete datagram's frames; PIECE leads to the others. The datagram is in here no longer. */
  take(key: Int32Array): number {
    const datagram = this.table.find(key);
    this.table.remove(datagram);
    return this.first[datagram];
  }

  clear(): void {
    if (this.table.size > 0) this.table.clear();
  }

  private fits(datagram: number, id: number, more: boolean): boolean {
    if (++this.counts[datagram] > this.limits.fragmentsPerDatagramMax) return false;
    const { words } = this.frames;
    const end = words[id + SEQ_END];
    this.bytes[datagram] += end - words[id + SEQ];
    if (more) return this.totals[datagram] === UNKNOWN || end < this.totals[datagram];
    const last = this.last[datagram];
    if (this.totals[datagram] !== UNKNOWN || (last !== NONE && words[last + SEQ_END] > end)) return false;
    this.totals[datagram] = end;
    return true;
  }

  /** Puts the fragment in its place: at the end, at the beginning, or wherever it has to go. */
  private link(datagram: number, id: number): boolean {
    const { words } = this.frames;
    const first = this.first[datagram];
    const last = this.last[datagram];
    if (last === NONE || words[last + SEQ_END] <= words[id + SEQ]) {
      if (last === NONE) this.first[datagram] = id;
      else words[last + PIECE] = id;
      this.last[datagram] = id;
      return true;
    }
    if (words[id + SEQ_END] <= words[first + SEQ]) {
      words[id + PIECE] = first;
      this.first[datagram] = id;
      return true;
    }
    let before = first;
    while (words[before + PIECE] !== NONE && words[words[before + PIECE] + SEQ] < words[id + SEQ])
      before = words[before + PIECE];
    const after = words[before + PIECE];
    if (words[before + SEQ_END] > words[id + SEQ]) return false;
    if (after === NONE || words[id + SEQ_END] > words[after + SEQ]) return false;
    words[id + PIECE] = after;
    words[before + PIECE] = id;
    return true;
  }
}
