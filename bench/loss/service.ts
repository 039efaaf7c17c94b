/** The service of both VMs and its client: a deterministic stream in either direction, checked at its end. */
import { createHash } from 'node:crypto';
import { Random } from '../../lab/clients/random.ts';

export type Direction = 'down' | 'up';
export const PORT = 4000;

const BLOCK_BYTES = 64 * 1024;

/** Yields the stream's bytes, block by block: no two blocks are alike. */
export function* streamOf(bytes: number): Generator<Buffer> {
  for (let from = 0; from < bytes; from += BLOCK_BYTES) {
    const block = Buffer.alloc(Math.min(BLOCK_BYTES, bytes - from));
    new Random(from + 1).fill(block);
    yield block;
  }
}

export function hashOf(bytes: number): string {
  const hash = createHash('sha256');
  for (const block of streamOf(bytes)) hash.update(block);
  return hash.digest('hex');
}
