/**
 * The header that a virtio network card puts before a frame (virtio 1.2 section 5.1.6), little-endian. Offsets are
 * relative to its first byte.
 */
import { NONE } from '../units.ts';

export const VIRTIO_NET = {
  flags: 0,
  gsoType: 1,
  gsoSize: 4,
  csumStart: 6,
  csumOffset: 8,
  headerBytesMin: 10,
} as const;

/** The transport checksum is partial: it holds the sum of the pseudo header, and the network card adds the rest. */
export const VIRTIO_NET_NEEDS_CSUM = 0x01;

/**
 * Returns the offset of a frame's partial checksum, or NONE if its checksum is complete or its place is outside the frame.
 * The frame is `length` bytes at `at`, of which the first `headerBytes` are this header.
 */
export function partialChecksumAt(
  bytes: Uint8Array,
  at: number,
  length: number,
  headerBytes: number,
): number {
  if (headerBytes < VIRTIO_NET.headerBytesMin) return NONE;
  if ((bytes[at + VIRTIO_NET.flags] & VIRTIO_NET_NEEDS_CSUM) === 0) return NONE;
  const field =
    headerBytes + readU16Le(bytes, at + VIRTIO_NET.csumStart) + readU16Le(bytes, at + VIRTIO_NET.csumOffset);
  return field + 2 <= length ? at + field : NONE;
}

/**
 * Returns true if the network card will cut the frame into segments (GSO). Its IP length is 0 if 16 bits cannot hold it
 * (Linux: BIG TCP), so `parseGsoPacket` parses it.
 */
export function isGso(bytes: Uint8Array, at: number, headerBytes: number): boolean {
  return headerBytes >= VIRTIO_NET.headerBytesMin && bytes[at + VIRTIO_NET.gsoType] !== 0;
}

/** The payload of a frame was cut to `payloadBytes`: a frame that is one segment now is not cut any further. */
export function endGso(bytes: Uint8Array, at: number, headerBytes: number, payloadBytes: number): void {
  if (!isGso(bytes, at, headerBytes) || payloadBytes > readU16Le(bytes, at + VIRTIO_NET.gsoSize)) return;
  bytes[at + VIRTIO_NET.gsoType] = 0;
  bytes.fill(0, at + VIRTIO_NET.gsoSize, at + VIRTIO_NET.gsoSize + 2);
}

function readU16Le(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8);
}
