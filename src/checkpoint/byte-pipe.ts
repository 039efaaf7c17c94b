/**
 * Copies bulk bytes from one stream to another, in slabs of its own so that VM state never starves frames. When the receiver
 * is slow all slabs fill up, and the source is not read until one is free.
 *
 * A pipe can be made to hold the last byte that it has read (`holdLast`): the source is read as always, and the receiver gets all
 * but that byte, until `passLast`.
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
  private holding = false;
  /** the byte that is held */
  private last: Uint8Array | null = null;

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

  /** From now on the receiver lacks the last byte that was read. */
  holdLast(): void {
    this.holding = true;
  }

  passLast(): void {
    this.holding = false;
    this.writeLast();
  }

  private onRead(bytes: number): void {
    const { slab } = this;
    const view = this.slabs.buffer(slab).subarray(0, bytes);
    if (!this.inspect(view)) return;
    this.bytes += bytes;
    let length = bytes;
    if (this.holding) {
      this.writeLast();
      length--;
      this.last = Uint8Array.of(view[length]);
      if (length === 0) return;
    }
    this.slab = NO_SLAB;
    this.to.write(view.subarray(0, length), () => {
      this.takenBytes += length;
      this.slabs.unref(slab);
    });
  }

  private writeLast(): void {
    const { last } = this;
    if (last === null) return;
    this.last = null;
    this.to.write(last, () => {
      this.takenBytes++;
    });
  }
}
