/** A clock and timers whose time passes only in `pass`. */
import type { Clock, Timers } from '../../src/io/clock.ts';
import type { Instant } from '../../src/units.ts';

export class FakeTime implements Clock, Timers {
  private nowMs = 0 as Instant;
  private soonCalls: (() => void)[] = [];
  private timers: { atMs: number; call: () => void }[] = [];

  now(): Instant {
    return this.nowMs;
  }

  wall(): number {
    return 1_700_000_000_000 + this.nowMs;
  }

  after(ms: number, call: () => void): () => void {
    const timer = { atMs: this.nowMs + ms, call };
    this.timers.push(timer);
    return () => {
      this.timers = this.timers.filter((one) => one !== timer);
    };
  }

  soon(call: () => void): void {
    this.soonCalls.push(call);
  }

  /** Runs what `soon` was given: the current events have been handled. */
  turn(): void {
    const calls = this.soonCalls;
    this.soonCalls = [];
    for (const call of calls) call();
  }

  /** Whether `soon` was given something that `turn` has not run. */
  get isTurnDue(): boolean {
    return this.soonCalls.length > 0;
  }

  get waiting(): number {
    return this.timers.length + this.soonCalls.length;
  }

  /** Time passes while this process is paused: what is due comes after it, in `pass`. */
  jump(ms: number): void {
    this.nowMs = (this.nowMs + ms) as Instant;
  }

  /** Lets time pass, a millisecond at a time; timers and promises run in between. */
  async pass(ms: number): Promise<void> {
    const endMs = this.nowMs + ms;
    for (;;) {
      await settled();
      this.turn();
      const due = this.timers.filter(({ atMs }) => atMs <= this.nowMs);
      this.timers = this.timers.filter(({ atMs }) => atMs > this.nowMs);
      for (const { call } of due) call();
      await settled();
      if (this.nowMs >= endMs) return;
      this.nowMs = Math.min(this.nowMs + 1, endMs) as Instant;
    }
  }
}

/** Resolves when every promise that can settle has settled. */
export function settled(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
