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
import { LIMITS } from '../compare/limits.ts';
import type { SlabPool } from './slabs.ts';

/** Behind a switch the silent uplink never hears most frames: of those the link brought, only the latest are remembered. */
const PASSED_ON_MAX = 1024;

export class SilentInput {
  private readonly slabs: SlabPool;
  private slab: number[] = [];
  private at: number[] = [];
  private length: number[] = [];
  private hash: number[] = [];
  private heardMs: number[] = [];
  private first = 0;
  private bytes = 0;
  /** what the link brought before the uplink: hash -> the times when, oldest first */
  private readonly ahead = new Map<number, number[]>();
  private aheadFrames = 0;

  constructor(slabs: SlabPool) {
    this.slabs = slabs;
  }

  get frames(): number {
    let count = 0;
    for (let i = this.first; i < this.slab.length; i++) if (this.slab[i] >= 0) count++;
    return count;
  }

  heard(slab: number, at: number, length: number, nowMs: number): void {
    const hash = hashBytes(this.slabs.buffer(slab), at, length);
    if (this.cameAhead(hash, nowMs)) return;
    this.slabs.retain(slab);
    this.slab.push(slab);
    this.at.push(at);
    this.length.push(length);
    this.hash.push(hash);
    this.heardMs.push(nowMs);
    this.bytes += length;
    const tooOld = nowMs - LIMITS.silentUplinkMsMax;
    while (
      this.first < this.slab.length &&
      (this.slab[this.first] < 0 ||
        this.bytes > LIMITS.silentUplinkBytesMax ||
        this.heardMs[this.first] < tooOld)
    ) {
      this.forget(this.first);
      this.first++;
    }
    if (this.first >= 1024) this.compact();
  }

  /** The primary has passed this frame on. `hash` and length are those of the frame as the client sent it. */
  passedOn(bytes: Uint8Array, at: number, length: number, nowMs: number): void {
    const hash = hashBytes(bytes, at, length);
    for (let i = this.first; i < this.slab.length; i++) {
      if (this.slab[i] < 0 || this.hash[i] !== hash || this.length[i] !== length) continue;
      this.forget(i);
      return;
    }
    if (this.aheadFrames >= LIMITS.passedOnMax) this.forgetAhead(nowMs);
    if (this.aheadFrames >= LIMITS.passedOnMax) return;
    const times = this.ahead.get(hash);
    if (times === undefined) this.ahead.set(hash, [nowMs]);
    else times.push(nowMs);
    this.aheadFrames++;
  }

  /** Hands out what the SVM never got, in order, and forgets it. */
  drain(take: (slab: number, at: number, length: number) => void): void {
    for (let i = this.first; i < this.slab.length; i++) {
      if (this.slab[i] < 0) continue;
      take(this.slab[i], this.at[i], this.length[i]);
      this.slabs.release(this.slab[i]);
    }
    this.slab = [];
    this.at = [];
    this.length = [];
    this.hash = [];
    this.heardMs = [];
    this.first = 0;
    this.bytes = 0;
    this.ahead.clear();
    this.aheadFrames = 0;
  }

  clear(): void {
    this.drain(() => {});
  }

  private cameAhead(hash: number, nowMs: number): boolean {
    const times = this.ahead.get(hash);
    if (times === undefined) return false;
    const cameMs = times.shift()!;
    this.aheadFrames--;
    if (times.length === 0) this.ahead.delete(hash);
    return nowMs - cameMs < LIMITS.silentUplinkMsMax;
  }

  /** Drops what the uplink will not bring any more: it may see less than the primary's. */
  private forgetAhead(nowMs: number): void {
    const tooOld = nowMs - LIMITS.silentUplinkMsMax;
    for (const [hash, times] of this.ahead) {
      const fresh = times.filter((cameMs) => cameMs >= tooOld);
      this.aheadFrames -= times.length - fresh.length;
      if (fresh.length === 0) this.ahead.delete(hash);
      else this.ahead.set(hash, fresh);
    }
  }

  private wasPassedOn(hash: number, length: number, nowMs: number): boolean {
    const tooOld = nowMs - LIMITS.silentUplinkMsMax;
    for (let seen = 0; seen < PASSED_ON_MAX; seen++) {
      const place = (this.passedNext + seen) % PASSED_ON_MAX;
      if (this.passedHash[place] !== hash || this.passedLength[place] !== length) continue;
      if (this.passedMs[place] < tooOld) continue;
      this.passedLength[place] = 0;
      return true;
    }
    return false;
  }

  private forget(i: number): void {
    if (this.slab[i] < 0) return;
    this.bytes -= this.length[i];
    this.slabs.release(this.slab[i]);
    this.slab[i] = -1;
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
