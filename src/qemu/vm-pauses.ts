/**
 * How long a VM has been stopped, as its QEMU's STOP and RESUME tell: by a checkpoint, a first copy or an operator.
 *
 * Clients stand for as long, and so does the guest's clock. QEMU stamps both events when they happen, so a node that reads
 * them late measures the same. The stamps are wall-clock time: where that was set in between, the times of arrival count.
 */
import type { Clock } from '../io/clock.ts';
import type { Instant } from '../units.ts';
import type { QmpEvent } from './qmp.ts';

/** Events arrive within milliseconds. A larger difference between stamps and arrivals is a clock that was set. */
const CLOCK_SET_MS = 1000;
const MICROS_PER_MS = 1000;

type Moment = { stampMs: number; arrivedMs: Instant };
export type Pauses = { count: number; totalMs: number; longestMs: number };

export class VmPauses {
  /** since QEMU started */
  readonly all: Pauses = { count: 0, totalMs: 0, longestMs: 0 };
  private readonly clock: Clock;
  private readonly measures = new Set<Pauses>();
  private readonly waiting: (() => void)[] = [];
  private stopped: Moment | null = null;
  private stops: readonly [beforeLast: Moment | null, last: Moment | null] = [null, null];

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Takes each event of QEMU. */
  event({ event, timestampUs }: QmpEvent): void {
    const at = { stampMs: timestampUs / MICROS_PER_MS, arrivedMs: this.clock.now() };
    if (event === 'STOP' && this.stopped === null) {
      this.stopped = at;
      this.stops = [this.stops[1], at];
    }
    if (event !== 'RESUME') return;
    if (this.stopped !== null) {
      const arrivedMs = at.arrivedMs - this.stopped.arrivedMs;
      const stampMs = at.stampMs - this.stopped.stampMs;
      const ms = Math.abs(stampMs - arrivedMs) < CLOCK_SET_MS ? Math.max(0, stampMs) : arrivedMs;
      for (const pauses of [this.all, ...this.measures]) add(pauses, ms);
      this.stopped = null;
    }
    for (const call of this.waiting.splice(0)) call();
  }

  /** Whether QEMU has reported a stop, and no resume since. */
  get isStopped(): boolean {
    return this.stopped !== null;
  }

  /** When the pause before the last one began; null if there was none. */
  get beforeLastMs(): Instant | null {
    return this.stops[0]?.arrivedMs ?? null;
  }

  /** Begins to measure: the result grows with every pause that ends, until `end` is called. */
  measure(): { readonly pauses: Readonly<Pauses>; end(): void } {
    const pauses: Pauses = { count: 0, totalMs: 0, longestMs: 0 };
    this.measures.add(pauses);
    return { pauses, end: () => this.measures.delete(pauses) };
  }

  /** Calls `call` once, when the pause that is under way or about to begin is over. */
  afterNextResume(call: () => void): void {
    this.waiting.push(call);
  }
}

function add(pauses: Pauses, ms: number): void {
  pauses.count++;
  pauses.totalMs += ms;
  pauses.longestMs = Math.max(pauses.longestMs, ms);
}
