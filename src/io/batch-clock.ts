/**
 * One look at the clock per batch. The data path asks for the time with every frame of a batch and is given the time of
 * the first question: a system call per frame would cost more than the frame.
 */
import type { Instant } from '../units.ts';
import type { Clock } from './clock.ts';

const NOT_READ = -1 as Instant;

export class BatchClock {
  private readonly clock: Clock;
  private nowMs = NOT_READ;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  now(): Instant {
    if (this.nowMs < 0) this.nowMs = this.clock.now();
    return this.nowMs;
  }

  /** The batch is over: the next question reads the clock again. */
  end(): void {
    this.nowMs = NOT_READ;
  }
}
