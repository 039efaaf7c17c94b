/**
 * Slabs: the memory that every frame lives in, from the read that brought it to the write that sends it on.
 *
 * Goal: no allocation and no copy per frame. A slab is a large reused buffer; a frame is (slab id, offset, length).
 * The user of a frame refs its slab, and unrefs it later; a slab whose count reaches zero is read into again.
 *
 * Limits: `slabsMax` slabs, allocated when they are first needed and never freed. `acquire` returns NO_SLAB if all are in
 * use: the reader then stops reading (back-pressure), and the owner forces a checkpoint, which unrefs most of them.
 */
import { InvariantError, invariant } from '../error.ts';
import type { SlabId } from '../units.ts';
import { type SameBytes, sameBytesIn } from './same-bytes.ts';

/** In place of a slab where there is none. */
export const NO_SLAB = -1 as SlabId;

/** Whom a slab was acquired for: each reader of a pool that it shares with others may be one. */
export type SlabUser = 0 | 1 | 2 | 3;
const USERS_MAX = 4;

const WASM_PAGE_BYTES = 64 * 1024;

/** One memory for all slabs of a pool, so that WebAssembly can compare ranges of any two. Untouched pages cost nothing. */
export type SlabMemory = { readonly buffer: ArrayBuffer | null; readonly sameBytes: SameBytes };

export function newSlabMemory(slabBytes: number, slabsMax: number): SlabMemory {
  const pages = Math.ceil((slabBytes * slabsMax) / WASM_PAGE_BYTES);
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
  return { buffer: memory.buffer, sameBytes: sameBytesIn(memory) };
}

/** For slabs whose bytes are forwarded and never compared: each has memory of its own, and no address space is reserved. */
export const SEPARATE_SLABS: SlabMemory = {
  buffer: null,
  sameBytes: () => {
    throw new InvariantError('slabs that have no memory in common were compared');
  },
};

export class SlabPool {
  readonly slabBytes: number;
  readonly slabsMax: number;
  /** slabs with a count above zero */
  inUse = 0;
  /** the same by user */
  private readonly inUseBy = new Int32Array(USERS_MAX);
  private readonly buffers: Buffer[] = [];
  private readonly views: DataView[] = [];
  private readonly memory: SlabMemory;
  private readonly counts: Int32Array;
  private readonly users: Uint8Array;
  private readonly free: SlabId[] = [];
  private readonly waiters: (() => void)[] = [];

  /** A `memory` that is given must be large enough, and no other pool may use it. */
  constructor(slabBytes: number, slabsMax: number, memory = newSlabMemory(slabBytes, slabsMax)) {
    invariant(
      memory.buffer === null || memory.buffer.byteLength >= slabBytes * slabsMax,
      'the memory of a slab pool is smaller than its slabs',
    );
    this.slabBytes = slabBytes;
    this.slabsMax = slabsMax;
    this.counts = new Int32Array(slabsMax);
    this.users = new Uint8Array(slabsMax);
    this.memory = memory;
  }

  /** Returns a slab with count 1, or NO_SLAB if all are in use. It counts as in use by `user` until its last unref. */
  acquire(user: SlabUser = 0): SlabId {
    let id = this.free.pop();
    if (id === undefined) {
      if (this.buffers.length === this.slabsMax) return NO_SLAB;
      id = this.buffers.length as SlabId;
      const shared = this.memory.buffer;
      const memory = shared ?? new ArrayBuffer(this.slabBytes);
      const at = shared === null ? 0 : id * this.slabBytes;
      this.buffers.push(Buffer.from(memory, at, this.slabBytes));
      this.views.push(new DataView(memory, at, this.slabBytes));
    }
    this.counts[id] = 1;
    this.users[id] = user;
    this.inUse++;
    this.inUseBy[user]++;
    return id;
  }

  /** Returns how many slabs that were acquired for `user` are in use, by whomever. */
  inUseOf(user: SlabUser): number {
    return this.inUseBy[user];
  }

  buffer(id: SlabId): Buffer {
    return this.buffers[id];
  }

  /** The same bytes as `buffer`. */
  view(id: SlabId): DataView {
    return this.views[id];
  }

  /** Returns true if `length` bytes of two slabs are the same. */
  same(slab: SlabId, at: number, other: SlabId, otherAt: number, length: number): boolean {
    return this.memory.sameBytes(slab * this.slabBytes + at, other * this.slabBytes + otherAt, length) === 1;
  }

  ref(id: SlabId): void {
    invariant(this.counts[id] > 0, 'a slab was referenced after its last unref');
    this.counts[id]++;
  }

  unref(id: SlabId): void {
    invariant(this.counts[id] > 0, 'a slab was unreferenced too often');
    if (--this.counts[id] > 0) return;
    this.inUse--;
    this.inUseBy[this.users[id]]--;
    this.free.push(id);
    this.waiters.shift()?.();
  }

  /** Calls `waiter` once, when a slab has become free. */
  whenFree(waiter: () => void): void {
    this.waiters.push(waiter);
  }
}
