/**
 * IP fragments of one VM, put together without copying: a datagram is a chain of held frames in order of offset.
 *
 * Fragments belong together by VLAN, addresses, protocol and identification. The identification groups one VM's
 * fragments and no more: the two VMs choose their own, and cut where they like. What is compared is the datagram
 * (rules/datagram.ts), whose frames leave together. Its fragments may arrive in any order.
 *
 * Refused for good: fragments that overlap or contradict each other about the end. A receiver must drop such a
 * datagram (RFC 5722) or may read it in several ways, so two of them cannot be shown to be the same.
 *
 * Limits: `fragmentedDatagramsMax` incomplete datagrams at once, `fragmentsPerDatagramMax` fragments in each. They take
 * rows of held frames, and have the wait limits of held output (the PVM's) or of unmatched output (the SVM's).
 */
import { invariant } from '../error.ts';
import { FlowTable } from '../flow/table.ts';
import type { Limits } from '../limits.ts';
import type { FrameId } from '../units.ts';
import {
  type HeldFrames,
  NO_FRAME,
  RULE_WORD_0,
  RULE_WORD_1,
  RULE_WORD_2,
  RULE_WORD_3,
} from './held-frames.ts';

/* A fragment's columns of a held frame. */
/** its place in the datagram: first byte, and first byte after it */
export const FROM = RULE_WORD_0;
export const TO = RULE_WORD_1;
/** of the first fragment of a complete datagram: payload bytes of the whole datagram */
export const DATAGRAM_BYTES = RULE_WORD_2;
/** the next fragment of the same datagram, or NO_FRAME */
export const NEXT_FRAGMENT = RULE_WORD_3;
/** In FLAGS: the first fragment of a complete datagram. */
export const IN_FRAGMENTS = 0x200;

/** Result of `add`. `refused`: of its datagram, once. `full`: there is no room for another datagram. */
export const FRAGMENT = { waits: 0, complete: 1, refused: 2, full: 3 } as const;
export type FragmentFate = (typeof FRAGMENT)[keyof typeof FRAGMENT];

const UNKNOWN = -1;

export class Fragments {
  private readonly limits: Limits;
  private readonly frames: HeldFrames;
  /** incomplete datagrams, by key and identification */
  private readonly table: FlowTable;
  private readonly first: Int32Array;
  private readonly last: Int32Array;
  private readonly counts: Int32Array;
  private readonly bytes: Int32Array;
  /** bytes of the whole datagram; UNKNOWN until its last fragment has arrived */
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

  /** How many datagrams are incomplete. */
  get size(): number {
    return this.table.size;
  }

  /** Adds the held fragment `id`, whose FROM and TO are set; the key has the identification in its PORTS_WORD. */
  add(key: Int32Array, id: FrameId, more: boolean): FragmentFate {
    this.frames.words[id + NEXT_FRAGMENT] = NO_FRAME;
    let datagram = this.table.find(key);
    if (datagram < 0) {
      datagram = this.table.insert(key);
      if (datagram < 0) return FRAGMENT.full;
      this.first[datagram] = NO_FRAME;
      this.last[datagram] = NO_FRAME;
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

  /** Takes out a complete datagram: returns its first frame, from which NEXT_FRAGMENT leads to the others. */
  take(key: Int32Array): FrameId {
    const datagram = this.table.find(key);
    invariant(datagram >= 0, 'a datagram was taken of which no fragment is known');
    this.table.remove(datagram);
    return this.first[datagram] as FrameId;
  }

  clear(): void {
    if (this.table.size > 0) this.table.clear();
  }

  private fits(datagram: number, id: FrameId, more: boolean): boolean {
    if (++this.counts[datagram] > this.limits.fragmentsPerDatagramMax) return false;
    const { words } = this.frames;
    const end = words[id + TO];
    this.bytes[datagram] += end - words[id + FROM];
    if (more) return this.totals[datagram] === UNKNOWN || end < this.totals[datagram];
    const last = this.last[datagram];
    if (this.totals[datagram] !== UNKNOWN || (last !== NO_FRAME && words[last + TO] > end)) return false;
    this.totals[datagram] = end;
    return true;
  }

  /** Puts the fragment in its place: at the end, at the beginning, or between two others. Returns false if it overlaps one. */
  private link(datagram: number, id: FrameId): boolean {
    const { words } = this.frames;
    const first = this.first[datagram];
    const last = this.last[datagram];
    if (last === NO_FRAME || words[last + TO] <= words[id + FROM]) {
      if (last === NO_FRAME) this.first[datagram] = id;
      else words[last + NEXT_FRAGMENT] = id;
      this.last[datagram] = id;
      return true;
    }
    if (words[id + TO] <= words[first + FROM]) {
      words[id + NEXT_FRAGMENT] = first;
      this.first[datagram] = id;
      return true;
    }
    let before = first;
    while (
      words[before + NEXT_FRAGMENT] !== NO_FRAME &&
      words[words[before + NEXT_FRAGMENT] + FROM] < words[id + FROM]
    )
      before = words[before + NEXT_FRAGMENT];
    const after = words[before + NEXT_FRAGMENT];
    if (words[before + TO] > words[id + FROM]) return false;
    if (after === NO_FRAME || words[id + TO] > words[after + FROM]) return false;
    words[id + NEXT_FRAGMENT] = after;
    words[before + NEXT_FRAGMENT] = id;
    return true;
  }
}
