/**
 * The lease between two protected nodes (rule 2, one voice).
 *
 * The primary sends numbered heartbeats and the secondary replies to each. By replying it promises not to be promoted before
 * `leaseMs` have passed since it received that heartbeat. The primary may therefore speak until `leaseMs` after it *sent*
 * the latest heartbeat that has a reply. Sending comes before receiving, so the primary's time always ends first, whatever
 * the network does, though the two clocks are never compared. `MARGIN` covers clocks that run at different speeds.
 *
 * A primary that was paused looks at its own clock before it writes, finds its lease over, and stays silent.
 */
import { invariant } from '../error.ts';
import type { Instant } from '../units.ts';

/** Quartz clocks differ by 0.01 %; a tenth also covers the time between a look at the clock and the write. */
const MARGIN = 0.1;
/** Heartbeats that may still be replied to: far more than fit into any lease. */
const REMEMBERED = 64;

/** The primary's side. */
export class SpeakingRight {
  private readonly leaseMs: number;
  private readonly sentMs = new Float64Array(REMEMBERED);
  private number = 0;
  /** until when this node may speak; in the past until the first reply */
  private provenMs = Number.NEGATIVE_INFINITY;

  constructor(leaseMs: number) {
    this.leaseMs = leaseMs;
  }

  /** A heartbeat is sent now; returns its number. */
  send(nowMs: Instant): number {
    invariant(
      !(nowMs < this.sentMs[this.number % REMEMBERED]),
      'the clock ran backward between two heartbeats',
    );
    this.number++;
    this.sentMs[this.number % REMEMBERED] = nowMs;
    return this.number;
  }

  /** The peer replied to heartbeat `number`. */
  replied(number: number): void {
    const known = number > 0 && number > this.number - REMEMBERED && number <= this.number;
    if (known)
      this.provenMs = Math.max(this.provenMs, this.sentMs[number % REMEMBERED] + this.leaseMs * (1 - MARGIN));
  }

  /** The end of the lease that the replies prove: until then this node may speak. */
  get untilMs(): number {
    return this.provenMs;
  }
}

/** The secondary's side: the earliest time of its promotion. */
export class LeasePromise {
  private readonly leaseMs: number;
  private heardMs: number;

  constructor(leaseMs: number, nowMs: Instant) {
    this.leaseMs = leaseMs;
    this.heardMs = nowMs;
  }

  /** Renews the promise: a heartbeat has arrived, and this node replies to it. */
  renew(nowMs: Instant): void {
    invariant(nowMs >= this.heardMs, 'a promise became shorter');
    this.heardMs = nowMs;
  }

  get lastHeardMs(): number {
    return this.heardMs;
  }

  get overAtMs(): number {
    return this.heardMs + this.leaseMs;
  }
}
