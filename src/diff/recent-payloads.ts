/**
 * Datagrams of one flow that one VM said and that found no counterpart: by a hash of their payload, the latest ones.
 *
 * In a recording the VMs go on as they were after what would have been a checkpoint. A late or a lost datagram would
 * shift first-to-first comparison for good; that what comes next is found here puts it in step again.
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

  /** Takes it out, and with it what is older: that will not come any more. */
  take(hash: number): void {
    this.hashes.splice(0, this.hashes.indexOf(hash) + 1);
  }
}

/** FNV-1a, its length mixed in. */
export function hashBytes(bytes: Uint8Array, at: number, length: number, seed = 0): number {
  let hash = (0x811c9dc5 ^ seed ^ length) | 0;
  for (let i = at; i < at + length; i++) hash = Math.imul(hash ^ bytes[i], 0x01000193);
  return hash;
}
