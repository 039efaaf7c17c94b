/**
 * Cuts a byte stream into frames, in place: `[u32 big-endian length][frame]` (QEMU's net_fill_rstate).
 * With `vnet_hdr_support` a second u32 follows the length: how many of the frame's bytes, from its first on, are a
 * virtio-net header (`vnetBytes`).
 *
 * Bytes are read straight into the current slab. Whole frames are handed on as (slab, offset, length), in order;
 * then the batch ends. The partial frame at the end of a slab is moved to the next one once, so a frame always
 * lies in one piece with its length prefix before it, and neighbours can be written out again as one run.
 *
 * Failure: a length of zero or above the limit, or a virtio-net header that is longer than any, means that the stream is out of step for good. It is closed with
 * COLO_STREAM_FRAMING; nothing after that point is believed.
 */
import { ColoError } from '../error.ts';
import type { SlabId } from '../units.ts';
import { readU32 } from '../wire/bytes.ts';
import { NO_SLAB, type SlabPool } from './slabs.ts';

export const LENGTH_PREFIX_BYTES = 4;
const VNET_PREFIX_BYTES = 8;
/** sizeof(struct virtio_net_hdr_v1_hash) */
export const VNET_HEADER_BYTES_MAX = 20;

export type Framing = 'plain' | 'vnet';

/** What lies before each frame. */
export function prefixBytesOf(framing: Framing): number {
  return framing === 'vnet' ? VNET_PREFIX_BYTES : LENGTH_PREFIX_BYTES;
}

/** Of a frame that came with `vnet` framing: how long the virtio-net header at its start is. */
export function vnetBytes(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at - 4);
}

export type FrameHandler = {
  /** One frame; retain the slab to keep it beyond this call. */
  frame(slab: SlabId, at: number, length: number): void;
  /** Everything that one read brought has been handed on. */
  batchEnd(): void;
};

/** A read into less than this is not worth a system call. */
const READ_BYTES_MIN = 16 * 1024;

export class FrameReader {
  readonly frameBytesMax: number;
  /** may be exchanged at any time */
  handler: FrameHandler;
  private readonly slabs: SlabPool;
  private readonly framing: Framing;
  private readonly prefixBytes: number;
  private slab: SlabId = NO_SLAB;
  /** [parsed, filled) are bytes of a frame that is not complete yet */
  private parsed = 0;
  private filled = 0;

  constructor(slabs: SlabPool, frameBytesMax: number, handler: FrameHandler, framing: Framing = 'plain') {
    this.slabs = slabs;
    this.frameBytesMax = frameBytesMax;
    this.handler = handler;
    this.framing = framing;
    this.prefixBytes = prefixBytesOf(framing);
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
        this.slabs.unref(this.slab);
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
    const view = this.slabs.view(slab);
    const { prefixBytes } = this;
    while (this.filled - this.parsed >= prefixBytes) {
      const length = view.getUint32(this.parsed);
      const at = this.parsed + prefixBytes;
      const vnet = this.framing === 'vnet' ? vnetBytes(buffer, at) : 0;
      if (length === 0 || length > this.frameBytesMax || vnet > Math.min(VNET_HEADER_BYTES_MAX, length)) {
        // What came before it has been handed on, and is worth its end.
        this.handler.batchEnd();
        throw outOfStep(length, this.frameBytesMax, vnet);
      }
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
    if (this.slab >= 0) this.slabs.unref(this.slab);
    this.slab = NO_SLAB;
    this.parsed = 0;
    this.filled = 0;
  }

  private roomIsShort(): boolean {
    const room = this.slabs.slabBytes - this.filled;
    if (room < READ_BYTES_MIN) return true;
    // The pending frame must fit behind what is already there.
    const pending = this.filled - this.parsed;
    return pending > 0 && this.slabs.slabBytes - this.parsed < this.frameBytesMax + this.prefixBytes;
  }
}

function outOfStep(length: number, lengthMax: number, vnet: number): ColoError {
  const why =
    length === 0 || length > lengthMax
      ? `a frame of ${length} bytes was announced (1 to ${lengthMax} are possible): the stream is out of step`
      : `a virtio-net header of ${vnet} bytes was announced in a frame of ${length} (${VNET_HEADER_BYTES_MAX} are possible): do both ends agree on vnet_hdr_support?`;
  return new ColoError('COLO_STREAM_FRAMING', why);
}
