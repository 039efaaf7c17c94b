/**
 * Watches a VM until it sleeps: until it has taken all that was written to it, has nothing left to do, and all that it
 * sent was read.
 *
 * Nothing notifies of a guest that goes to sleep, so the watch looks: when it begins, after each batch of the VM's output (a
 * guest sleeps soon after its last word), in the turns of the event loop during TURNS_MS after that, and by a timer in
 * between. The timer waits longer and longer, for an eighth of the time that the watch has taken: a guest that works for long is
 * noticed late by an eighth, and looks cost next to nothing. A VM that is not watched is not looked at.
 *
 * A look asks in this order, so that nothing is missed on its way through: is there nothing unsent to the VM, do QEMU and its guest
 * sleep (qemu/sleep-sight.ts), is there nothing unread from it.
 *
 * | phase    | looks                           | next phase                                          |
 * |----------|---------------------------------|-----------------------------------------------------|
 * | resting  | no                              | turns: `begin`                                      |
 * | turns    | in each turn of the event loop  | timer: after TURNS_MS; resting: it sleeps, `end`    |
 * | timer    | when the timer fires            | turns: `outputSeen`; resting: it sleeps, `end`      |
 */
import type { Clock, Timers } from '../io/clock.ts';
import type { SleepSight } from '../io/sleep-sight.ts';
import type { Instant } from '../units.ts';

/** A guest on the same machine sleeps within this after its last frame was read, more often than not. */
const TURNS_MS = 0.4;
/** However short a turn is: more looks in TURNS_MS would take the processor from the guest that they wait for. */
const TURNS_MAX = 12;
const TIMER_MS_MIN = 1;
const TIMER_MS_MAX = 8;
const TIMER_SHARE = 1 / 8;

/** Of a VM's port. */
export type WatchedPort = {
  /** The VM has taken all that was written to it. */
  readonly drained: boolean;
  /** All that the VM has sent was read. */
  readonly exhausted: boolean;
};

export class SleepWatch {
  /** Looks taken, for the cost. */
  looks = 0;
  private readonly port: WatchedPort;
  private readonly sight: () => SleepSight | null;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly asleep: () => void;
  private phase: 'resting' | 'turns' | 'timer' = 'resting';
  private sinceMs = 0 as Instant;
  private turnsSinceMs = 0;
  private turns = 0;
  private turnComes = false;
  private cancelTimer: () => void = () => {};

  constructor(options: {
    port: WatchedPort;
    /** of the VM that is at the port now; null without one */
    sight: () => SleepSight | null;
    clock: Clock;
    timers: Timers;
    /** The VM that was watched sleeps. The watch has ended. */
    asleep: () => void;
  }) {
    this.port = options.port;
    this.sight = options.sight;
    this.clock = options.clock;
    this.timers = options.timers;
    this.asleep = options.asleep;
  }

  get isWatching(): boolean {
    return this.phase !== 'resting';
  }

  /** Why nothing can be seen, or null. */
  get blindness(): string | null {
    const sight = this.sight();
    return sight === null ? 'no VM runs' : sight.blindness();
  }

  /** Watches from now on; may call `asleep` before it returns. */
  begin(): void {
    if (this.phase !== 'resting') return;
    this.sinceMs = this.clock.now();
    this.toTurns();
    this.look();
  }

  /** A batch of the VM's output was read. */
  outputSeen(): void {
    if (this.phase === 'resting') return;
    this.toTurns();
    this.look();
  }

  end(): void {
    if (this.phase === 'resting') return;
    this.phase = 'resting';
    this.cancelTimer();
  }

  private toTurns(): void {
    this.cancelTimer();
    this.phase = 'turns';
    this.turns = 0;
    this.turnsSinceMs = this.clock.now();
  }

  private look(): void {
    this.looks++;
    const { port } = this;
    if (port.drained && this.sight()?.isAsleep() === true && port.exhausted) {
      this.end();
      this.asleep();
      return;
    }
    const nowMs = this.clock.now();
    if (this.phase === 'turns' && this.turns++ < TURNS_MAX && nowMs - this.turnsSinceMs < TURNS_MS) {
      this.nextTurn();
      return;
    }
    this.phase = 'timer';
    const ms = (nowMs - this.sinceMs) * TIMER_SHARE;
    this.cancelTimer = this.timers.after(Math.min(Math.max(ms, TIMER_MS_MIN), TIMER_MS_MAX), () =>
      this.look(),
    );
  }

  /** At most one call is on its way, whatever happens meanwhile. */
  private nextTurn(): void {
    if (this.turnComes) return;
    this.turnComes = true;
    this.timers.soon(() => {
      this.turnComes = false;
      if (this.phase === 'turns') this.look();
    });
  }
}
