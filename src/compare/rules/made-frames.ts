/**
 * Frames that the comparator makes out of a VM's segment: its headers, with a part of its payload or none.
 *
 * They lie one after the other in a slab of their own, each with its length prefix, so that they leave as any frame does. The slab
 * is kept until it is full or `clear` is called: `ownSlabs`.
 *
 * Limits: one slab. `cut` returns false if the pool has none.
 */
import { type Framing, prefixBytesOf } from '../../frames/frame-reader.ts';
import { NO_SLAB, type SlabPool } from '../../frames/slabs.ts';
import type { SlabId } from '../../units.ts';
import { writeI32 } from '../../wire/bytes.ts';
import { cutSegment, type ParsedFrame } from '../../wire/tcp-cut.ts';

export class MadeFrames {
  /** where the last one is */
  slab: SlabId = NO_SLAB;
  at = 0;
  length = 0;
  private readonly slabs: SlabPool;
  private readonly prefixBytes: number;
  private filled = 0;

  constructor(slabs: SlabPool, framing: Framing) {
    this.slabs = slabs;
    this.prefixBytes = prefixBytesOf(framing);
  }

  get ownSlabs(): 0 | 1 {
    return this.slab === NO_SLAB ? 0 : 1;
  }

  /** Makes a frame with the first `payloadBytes` of a segment. */
  cut(frame: ParsedFrame, payloadBytes: number): boolean {
    const { slabs, prefixBytes } = this;
    const bytesMax = prefixBytes + frame.view.payload + payloadBytes - frame.at;
    if (this.slab === NO_SLAB || this.filled + bytesMax > slabs.slabBytes) {
      this.clear();
      this.slab = slabs.acquire();
      if (this.slab === NO_SLAB || bytesMax > slabs.slabBytes) return false;
    }
    const bytes = slabs.buffer(this.slab);
    this.at = this.filled + prefixBytes;
    this.length = cutSegment(frame, payloadBytes, bytes, this.at);
    writeI32(bytes, this.filled, this.length);
    if (prefixBytes > 4) writeI32(bytes, this.at - 4, frame.headerBytes);
    this.filled = this.at + this.length;
    return true;
  }

  clear(): void {
    if (this.slab !== NO_SLAB) this.slabs.unref(this.slab);
    this.slab = NO_SLAB;
    this.filled = 0;
  }
}
