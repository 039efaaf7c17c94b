/**
 * Asks the checkpoint policy whether a checkpoint is due: at short intervals, and right after a divergence.
 *
 * `run` starts the polls: every POLL_MS while output is held, every IDLE_POLL_MS while there is none. `hurry` asks once
 * more when the current events have been handled; several calls before that ask once. `stop` ends both for good. The
 * owner decides whether a checkpoint may start (`mayStart`), and starts it.
 */
import type { Overdue, Urgent } from '../compare/comparator.ts';
import type { WorkWaits } from '../datapath/svm-wait.ts';
import { invariant } from '../error.ts';
import type { Clock, Timers } from '../io/clock.ts';
import type { Instant } from '../units.ts';
import type { CheckpointPolicy } from './policy.ts';
import type { CheckpointReason } from './report.ts';

/** The output that the policy decides about. */
export type WatchedOutput = {
  /** Releases what waits for a time, and for nothing else. */
  releaseDue(nowMs: Instant): void;
  overdue(nowMs: Instant, limits: WorkWaits): Overdue;
  pressure(): Urgent;
};

const POLL_MS = 2;
const IDLE_POLL_MS = 20;

export class PolicyClock {
  private readonly policy: CheckpointPolicy;
  private readonly output: WatchedOutput;
  private readonly isIdle: () => boolean;
  private readonly mayStart: (nowMs: Instant) => boolean;
  private readonly start: (reason: CheckpointReason, nowMs: Instant) => void;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private isDue = false;
  private stopped = false;
  private cancelPoll: () => void = () => {};

  constructor(options: {
    policy: CheckpointPolicy;
    output: WatchedOutput;
    /** Whether no output is held, so that the next poll may wait for IDLE_POLL_MS. */
    isIdle: () => boolean;
    /** Whether a checkpoint may start now. Asked before the policy. */
    mayStart: (nowMs: Instant) => boolean;
    start: (reason: CheckpointReason, nowMs: Instant) => void;
    clock: Clock;
    timers: Timers;
  }) {
    this.policy = options.policy;
    this.output = options.output;
    this.isIdle = options.isIdle;
    this.mayStart = options.mayStart;
    this.start = options.start;
    this.clock = options.clock;
    this.timers = options.timers;
  }

  /** Asks now, and from now on at intervals. */
  readonly run = (): void => {
    if (this.stopped) return;
    this.cancelPoll();
    this.consider();
    if (this.stopped) return;
    this.cancelPoll = this.timers.after(this.isIdle() ? IDLE_POLL_MS : POLL_MS, this.run);
  };

  /** Asks when the current events have been handled: not in the middle of a batch of frames. */
  hurry(): void {
    if (this.isDue || this.stopped) return;
    this.isDue = true;
    this.timers.soon(() => {
      this.isDue = false;
      // The next poll may come long after the end of a period.
      if (this.policy.isTooSoon(this.clock.now())) this.run();
      else this.consider();
    });
  }

  stop(): void {
    this.stopped = true;
    this.cancelPoll();
  }

  private consider(): void {
    if (this.stopped) return;
    const nowMs = this.clock.now();
    this.output.releaseDue(nowMs);
    if (!this.mayStart(nowMs)) return;
    // A wait whose end is seen counts as over, and each question about it may cost one to the secondary.
    const overdue = this.policy.isTooSoon(nowMs)
      ? null
      : this.output.overdue(nowMs, this.policy.waitsAt(nowMs));
    const reason = this.policy.due(nowMs, overdue, this.output.pressure());
    if (reason === null) return;
    this.start(reason, nowMs);
    invariant(
      this.stopped || !this.mayStart(nowMs),
      `a checkpoint that started for ${reason} may start again`,
    );
  }
}
