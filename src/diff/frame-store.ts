/**
 * The recorded frames that a replay still needs: PVM frames while the comparator holds them, and SVM frames until the
 * comparator confirms them.
 *
 * A recorded frame is copied into the slab that is being filled. PVM frames are found by their place, SVM frames by their
 * number. When KEPT_SLABS_MAX slabs are in use, retained SVM frames are copied out of theirs: single ones would pin
 * whole slabs. Held PVM frames pin theirs, and the comparator's limits bound them.
 */
import { FRAME_BYTES_MAX } from '../capture/captured-frame.ts';
import type { FrameBytes } from '../divergence/difference.ts';
import { invariant } from '../error.ts';
import { NO_SLAB, SlabPool } from '../frames/slabs.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { SlabId } from '../units.ts';
import type { StoredFrame } from './flow-record.ts';
import { copied } from './recorded-frame.ts';

const KEPT_SLABS_MAX = 64;
/** SVM frames that clients have not been sent: twice what the comparator queues. */
const RETAINED_MAX = 32_768;

invariant(FRAME_BYTES_MAX <= LIMITS.slabBytes, 'a captured frame may be larger than a slab');
invariant(
  LIMITS.heldSecondaryMax < RETAINED_MAX,
  'the comparator may queue more SVM frames than a replay retains',
);

export class FrameStore {
  readonly slabs: SlabPool;
  /** PVM frames by place, in order of arrival. */
  readonly held = new Map<number, StoredFrame>();
  /** SVM frames by number, in order of arrival. */
  readonly retained = new Map<number, StoredFrame>();
  /** The slab that is being filled. */
  slab: SlabId = NO_SLAB;
  private filled = 0;
  private nextIndex = 0;

  constructor({ slabBytes, slabsMax }: Limits) {
    this.slabs = new SlabPool(slabBytes, slabsMax);
  }

  get isFull(): boolean {
    return this.retained.size > RETAINED_MAX;
  }

  /** Copies a frame into `slab` and returns its place there. */
  place({ bytes, at, length }: FrameBytes): number {
    if (this.slab < 0 || this.filled + length > this.slabs.slabBytes) {
      if (this.slab >= 0) this.slabs.unref(this.slab);
      if (this.slabs.inUse >= KEPT_SLABS_MAX) this.moveOut();
      this.slab = this.slabs.acquire();
      invariant(this.slab >= 0, 'held output pinned all slabs without a checkpoint being asked for');
      this.filled = 0;
    }
    const to = this.filled;
    this.slabs.buffer(this.slab).set(bytes.subarray(at, at + length), to);
    this.filled = to + length;
    return to;
  }

  /** Gives back the place of a frame, if none was placed after it. */
  unplace(slab: SlabId, at: number, length: number): void {
    if (slab === this.slab && at + length === this.filled) this.filled = at;
  }

  hold(frame: StoredFrame): void {
    this.held.set(this.keyOf(frame.slab, frame.at), frame);
    frame.flow.held.add(frame);
  }

  heldAt(slab: SlabId, at: number): StoredFrame {
    const frame = this.held.get(this.keyOf(slab, at));
    invariant(frame !== undefined, 'the comparator names a PVM frame that the replay does not hold');
    return frame;
  }

  /** The comparator has released a PVM frame. */
  release(frame: StoredFrame): void {
    this.held.delete(this.keyOf(frame.slab, frame.at));
    frame.flow.held.delete(frame);
  }

  retain(frame: StoredFrame): void {
    frame.index = this.nextIndex++;
    this.slabs.ref(frame.slab);
    this.retained.set(frame.index, frame);
    frame.flow.retained.add(frame);
  }

  forget(frame: StoredFrame): void {
    const known = this.retained.delete(frame.index);
    invariant(known, 'an SVM frame was forgotten twice');
    frame.flow.retained.delete(frame);
    if (frame.bytes === null) this.slabs.unref(frame.slab);
  }

  copyOf(frame: StoredFrame): Uint8Array {
    const { bytes, at, length } = this.bytesOf(frame);
    return copied(bytes, at, at + length);
  }

  bytesOf(frame: StoredFrame): FrameBytes {
    if (frame.bytes !== null) return { bytes: frame.bytes, at: 0, length: frame.length };
    return { bytes: this.slabs.buffer(frame.slab), at: frame.at, length: frame.length };
  }

  /** Places a retained frame in a slab again if it was copied out of its own. */
  moveIn(frame: StoredFrame): void {
    if (frame.bytes === null) return;
    frame.at = this.place({ bytes: frame.bytes, at: 0, length: frame.length });
    frame.slab = this.slab;
    frame.bytes = null;
    this.slabs.ref(frame.slab);
  }

  private moveOut(): void {
    for (const frame of this.retained.values()) {
      if (frame.bytes !== null) continue;
      frame.bytes = this.copyOf(frame);
      this.slabs.unref(frame.slab);
    }
  }

  private keyOf(slab: SlabId, at: number): number {
    return slab * this.slabs.slabBytes + at;
  }
}
