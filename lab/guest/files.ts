/**
 * The files that the guest serves over HTTP. The image carries one block of noise; the guest makes the rest
 * from that block when it boots (make_files in services.pl), so that the image need not contain 48 MB.
 */
import { createHash } from 'node:crypto';

export const BLOCK_BYTES = 1 << 20;
const BIG_BLOCKS = 48;
/** Each copy of the block is rotated by this much more; odd, so that no two pages of the file are equal. */
const ROTATION_BYTES = 21845;

export type ServedFile = { readonly path: string; readonly bytes: number; readonly sha256: string };

/** The SHA-256 is a constant, independent of the code that makes the file; a test compares the two. */
export const BIG_FILE: ServedFile = {
  path: '/big.bin',
  bytes: BIG_BLOCKS * BLOCK_BYTES,
  sha256: 'd8f90ffeb70aff2e57e4f6abb701e65a01e3eec423bca613e79f1dc6258c7843',
};

/** The other files. Each is the block or its start. */
export const SMALL_FILES: readonly ServedFile[] = [
  {
    path: '/4k.bin',
    bytes: 4096,
    sha256: '490ce3b66b13b7e19a7ae8c8caf2e6c85310e1a8fd15f6b6f3ad85f623a57e6d',
  },
  {
    path: '/64k.bin',
    bytes: 65536,
    sha256: 'b33abfd9a83895566dc04e61798c63eace7f2afc330db4db604858f422b97226',
  },
  {
    path: '/1m.bin',
    bytes: BLOCK_BYTES,
    sha256: 'feddce4fded2f3fb3442d17af497de1544fbcbc8c478da7ee99050b240ae7d0d',
  },
];

/** Returns incompressible noise without repetition: SHA-256 in counter mode. */
export function makeBlock(): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES);
  for (let at = 0; at < BLOCK_BYTES; at += 32) {
    createHash('sha256').update(`colo-guest ${at}`).digest().copy(block, at);
  }
  return block;
}

export function makeBigFile(block = makeBlock()): Buffer {
  const copies: Buffer[] = [];
  for (let i = 0; i < BIG_BLOCKS; i += 1) {
    const at = i * ROTATION_BYTES;
    copies.push(block.subarray(at), block.subarray(0, at));
  }
  return Buffer.concat(copies);
}
