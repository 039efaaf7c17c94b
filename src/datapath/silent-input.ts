/**
 * Client frames that the secondary's own, silent uplink has received and the primary has not passed on yet.
 *
 * When the primary dies, the client frames that it had received and not mirrored are lost with it; the secondary's uplink
 * has received them too. They are retained here until the link brings the same frame; at a promotion the SVM gets the rest.
 *
 * Frames are matched by a hash of their bytes, each with the oldest equal one, so that equal frames pair one to one. The
 * link may be the faster of the two: then the hash of its frame is remembered until the uplink brings the frame.
 *
 * Limits: `silentUplinkBytesMax`, `silentUplinkMsMax` and `passedOnMax`; the oldest frames are dropped first (a TCP client would
 * retransmit them). A hash selects a set of SET_FRAMES places: a frame that the link brought is forgotten early only after as
 * many other frames of its set.
 */

import { invariant } from '../error.ts';
import { RetainedFrames } from '../frames/retained-frames.ts';
import type { SlabPool } from '../frames/slabs.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { type Instant, NONE, type SlabId } from '../units.ts';

const SET_FRAMES = 4;

export class SilentInput {
  private readonly slabs: SlabPool;
  private readonly limits: Limits;
  /** the tag is the frame's hash */
  private readonly list: RetainedFrames;
  /* Frames that the link brought before the uplink, in sets that their hashes select: how many equal ones, and when the
   * last one arrived. */
  private readonly aheadHash: Int32Array;
  private readonly aheadFrames: Uint32Array;
  private readonly aheadMs: Float64Array;

  constructor(slabs: SlabPool, limits: Limits = LIMITS) {
    this.slabs = slabs;
    this.limits = limits;
    this.list = new RetainedFrames(slabs);
    this.aheadHash = new Int32Array(limits.passedOnMax);
    this.aheadFrames = new Uint32Array(limits.passedOnMax);
    this.aheadMs = new Float64Array(limits.passedOnMax);
  }

  get frames(): number {
    return this.list.frames;
  }

  /** The silent uplink has received a frame. */
  receive(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const hash = hashBytes(this.slabs.buffer(slab), at, length);
    if (this.takeAhead(hash, nowMs)) return;
    const { list, limits } = this;
    list.add(slab, at, length, hash, nowMs);
    const sinceMin = nowMs - limits.silentUplinkMsMax;
    while (
      list.frames > 0 &&
      (list.bytes > limits.silentUplinkBytesMax || list.sinceOf(list.oldest) < sinceMin)
    )
      list.remove(list.oldest);
    invariant(list.bytes <= limits.silentUplinkBytesMax, 'a silent uplink retains more than its limit');
  }

  /** The primary has passed this frame on. Bytes and length are those that the client sent. */
  passedOn(bytes: Uint8Array, at: number, length: number, nowMs: Instant): void {
    const hash = hashBytes(bytes, at, length);
    const number = this.list.find(hash, length);
    if (number < 0) this.noteAhead(hash, nowMs);
    else this.list.remove(number);
  }

  /** Hands out in order what the SVM has not received, and forgets everything. */
  drain(take: (slab: SlabId, at: number, length: number) => void): void {
    this.list.drain(take);
    this.aheadFrames.fill(0);
  }

  clear(): void {
    this.drain(() => {});
  }

  /** True if the link brought this frame before the uplink did: the two are a pair. */
  private takeAhead(hash: number, nowMs: Instant): boolean {
    const place = this.placeOf(hash, nowMs);
    if (place === NONE) return false;
    this.aheadFrames[place]--;
    return true;
  }

  /** On a switch the silent uplink never receives most of what the link brings: newer frames replace the oldest. */
  private noteAhead(hash: number, nowMs: Instant): void {
    const known = this.placeOf(hash, nowMs);
    const place = known === NONE ? this.oldestOfSet(hash) : known;
    this.aheadHash[place] = hash;
    this.aheadFrames[place] = known === NONE ? 1 : this.aheadFrames[place] + 1;
    this.aheadMs[place] = nowMs;
  }

  /** Returns the place of a frame that the link brought not long ago, or NONE. */
  private placeOf(hash: number, nowMs: Instant): number {
    const { aheadHash, aheadFrames, aheadMs } = this;
    const first = this.setOf(hash);
    for (let place = first; place < first + SET_FRAMES; place++) {
      if (aheadHash[place] !== hash || aheadFrames[place] === 0) continue;
      if (nowMs - aheadMs[place] <= this.limits.silentUplinkMsMax) return place;
    }
    return NONE;
  }

  /** Returns a place of the set that no frame has, or else that of the oldest. */
  private oldestOfSet(hash: number): number {
    const { aheadFrames, aheadMs } = this;
    const first = this.setOf(hash);
    let oldest = first;
    for (let place = first; place < first + SET_FRAMES; place++) {
      if (aheadFrames[place] === 0) return place;
      if (aheadMs[place] < aheadMs[oldest]) oldest = place;
    }
    return oldest;
  }

  /** Returns the first place of the set. */
  private setOf(hash: number): number {
    return (hash & (this.limits.passedOnMax / SET_FRAMES - 1)) * SET_FRAMES;
  }
}

/** FNV-1a over the frame's first 96 and last 32 bytes: enough to tell client frames apart, and cheap for long ones. */
function hashBytes(bytes: Uint8Array, at: number, length: number): number {
  const head = Math.min(length, 96);
  let hash = 0x811c9dc5 ^ length;
  for (let i = 0; i < head; i++) hash = Math.imul(hash ^ bytes[at + i], 0x01000193);
  for (let i = Math.max(head, length - 32); i < length; i++)
    hash = Math.imul(hash ^ bytes[at + i], 0x01000193);
  return hash | 0;
}
