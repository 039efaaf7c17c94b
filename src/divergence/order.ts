/**
 * Work that the VMs did in another order: what one VM sent here, the other sent elsewhere.
 *
 * The comparator holds what has no counterpart, of each flow and VM, so the piece that was exchanged is nearly always held.
 * Random bytes need few of them to be recognised, wherever the rest of the message names its own client. Text and numbers are
 * compared with what surrounds them, up to the end of a short message.
 */
import { randomRun } from './noise.ts';
import { type Sent, sharedBefore } from './sent.ts';

/** So many random bytes are not the same by chance. */
const RANDOM_BYTES = 12;
const BEFORE_BYTES = 16;
const AFTER_BYTES = 48;

/** A held frame's payload: of which VM, and whether it is of the flow that diverged. */
export type Other = {
  side: 'primary' | 'secondary';
  flow: 'same' | 'other';
  bytes: Uint8Array;
  from: number;
  to: number;
};

/** Finds the pieces of a difference in frames that are looked at one by one. */
export class OrderSearch {
  private readonly primary: Sent;
  private readonly secondary: Sent;
  private readonly before: number;
  private readonly after: number;
  private readonly isRandom: boolean;

  constructor(primary: Sent, secondary: Sent) {
    this.primary = primary;
    this.secondary = secondary;
    this.isRandom = randomRun(primary, secondary) >= RANDOM_BYTES;
    this.before = this.isRandom ? 0 : Math.min(BEFORE_BYTES, sharedBefore(primary, secondary));
    this.after = this.isRandom ? RANDOM_BYTES : AFTER_BYTES;
  }

  /** Returns what a frame of the same service shows, or null. */
  look(other: Other): string | null {
    // What this VM did not send here, the other VM's frames may have elsewhere.
    const piece = other.side === 'primary' ? this.secondary : this.primary;
    if (!this.holds(other, piece)) return null;
    return other.flow === 'same'
      ? 'the VMs sent the messages of this connection in another order'
      : 'the other VM sent these bytes to another client';
  }

  /** Whether a frame has the piece, at the same place of its payload. */
  private holds(other: Other, piece: Sent): boolean {
    const shift = other.from - piece.from;
    const from = piece.at - this.before;
    const to = piece.at + this.after;
    if (piece.at >= piece.to) return false;
    if (to > piece.to) {
      if (this.isRandom || other.to - shift !== piece.to) return false;
    } else if (to + shift > other.to) return false;
    const end = Math.min(to, piece.to);
    for (let at = from; at < end; at++) if (other.bytes[at + shift] !== piece.bytes[at]) return false;
    return true;
  }
}
