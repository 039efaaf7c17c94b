/**
 * Client frames that the secondary's own, silent uplink has received and the primary has not passed on yet.
 *
 * When the primary dies, the client frames that it had received and not mirrored are lost with it; the secondary's uplink
 * has received them too. They are retained here until the link brings the same frame; at a promotion the SVM gets the rest.
 *
 * Frames are matched by a hash of their bytes, each with the oldest equal one, so that equal frames pair one to one. The
 * link may be the faster of the two: then the hash of its frame is remembered until the uplink brings the frame.
 *
 * Limits: `silentUplinkBytesMax` and `silentUplinkMsMax`; the oldest frames are dropped first (a TCP client would retransmit them).
 * Those of frames that the link brought first are in frame-hashes.ts.
 */

import { invariant } from '../error.ts';
import { RetainedFrames } from '../frames/retained-frames.ts';
import type { SlabPool } from '../frames/slabs.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { Instant, SlabId } from '../units.ts';
import { FrameHashes, hashFrame } from './frame-hashes.ts';

export class SilentInput {
  private readonly slabs: SlabPool;
  private readonly limits: Limits;
  /** the tag is the frame's hash */
  private readonly list: RetainedFrames;
  /** frames that the link brought before the uplink */
  readonly ahead: FrameHashes;

  constructor(slabs: SlabPool, limits: Limits = LIMITS) {
    this.slabs = slabs;
    this.limits = limits;
    this.list = new RetainedFrames(slabs);
    this.ahead = new FrameHashes(limits);
  }

  get frames(): number {
    return this.list.frames;
  }

  /** The silent uplink has received a frame. */
  receive(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const hash = hashFrame(this.slabs.buffer(slab), at, length);
    if (this.ahead.take(hash, nowMs)) return;
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
    const hash = hashFrame(bytes, at, length);
    const number = this.list.find(hash, length);
    if (number < 0) this.ahead.note(hash, nowMs);
    else this.list.remove(number);
  }

  /** Hands out in order what the SVM has not received, and forgets it. */
  drain(take: (slab: SlabId, at: number, length: number) => void): void {
    this.list.drain(take);
  }

  clear(): void {
    this.drain(() => {});
    this.ahead.clear();
  }
}
