/**
 * Copies bulk bytes from one stream to another, in slabs of its own so that VM state never starves frames. When the receiver
 * is slow all slabs fill up, and the source is not read until one is free.
 */

import { NO_SLAB, SEPARATE_SLABS, SlabPool } from '../frames/slabs.ts';
import type { ByteStream } from '../io/byte-stream.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { SlabId } from '../units.ts';

export class BytePipe {
  bytes = 0;
  /** of these the receiver has taken */
  takenBytes = 0;
  private readonly from: ByteStream;
  private readonly to: ByteStream;
  private readonly slabs: SlabPool;
  /** Sees the bytes of every read; returns false to take them out of the stream. */
  private readonly inspect: (bytes: Uint8Array) => boolean;
  private readonly onClosed: (cause: Error | null) => void;
  private slab: SlabId = NO_SLAB;

  constructor(
    from: ByteStream,
    to: ByteStream,
    inspect: (bytes: Uint8Array) => boolean,
    onClosed: (cause: Error | null) => void,
    limits: Limits = LIMITS,
  ) {
    this.slabs = new SlabPool(limits.pipeSlabBytes, limits.pipeSlabsMax, SEPARATE_SLABS);
    this.from = from;
    this.to = to;
    this.inspect = inspect;
    this.onClosed = onClosed;
  }

  start(): void {
    this.from.start({
      buffer: () => {
        if (this.slab < 0) this.slab = this.slabs.acquire();
        if (this.slab < 0) {
          this.slabs.whenFree(() => this.from.resume());
          return null;
        }
        return this.slabs.buffer(this.slab);
      },
      read: (bytes) => this.onRead(bytes),
      closed: (cause) => this.onClosed(cause),
    });
  }

  private onRead(bytes: number): void {
    const { slab } = this;
    const view = this.slabs.buffer(slab).subarray(0, bytes);
    if (!this.inspect(view)) return;
    this.bytes += bytes;
    this.slab = NO_SLAB;
    this.to.write(view, () => {
      this.takenBytes += bytes;
      this.slabs.unref(slab);
    });
  }
}
