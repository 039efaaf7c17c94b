/**
 * What the secondary's own, silent uplink has heard and the primary has not passed on yet.
 *
 * When the primary dies, client frames that it had taken and not mirrored are lost; the secondary's uplink has heard
 * them too. They are kept here until the link brings the same frame, and on promotion the SVM gets what is left.
 *
 * Frames are matched by a hash of their bytes, each against the oldest equal one, so that equal frames pair off one to
 * one. The link may also be the quicker of the two: then the hash of what it brought waits for the uplink's frame.
 * Limits: LIMITS.silentUplinkBytesMax, -MsMax and passedOnMax; the oldest go first (a TCP client would repeat them).
 */

import { NO_SLAB, type SlabPool } from '../frames/slabs.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { Instant, SlabId } from '../units.ts';

export class SilentInput {
  private readonly slabs: SlabPool;
  private readonly limits: Limits;
  private slab: SlabId[] = [];
  private at: number[] = [];
  private length: number[] = [];
  private hash: number[] = [];
  private heardMs: number[] = [];
  private first = 0;
  private bytes = 0;
  /** what the link brought before the uplink, in the place that its hash names: how many equal ones, and when the last */
  private readonly aheadHash: Int32Array;
  private readonly aheadFrames: Uint32Array;
  private readonly aheadMs: Float64Array;

  constructor(slabs: SlabPool, limits: Limits = LIMITS) {
    this.slabs = slabs;
    this.limits = limits;
    this.aheadHash = new Int32Array(limits.passedOnMax);
    this.aheadFrames = new Uint32Array(limits.passedOnMax);
    this.aheadMs = new Float64Array(limits.passedOnMax);
  }

  get frames(): number {
    let count = 0;
    for (let i = this.first; i < this.slab.length; i++) if (this.slab[i] >= 0) count++;
    return count;
  }

  heard(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const hash = hashBytes(this.slabs.buffer(slab), at, length);
    if (this.cameAhead(hash, nowMs)) return;
    this.slabs.ref(slab);
    this.slab.push(slab);
    this.at.push(at);
    this.length.push(length);
    this.hash.push(hash);
    this.heardMs.push(nowMs);
    this.bytes += length;
    const tooOld = nowMs - this.limits.silentUplinkMsMax;
    while (
      this.first < this.slab.length &&
      (this.slab[this.first] < 0 ||
        this.bytes > this.limits.silentUplinkBytesMax ||
        this.heardMs[this.first] < tooOld)
    ) {
      this.forget(this.first);
      this.first++;
    }
    if (this.first >= 1024) this.compact();
  }

  /** The primary has passed this frame on. `hash` and length are those of the frame as the client sent it. */
  passedOn(bytes: Uint8Array, at: number, length: number, nowMs: Instant): void {
    const hash = hashBytes(bytes, at, length);
    for (let i = this.first; i < this.slab.length; i++) {
      if (this.slab[i] < 0 || this.hash[i] !== hash || this.length[i] !== length) continue;
      this.forget(i);
      return;
    }
    this.noteAhead(hash, nowMs);
  }

  /** Hands out what the SVM never got, in order, and forgets it. */
  drain(take: (slab: SlabId, at: number, length: number) => void): void {
    for (let i = this.first; i < this.slab.length; i++) {
      if (this.slab[i] < 0) continue;
      take(this.slab[i], this.at[i], this.length[i]);
      this.slabs.unref(this.slab[i]);
    }
    this.slab = [];
    this.at = [];
    this.length = [];
    this.hash = [];
    this.heardMs = [];
    this.first = 0;
    this.bytes = 0;
    this.aheadFrames.fill(0);
  }

  clear(): void {
    this.drain(() => {});
  }

  private cameAhead(hash: number, nowMs: Instant): boolean {
    const place = hash & (this.limits.passedOnMax - 1);
    if (this.aheadHash[place] !== hash || this.aheadFrames[place] === 0) return false;
    if (nowMs - this.aheadMs[place] > this.limits.silentUplinkMsMax) return false;
    this.aheadFrames[place]--;
    return true;
  }

  /** Behind a switch the silent uplink never hears most of what the link brings: newer frames take the place of older. */
  private noteAhead(hash: number, nowMs: Instant): void {
    const place = hash & (this.limits.passedOnMax - 1);
    const fresh = nowMs - this.aheadMs[place] <= this.limits.silentUplinkMsMax;
    const same = this.aheadHash[place] === hash && fresh;
    this.aheadHash[place] = hash;
    this.aheadFrames[place] = same ? this.aheadFrames[place] + 1 : 1;
    this.aheadMs[place] = nowMs;
  }

  private forget(i: number): void {
    if (this.slab[i] < 0) return;
    this.bytes -= this.length[i];
    this.slabs.unref(this.slab[i]);
    this.slab[i] = NO_SLAB;
  }

  private compact(): void {
    for (const column of [this.slab, this.at, this.length, this.hash, this.heardMs])
      column.splice(0, this.first);
    this.first = 0;
  }
}

/** FNV-1a over the frame's head and tail: enough to tell client frames apart, and cheap for large ones. */
function hashBytes(bytes: Uint8Array, at: number, length: number): number {
  const head = Math.min(length, 96);
  let hash = 0x811c9dc5 ^ length;
  for (let i = 0; i < head; i++) hash = Math.imul(hash ^ bytes[at + i], 0x01000193);
  for (let i = Math.max(head, length - 32); i < length; i++)
    hash = Math.imul(hash ^ bytes[at + i], 0x01000193);
  return hash | 0;
}
