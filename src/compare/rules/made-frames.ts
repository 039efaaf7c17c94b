/**
 * Frames that the comparator makes out of a VM's segment: its headers, with a part of its payload or none.
 *
 * They lie one after the other in a slab of their own, each with its length prefix, so that they leave as any frame does. The slab
 * is kept until it is full or `clear` is called: `ownSlabs`.
 *
 * Limits: one slab. `cut` returns false if the pool has none.
 */
import { type Framing, LENGTH_PREFIX_BYTES, prefixBytesOf } from '../../frames/frame-reader.ts';
import { OwnSlab } from '../../frames/own-slab.ts';
import { NO_SLAB, type SlabPool } from '../../frames/slabs.ts';
import { NONE, type SlabId } from '../../units.ts';
import { writeI32 } from '../../wire/bytes.ts';
import { cutSegment, type ParsedFrame } from '../../wire/tcp-cut.ts';

export class MadeFrames {
  /* Where the last one is in `slab`. */
  at = 0;
  length = 0;
  private readonly slabs: SlabPool;
  private readonly prefixBytes: number;
  private readonly own: OwnSlab;

  constructor(slabs: SlabPool, framing: Framing) {
    this.slabs = slabs;
    this.prefixBytes = prefixBytesOf(framing);
    this.own = new OwnSlab(slabs);
  }

  get slab(): SlabId {
    return this.own.slab;
  }

  get ownSlabs(): 0 | 1 {
    return this.slab === NO_SLAB ? 0 : 1;
  }

  /** Makes a frame with the first `payloadBytes` of a segment. */
  cut(frame: ParsedFrame, payloadBytes: number): boolean {
    const { slabs, prefixBytes } = this;
    const start = this.own.take(prefixBytes + frame.view.payload + payloadBytes - frame.at);
    if (start === NONE) return false;
    const bytes = slabs.buffer(this.slab);
    this.at = start + prefixBytes;
    this.length = cutSegment(frame, payloadBytes, bytes, this.at);
    writeI32(bytes, start, this.length);
    if (prefixBytes > LENGTH_PREFIX_BYTES) writeI32(bytes, start + LENGTH_PREFIX_BYTES, frame.headerBytes);
    return true;
  }

  clear(): void {
    this.own.clear();
  }
}
