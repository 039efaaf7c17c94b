/**
 * Datagrams of one flow that one VM sent and that found no counterpart: hashes of the latest payloads.
 *
 * Datagrams are compared in order, first to first. In a recording a VM continues as it was after a checkpoint, so one late
 * or lost datagram would shift the comparison for good. A datagram that is found here belongs to an earlier one of the
 * other VM, and leaves the order of the others as it is.
 */
const RECENT_MAX = 64;

export class RecentPayloads {
  private readonly hashes: number[] = [];

  add(hash: number): void {
    this.hashes.push(hash);
    if (this.hashes.length > RECENT_MAX) this.hashes.shift();
  }

  has(hash: number): boolean {
    return this.hashes.includes(hash);
  }

  /** Removes a hash and all older ones, whose counterparts will not come any more. */
  take(hash: number): void {
    this.hashes.splice(0, this.hashes.indexOf(hash) + 1);
  }
}

/** Returns FNV-1a over the bytes, with their length mixed in. */
export function hashBytes(bytes: Uint8Array, at: number, length: number, seed = 0): number {
  let hash = (0x811c9dc5 ^ seed ^ length) | 0;
  for (let i = at; i < at + length; i++) hash = Math.imul(hash ^ bytes[i], 0x01000193);
  return hash;
}
