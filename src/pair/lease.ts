/**
 * The lease between two protected nodes (rule 2, one voice).
 *
 * The primary sends numbered heartbeats and the secondary answers each. By answering it promises not to take over
 * before `leaseMs` have passed since it heard that heartbeat. So the primary may speak until `leaseMs` after it *sent*
 * the latest one that was answered: sending comes before hearing, so the primary's time always ends first, whatever
 * the network did, and though the two clocks were never compared. `MARGIN` is for clocks that run at different speeds.
 *
 * A primary that was paused looks at its own clock before it writes, finds its time over, and stays silent.
 */
import type { Instant } from '../units.ts';

/** Quartz is good to 0.01%; a tenth also covers the time between looking at the clock and the write. */
const MARGIN = 0.1;
/** Unanswered heartbeats remembered: far more than fit into any lease. */
const REMEMBERED = 64;

/** The primary's side. */
export class SpeakingRight {
  private readonly leaseMs: number;
  private readonly sentMs = new Float64Array(REMEMBERED);
  private number = 0;
  /** until when this node may speak; in the past until a heartbeat was answered */
  private provenMs = Number.NEGATIVE_INFINITY;

  constructor(leaseMs: number) {
    this.leaseMs = leaseMs;
  }

  /** The number of the heartbeat that is sent now. */
  send(nowMs: Instant): number {
    this.number++;
    this.sentMs[this.number % REMEMBERED] = nowMs;
    return this.number;
  }

  /** The peer replied to heartbeat `number`. */
  answered(number: number): void {
    const known = number > 0 && number > this.number - REMEMBERED && number <= this.number;
    if (known)
      this.provenMs = Math.max(this.provenMs, this.sentMs[number % REMEMBERED] + this.leaseMs * (1 - MARGIN));
  }

  /** The end of what the replies so far prove: until then this node may speak. */
  get untilMs(): number {
    return this.provenMs;
  }
}

/** The secondary's side: when may it take over at the earliest? */
export class LeasePromise {
  private readonly leaseMs: number;
  private heardMs: number;

  constructor(leaseMs: number, nowMs: Instant) {
    this.leaseMs = leaseMs;
    this.heardMs = nowMs;
  }

  heard(nowMs: Instant): void {
    this.heardMs = nowMs;
  }

  get lastHeardMs(): number {
    return this.heardMs;
  }

  get overAtMs(): number {
    return this.heardMs + this.leaseMs;
  }
}
