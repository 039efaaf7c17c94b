/**
 * A slab that its owner fills from the beginning, with copies of frames or with frames that it makes. They leave as any frame
 * does: the queue that they wait in refs the slab.
 *
 * Limits: one slab. When it is full, the owner unrefs it and acquires another one.
 */
import { NONE, type SlabId } from '../units.ts';
import { NO_SLAB, type SlabPool } from './slabs.ts';

export class OwnSlab {
  slab: SlabId = NO_SLAB;
  private readonly slabs: SlabPool;
  private filled = 0;

  constructor(slabs: SlabPool) {
    this.slabs = slabs;
  }

  /** Returns the offset in `slab` of `bytes` bytes that are free, and takes them; or NONE if the pool has no slab for them. */
  take(bytes: number): number {
    const { slabs } = this;
    if (bytes > slabs.slabBytes) return NONE;
    if (this.slab === NO_SLAB || this.filled + bytes > slabs.slabBytes) {
      this.clear();
      this.slab = slabs.acquire();
      if (this.slab === NO_SLAB) return NONE;
    }
    const at = this.filled;
    this.filled += bytes;
    return at;
  }

  clear(): void {
    if (this.slab !== NO_SLAB) this.slabs.unref(this.slab);
    this.slab = NO_SLAB;
    this.filled = 0;
  }
}
