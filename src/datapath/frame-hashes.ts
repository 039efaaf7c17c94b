/**
 * Frames that one of two ways has brought, by their hashes, until the other way brings them.
 *
 * Limits: `passedOnMax` hashes, each for `silentUplinkMsMax`. A hash selects a set of SET_FRAMES places: a frame is forgotten early
 * only after as many other frames of its set.
 */
import { LIMITS, type Limits } from '../limits.ts';
import { type Instant, NONE } from '../units.ts';

const SET_FRAMES = 4;

export class FrameHashes {
  private readonly limits: Limits;
  /* In sets that the hashes select: how many equal frames, and when the last one arrived. */
  private readonly hashes: Int32Array;
  private readonly frames: Uint32Array;
  private readonly atMs: Float64Array;

  constructor(limits: Limits = LIMITS) {
    this.limits = limits;
    this.hashes = new Int32Array(limits.passedOnMax);
    this.frames = new Uint32Array(limits.passedOnMax);
    this.atMs = new Float64Array(limits.passedOnMax);
  }

  /** True if such a frame was noted; it is not any more. */
  take(hash: number, nowMs: Instant): boolean {
    const place = this.placeOf(hash, nowMs);
    if (place === NONE) return false;
    this.frames[place]--;
    return true;
  }

  /** One way has brought a frame. If the other way never brings most of them, newer ones replace the oldest. */
  note(hash: number, nowMs: Instant): void {
    const known = this.placeOf(hash, nowMs);
    const place = known === NONE ? this.oldestOfSet(hash) : known;
    this.hashes[place] = hash;
    this.frames[place] = known === NONE ? 1 : this.frames[place] + 1;
    this.atMs[place] = nowMs;
  }

  clear(): void {
    this.frames.fill(0);
  }

  /** Returns the place of a frame that was noted not long ago, or NONE. */
  private placeOf(hash: number, nowMs: Instant): number {
    const { hashes, frames, atMs } = this;
    const first = this.setOf(hash);
    for (let place = first; place < first + SET_FRAMES; place++) {
      if (hashes[place] !== hash || frames[place] === 0) continue;
      if (nowMs - atMs[place] <= this.limits.silentUplinkMsMax) return place;
    }
    return NONE;
  }

  /** Returns a place of the set that no frame has, or else that of the oldest. */
  private oldestOfSet(hash: number): number {
    const { frames, atMs } = this;
    const first = this.setOf(hash);
    let oldest = first;
    for (let place = first; place < first + SET_FRAMES; place++) {
      if (frames[place] === 0) return place;
      if (atMs[place] < atMs[oldest]) oldest = place;
    }
    return oldest;
  }

  /** Returns the first place of the set. */
  private setOf(hash: number): number {
    return (hash & (this.limits.passedOnMax / SET_FRAMES - 1)) * SET_FRAMES;
  }
}

/** FNV-1a over the frame's first 96 and last 32 bytes: enough to tell client frames apart, and cheap for long ones. */
export function hashFrame(bytes: Uint8Array, at: number, length: number): number {
  const head = Math.min(length, 96);
  let hash = 0x811c9dc5 ^ length;
  for (let i = 0; i < head; i++) hash = Math.imul(hash ^ bytes[at + i], 0x01000193);
  for (let i = Math.max(head, length - 32); i < length; i++)
    hash = Math.imul(hash ^ bytes[at + i], 0x01000193);
  return hash | 0;
}
