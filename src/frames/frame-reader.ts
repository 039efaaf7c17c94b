/**
 * Cuts a byte stream into frames, in place: `[u32 big-endian length][frame]` (QEMU's net_fill_rstate).
 * With `vnet_hdr_support` a second u32 follows the length: how many bytes at the beginning of the frame are a virtio-net
 * header (`vnetBytes`).
 *
 * Bytes are read straight into the current slab. The handler gets whole frames as (slab, offset, length), in order; then
 * the batch ends. The partial frame at the end of a slab is copied to the next one once, so a frame always lies in one
 * piece with its length prefix before it, and neighbours can be written out again as one run.
 *
 * Failure: a length of zero or above the limit, or a virtio-net header that is too long, means that the stream is out of
 * step for good. COLO_STREAM_FRAMING closes it, and nothing after that point is used.
 */
import { ColoError, invariant } from '../error.ts';
import type { SlabId } from '../units.ts';
import { readU32 } from '../wire/bytes.ts';
import { NO_SLAB, type SlabPool, type SlabUser } from './slabs.ts';

export const LENGTH_PREFIX_BYTES = 4;
const VNET_PREFIX_BYTES = 8;
/** sizeof(struct virtio_net_hdr_v1_hash_tunnel): what a card with offloads for UDP tunnels has before each frame (QEMU 10.2). */
export const VNET_HEADER_BYTES_MAX = 24;

export type Framing = 'plain' | 'vnet';

/** Returns how many bytes lie before each frame. */
export function prefixBytesOf(framing: Framing): number {
  return framing === 'vnet' ? VNET_PREFIX_BYTES : LENGTH_PREFIX_BYTES;
}

/** Returns the length of the virtio-net header at the start of a frame that came with `vnet` framing. */
export function vnetBytes(bytes: Uint8Array, at: number): number {
  return readU32(bytes, at - 4);
}

export type FrameHandler = {
  /** One frame; ref the slab to use it after this call. */
  frame(slab: SlabId, at: number, length: number): void;
  /** The handler has been given every whole frame of one read. */
  batchEnd(): void;
};

/** A read into less room than this is not worth a system call. */
const READ_BYTES_MIN = 16 * 1024;

export class FrameReader {
  readonly frameBytesMax: number;
  /** may be exchanged at any time */
  handler: FrameHandler;
  private readonly slabs: SlabPool;
  private readonly framing: Framing;
  private readonly prefixBytes: number;
  private readonly slabUser: SlabUser;
  private slab: SlabId = NO_SLAB;
  /** [parsed, filled) are bytes of a frame that is not complete yet */
  private parsed = 0;
  private filled = 0;

  constructor(
    slabs: SlabPool,
    frameBytesMax: number,
    handler: FrameHandler,
    framing: Framing = 'plain',
    slabUser: SlabUser = 0,
  ) {
    this.slabs = slabs;
    this.frameBytesMax = frameBytesMax;
    this.handler = handler;
    this.framing = framing;
    this.prefixBytes = prefixBytesOf(framing);
    this.slabUser = slabUser;
  }

  /** Returns where the next bytes go, or null if no slab is free. */
  buffer(): Uint8Array | null {
    if (this.slab < 0 || this.roomIsShort()) {
      const next = this.slabs.acquire(this.slabUser);
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

  /** `bytes` more bytes are in the buffer: hands out the frames in it. Throws COLO_STREAM_FRAMING if the stream is out of step. */
  read(bytes: number): void {
    this.filled += bytes;
    invariant(this.filled <= this.slabs.slabBytes, 'more bytes were read than the slab has room for');
    const slab = this.slab;
    const buffer = this.slabs.buffer(slab);
    const view = this.slabs.view(slab);
    const { prefixBytes } = this;
    while (this.filled - this.parsed >= prefixBytes) {
      const length = view.getUint32(this.parsed);
      const at = this.parsed + prefixBytes;
      const vnet = this.framing === 'vnet' ? vnetBytes(buffer, at) : 0;
      if (length === 0 || length > this.frameBytesMax || vnet > Math.min(VNET_HEADER_BYTES_MAX, length)) {
        // The frames before it were handed out: their batch ends like any other.
        this.handler.batchEnd();
        throw outOfStep(length, this.frameBytesMax, vnet);
      }
      if (this.filled - at < length) break;
      this.parsed = at + length;
      this.handler.frame(slab, at, length);
    }
    this.handler.batchEnd();
  }

  /** How many bytes of an incomplete frame there are: at the end of a stream, those of a frame that was cut short. */
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
    // The rest of the incomplete frame must fit after what is already there.
    const pending = this.filled - this.parsed;
    return pending > 0 && this.slabs.slabBytes - this.parsed < this.frameBytesMax + this.prefixBytes;
  }
}

function outOfStep(length: number, lengthMax: number, vnet: number): ColoError {
  const why =
    length === 0 || length > lengthMax
      ? `a frame of ${length} bytes was announced (1 to ${lengthMax} are possible): the stream is out of step`
      : `a virtio-net header of ${vnet} bytes was announced in a frame of ${length} (${VNET_HEADER_BYTES_MAX} are possible): ` +
        'do both ends agree on vnet_hdr_support, and are offloads of the card off that are newer than UDP tunnels?';
  return new ColoError('COLO_STREAM_FRAMING', why);
}
