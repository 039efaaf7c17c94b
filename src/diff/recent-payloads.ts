/**
 * Datagrams of one flow that one VM sent and that found no counterpart: hashes of the latest payloads.
 *
 * In a recording a VM continues as it was after a checkpoint, and a recording may have lost a datagram or begin after it. A
 * datagram that is found here belongs to an earlier one of the other VM, and leaves the order of the others as it is.
 *
 * Limits: the latest RECENT_MAX payloads, for RECENT_MS each.
 */
const RECENT_MAX = 64;
const RECENT_MS = 5000;
const NONE: number[] = [];

export class RecentPayloads {
  /* Most flows need none. */
  private hashes: number[] = NONE;
  private times: number[] = NONE;

  add(hash: number, ms: number): void {
    if (this.hashes === NONE) {
      this.hashes = [];
      this.times = [];
    }
    this.hashes.push(hash);
    this.times.push(ms);
    if (this.hashes.length > RECENT_MAX) this.removeAt(0);
  }

  /** Returns true and removes the payload if it was added within RECENT_MS before `ms`. */
  take(hash: number, ms: number): boolean {
    while (this.times.length > 0 && ms - this.times[0] > RECENT_MS) this.removeAt(0);
    const at = this.hashes.indexOf(hash);
    if (at < 0) return false;
    this.removeAt(at);
    return true;
  }

  private removeAt(at: number): void {
    this.hashes.splice(at, 1);
    this.times.splice(at, 1);
  }
}

/** Returns FNV-1a over the bytes, with their length mixed in. */
export function hashBytes(bytes: Uint8Array, at: number, length: number, seed = 0): number {
  let hash = (0x811c9dc5 ^ seed ^ length) | 0;
  for (let i = at; i < at + length; i++) hash = Math.imul(hash ^ bytes[i], 0x01000193);
  return hash;
}
