/**
 * Slabs: the memory that every frame lives in, from the read that brought it to the write that sends it on.
 *
 * Goal: no allocation and no copy per frame. A slab is a large reused buffer; a frame is (slab id, offset, length).
 * Whoever keeps a frame retains its slab and releases it later; a slab whose count reaches zero is read into again.
 *
 * Limits: `slabsMax` slabs, allocated as they are first needed and never given back. `acquire` answers -1 when all
 * are in use: the reader then stops reading (back-pressure), and the owner forces a checkpoint, which frees most.
 */
import { invariant } from '../error.ts';

export class SlabPool {
  readonly slabBytes: number;
  readonly slabsMax: number;
  /** slabs with a count above zero */
  inUse = 0;
  private readonly buffers: Buffer[] = [];
  private readonly counts: Int32Array;
  private readonly free: number[] = [];
  private readonly waiters: (() => void)[] = [];

  constructor(slabBytes: number, slabsMax: number) {
    this.slabBytes = slabBytes;
    this.slabsMax = slabsMax;
    this.counts = new Int32Array(slabsMax);
  }

  /** A slab with count 1, or -1 when none is left. */
  acquire(): number {
    let id = this.free.pop();
    if (id === undefined) {
      if (this.buffers.length === this.slabsMax) return -1;
      id = this.buffers.length;
      this.buffers.push(Buffer.from(new ArrayBuffer(this.slabBytes)));
    }
    this.counts[id] = 1;
    this.inUse++;
    return id;
  }

  buffer(id: number): Buffer {
    return this.buffers[id];
  }

  retain(id: number): void {
    invariant(this.counts[id] > 0, `slab ${id} retained after its last release`);
    this.counts[id]++;
  }

  release(id: number): void {
    invariant(this.counts[id] > 0, `slab ${id} released too often`);
    if (--this.counts[id] > 0) return;
    this.inUse--;
    this.free.push(id);
    this.waiters.shift()?.();
  }

  /** Calls back once, when a slab has become free. */
  whenFree(waiter: () => void): void {
    this.waiters.push(waiter);
  }
}
