/**
 * Virtual time: a heap of events, and the processes that they happen to.
 *
 * An event belongs to a process, or to no process (the network, the world). An event of a dead process is dropped; one
 * of a paused process happens when the process continues. Events of one instant keep their order, so a run is a
 * function of its seed. After each event the loop runs all microtasks.
 */
import type { Clock, Timers } from '../../src/io/clock.ts';
import type { Instant } from '../../src/units.ts';
import { EventHeap } from './event-heap.ts';
import type { Die } from './guest/die.ts';

export type Event = { atMs: number; order: number; owner: Process | null; run: (() => void) | null };

/** Runs all waiting microtasks and those that they add, as Node does between two callbacks. */
const settle = (process as unknown as { _tickCallback(): void })._tickCallback.bind(process);

export class Loop {
  nowMs = 0;
  steps = 0;
  /** An exception that would have ended a process. */
  onThrow: (owner: Process | null, cause: unknown) => void = (_, cause) => {
    throw cause;
  };
  private readonly heap = new EventHeap<Event>();
  private readonly later: (() => void)[] = [];
  private order = 0;

  at(atMs: number, owner: Process | null, run: () => void): Event {
    const event: Event = { atMs: Math.max(atMs, this.nowMs), order: ++this.order, owner, run };
    this.heap.push(event);
    return event;
  }

  after(ms: number, owner: Process | null, run: () => void): Event {
    return this.at(this.nowMs + ms, owner, run);
  }

  /** Within an event of no process: runs `run` for `owner` at once, or when that continues. */
  now(owner: Process, run: () => void): void {
    if (owner.continuesAtMs > this.nowMs) this.at(this.nowMs, owner, run);
    else if (owner.alive) this.guarded(owner, run);
  }

  /** Runs `run` when the code that runs now has returned. */
  afterwards(run: () => void): void {
    this.later.push(run);
  }

  /** Runs the next event. Returns false if there is none until `untilMs`. */
  step(untilMs: number): boolean {
    for (;;) {
      const { heap } = this;
      const { first } = heap;
      if (first === undefined || first.atMs > untilMs) return false;
      const event = heap.pop();
      const { owner, run } = event;
      if (run === null || owner?.alive === false) continue;
      if (owner !== null && owner.continuesAtMs > event.atMs) {
        event.atMs = owner.continuesAtMs;
        heap.push(event);
        continue;
      }
      this.nowMs = event.atMs;
      this.steps++;
      this.guarded(owner, run);
      do {
        this.runLater(owner);
        settle();
      } while (this.later.length > 0);
      return true;
    }
  }

  private guarded(owner: Process | null, run: () => void): void {
    try {
      run();
    } catch (cause) {
      this.onThrow(owner, cause);
    }
  }

  private runLater(owner: Process | null): void {
    const { later } = this;
    // Setting a length is expensive, and mostly the list is empty.
    if (later.length === 0) return;
    for (let i = 0; i < later.length; i++) this.guarded(owner, later[i]);
    later.length = 0;
  }
}

/** One turn of an idle process's event loop. */
const TURN_MS = 0.1;
/** Actions that a process had begun before it stopped come before its other events. */
const FIRST_MS = 1e-6;
const WALL_MS = 1_700_000_000_000;

/** A process: a clock of its own, timers, and everything that is lost when it dies. */
export class Process implements Clock, Timers {
  readonly name: string;
  readonly loop: Loop;
  alive = true;
  /** It is paused until then. */
  continuesAtMs = 0;
  /** Notified when it dies: the kernel closes what it had open. */
  readonly onDeath = new Set<() => void>();
  /** Actions on the world that it performs as soon as it continues. */
  private readonly delayed: (() => void)[] = [];
  /** The step in which it stopped in the middle of its own code; the rest of that step runs as if later. */
  private stoppedIn = -1;
  private readonly die: Die;
  private readonly bornMs: number;
  private readonly offsetMs: number;
  private readonly rate: number;

  /** `rate`: how many of its milliseconds pass in one of the world's. */
  constructor(loop: Loop, name: string, die: Die, rate = 1) {
    this.loop = loop;
    this.name = name;
    this.die = die;
    this.bornMs = loop.nowMs;
    this.offsetMs = die.next() * 1_000_000;
    this.rate = rate;
  }

  now(): Instant {
    return (this.offsetMs + (this.presentMs - this.bornMs) * this.rate) as Instant;
  }

  wall(): number {
    return WALL_MS + this.loop.nowMs;
  }

  after(ms: number, call: () => void): () => void {
    // As Node counts: whole milliseconds, at least one, and a little late.
    const whole = Math.max(1, Math.trunc(ms));
    const event = this.loop.at(this.presentMs + whole / this.rate + this.die.next() * 0.2, this, call);
    return () => {
      event.run = null;
    };
  }

  soon(call: () => void): void {
    this.loop.after(TURN_MS, this, call);
  }

  /** Pauses it for `ms` between two events. */
  pause(ms: number): void {
    this.continuesAtMs = Math.max(this.continuesAtMs, this.loop.nowMs + ms);
  }

  /** Pauses it in the middle of the code that runs now: the rest of that acts on the world when it continues. */
  stopHere(ms: number): void {
    this.pause(ms);
    this.stoppedIn = this.loop.steps;
  }

  /** Performs an action of this process on the world: at once, or when it continues. */
  act(run: () => void): void {
    if (this.continuesAtMs <= this.loop.nowMs) run();
    else if (this.delayed.push(run) === 1)
      this.loop.at(this.continuesAtMs - FIRST_MS, null, this.performDelayed);
  }

  /** Its code has acted, and the world does not know it yet. */
  get isMidway(): boolean {
    return this.delayed.length > 0;
  }

  /** The world's time as this process sees it. */
  private get presentMs(): number {
    const { nowMs, steps } = this.loop;
    return this.stoppedIn === steps ? Math.max(nowMs, this.continuesAtMs) : nowMs;
  }

  private readonly performDelayed = (): void => {
    const { loop } = this;
    if (!this.alive) return;
    if (this.continuesAtMs - FIRST_MS > loop.nowMs) {
      loop.at(this.continuesAtMs - FIRST_MS, null, this.performDelayed);
      return;
    }
    this.continuesAtMs = loop.nowMs;
    for (const run of this.delayed.splice(0)) run();
  };

  kill(): void {
    if (!this.alive) return;
    this.alive = false;
    const listeners = [...this.onDeath];
    this.onDeath.clear();
    for (const listener of listeners) listener();
  }
}
