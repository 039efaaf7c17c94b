/**
 * Cuts a byte stream into frames, in place: `[u32 big-endian length][frame]` (QEMU's net_fill_rstate).
 *
 * Bytes are read straight into the current slab. Whole frames are handed on as (slab, offset, length), in order;
 * then the batch ends. The partial frame at the end of a slab is moved to the next one once, so a frame always
 * lies in one piece with its length prefix before it, and neighbours can be written out again as one run.
 *
 * Failure: a length of zero or above the limit means that the stream is out of step for good. It is closed with
 * COLO_STREAM_FRAMING; nothing after that point is believed.
 */
import { ColoError } from '../error.ts';
import { readU32 } from '../wire/bytes.ts';
import type { SlabPool } from './slabs.ts';

export const LENGTH_PREFIX_BYTES = 4;

export type FrameHandler = {
  /** One frame; retain the slab to keep it beyond this call. */
  frame(slab: number, at: number, length: number): void;
  /** Everything that one read brought has been handed on. */
  batchEnd(): void;
};

/** A read into less than this is not worth a system call. */
const READ_BYTES_MIN = 16 * 1024;

export class FrameReader {
  readonly frameBytesMax: number;
  private readonly slabs: SlabPool;
  private readonly handler: FrameHandler;
  private slab = -1;
  /** [parsed, filled) are bytes of a frame that is not complete yet */
  private parsed = 0;
  private filled = 0;

  constructor(slabs: SlabPool, frameBytesMax: number, handler: FrameHandler) {
    this.slabs = slabs;
    this.frameBytesMax = frameBytesMax;
    this.handler = handler;
  }

  /** Where the next bytes go, or null when no slab is free. */
  buffer(): Uint8Array | null {
    if (this.slab < 0 || this.roomIsShort()) {
      const next = this.slabs.acquire();
      if (next < 0) return null;
      const partial = this.filled - this.parsed;
      if (this.slab >= 0) {
        if (partial > 0)
          this.slabs.buffer(this.slab).copy(this.slabs.buffer(next), 0, this.parsed, this.filled);
        this.slabs.release(this.slab);
      }
      this.slab = next;
      this.parsed = 0;
      this.filled = partial;
    }
    return this.slabs.buffer(this.slab).subarray(this.filled);
  }

  /** `bytes` more bytes have arrived. Throws COLO_STREAM_FRAMING. */
  read(bytes: number): void {
    this.filled += bytes;
    const slab = this.slab;
    const buffer = this.slabs.buffer(slab);
    while (this.filled - this.parsed >= LENGTH_PREFIX_BYTES) {
      const length = readU32(buffer, this.parsed);
      if (length === 0 || length > this.frameBytesMax) {
        throw new ColoError(
          'COLO_STREAM_FRAMING',
          `a frame of ${length} bytes was announced (1 to ${this.frameBytesMax} are possible): the stream is out of step`,
        );
      }
      const at = this.parsed + LENGTH_PREFIX_BYTES;
      if (this.filled - at < length) break;
      this.parsed = at + length;
      this.handler.frame(slab, at, length);
    }
    this.handler.batchEnd();
  }

  /** Bytes of a frame that the end of the stream cut short. */
  get partialBytes(): number {
    return this.filled - this.parsed;
  }

  close(): void {
    if (this.slab >= 0) this.slabs.release(this.slab);
    this.slab = -1;
    this.parsed = 0;
    this.filled = 0;
  }

  private roomIsShort(): boolean {
    const room = this.slabs.slabBytes - this.filled;
    if (room < READ_BYTES_MIN) return true;
    // The pending frame must fit behind what is already there.
    const pending = this.filled - this.parsed;
    return pending > 0 && this.slabs.slabBytes - this.parsed < this.frameBytesMax + LENGTH_PREFIX_BYTES;
  }
}
