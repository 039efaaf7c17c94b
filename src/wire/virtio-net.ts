/**
 * The header that a virtio network card puts before a frame (virtio 1.2 section 5.1.6), little-endian. Offsets are
 * relative to its first byte.
 */

export const VIRTIO_NET = {
  flags: 0,
  gsoType: 1,
  csumStart: 6,
  csumOffset: 8,
  headerBytesMin: 10,
} as const;

/** The transport checksum is not complete: it holds the pseudo header's sum, and whoever sends the frame adds the rest. */
export const VIRTIO_NET_NEEDS_CSUM = 0x01;

/**
 * Where a frame's incomplete checksum lies, or -1 when it has none. The frame, header included, is `length` bytes at
 * `at`, and the header its first `headerBytes`.
 */
export function partialChecksumAt(
  bytes: Uint8Array,
  at: number,
  length: number,
  headerBytes: number,
): number {
  if (headerBytes < VIRTIO_NET.headerBytesMin) return -1;
  if ((bytes[at + VIRTIO_NET.flags] & VIRTIO_NET_NEEDS_CSUM) === 0) return -1;
  const field =
    headerBytes + readU16Le(bytes, at + VIRTIO_NET.csumStart) + readU16Le(bytes, at + VIRTIO_NET.csumOffset);
  return field + 2 <= length ? at + field : -1;
}

/** Is the frame one that will be cut into segments? Its IP length is then 0 when it does not fit (Linux: BIG TCP). */
export function isGso(bytes: Uint8Array, at: number, headerBytes: number): boolean {
  return headerBytes >= VIRTIO_NET.headerBytesMin && bytes[at + VIRTIO_NET.gsoType] !== 0;
}

function readU16Le(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8);
}
