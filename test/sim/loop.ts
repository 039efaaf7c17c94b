/**
 * Virtual time: a heap of what happens when, and the processes that it happens to.
 *
 * Whatever happens belongs to a process, or to nobody (the network, the world). What happens to a dead process does
 * not happen; what happens to one that stands still happens when it goes on. Events of one instant keep their order,
 * so a run is a function of its seed. After each event everything that promises can do is done.
 */
import type { Clock, Timers } from '../../src/io/clock.ts';
import type { Instant } from '../../src/units.ts';
import type { Die } from './guest/die.ts';

export type Event = { atMs: number; order: number; owner: Process | null; run: (() => void) | null };

/** Runs all microtasks that wait, also those that they cause: what Node does between two of its own callbacks. */
const settle = (process as unknown as { _tickCallback(): void })._tickCallback.bind(process);

export class Loop {
  nowMs = 0;
  steps = 0;
  /** An exception that would have ended a process. */
  onThrow: (owner: Process | null, cause: unknown) => void = (_, cause) => {
    throw cause;
  };
  private readonly heap: Event[] = [];
  private readonly later: (() => void)[] = [];
  private order = 0;

  at(atMs: number, owner: Process | null, run: () => void): Event {
    const event: Event = { atMs: Math.max(atMs, this.nowMs), order: ++this.order, owner, run };
    this.push(event);
    return event;
  }

  after(ms: number, owner: Process | null, run: () => void): Event {
    return this.at(this.nowMs + ms, owner, run);
  }

  /** Within an event that is nobody's: what it means for `owner`, at once, or when that goes on. */
  now(owner: Process, run: () => void): void {
    if (owner.goesOnAtMs > this.nowMs) this.at(this.nowMs, owner, run);
    else if (owner.alive) this.guarded(owner, run);
  }

  /** Once the code that runs now has returned. */
  afterwards(run: () => void): void {
    this.later.push(run);
  }

  /** Runs the next event; answers false when there is none until `untilMs`. */
  step(untilMs: number): boolean {
    for (;;) {
      const { heap } = this;
      if (heap.length === 0 || heap[0].atMs > untilMs) return false;
      const event = this.pop();
      const { owner, run } = event;
      if (run === null || owner?.alive === false) continue;
      if (owner !== null && owner.goesOnAtMs > event.atMs) {
        event.atMs = owner.goesOnAtMs;
        this.push(event);
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
    // Setting a length is dear, and mostly there is nothing.
    if (later.length === 0) return;
    for (let i = 0; i < later.length; i++) this.guarded(owner, later[i]);
    later.length = 0;
  }

  private push(event: Event): void {
    const { heap } = this;
    let i = heap.push(event) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(event, heap[parent])) break;
      heap[i] = heap[parent];
      i = parent;
    }
    heap[i] = event;
  }

  private pop(): Event {
    const { heap } = this;
    const top = heap[0];
    const last = heap.pop() as Event;
    if (heap.length === 0) return top;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1], heap[child])) child++;
      if (!before(heap[child], last)) break;
      heap[i] = heap[child];
      i = child;
    }
    heap[i] = last;
    return top;
  }
}

function before(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/** One turn of a process's event loop that has nothing else to do. */
const TURN_MS = 0.1;
/** What was begun comes before anything else that waited. */
const FIRST_MS = 1e-6;
const WALL_MS = 1_700_000_000_000;

/** A process: a clock of its own, timers, and everything that is lost when it dies. */
export class Process implements Clock, Timers {
  readonly name: string;
  readonly loop: Loop;
  alive = true;
  /** It stands still until then. */
  goesOnAtMs = 0;
  /** Told when it dies: the kernel closes what it had open. */
  readonly onDeath = new Set<() => void>();
  /** What it does to the world as soon as it goes on. */
  private readonly held: (() => void)[] = [];
  /** The step in which it stopped in the middle of its own code, the rest of which runs as if later. */
  private stoppedIn = -1;
  private readonly die: Die;
  private readonly bornMs: number;
  private readonly offsetMs: number;
  private readonly rate: number;

  /** `rate` is how many of its milliseconds pass in one of the world's. */
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

  /** It stands still for so long, and then goes on as if nothing had been. */
  pause(ms: number): void {
    this.goesOnAtMs = Math.max(this.goesOnAtMs, this.loop.nowMs + ms);
  }

  /** The same from within its own code: what the rest of that does, it does when it goes on. */
  stopHere(ms: number): void {
    this.pause(ms);
    this.stoppedIn = this.loop.steps;
  }

  /** Something that this process does to the world: at once, unless it stands still. */
  act(run: () => void): void {
    if (this.goesOnAtMs <= this.loop.nowMs) run();
    else if (this.held.push(run) === 1) this.loop.at(this.goesOnAtMs - FIRST_MS, null, this.goOn);
  }

  /** It has done something in its code that the world does not know yet. */
  get isMidway(): boolean {
    return this.held.length > 0;
  }

  /** In the world's milliseconds, as this process sees it. */
  private get presentMs(): number {
    const { nowMs, steps } = this.loop;
    return this.stoppedIn === steps ? Math.max(nowMs, this.goesOnAtMs) : nowMs;
  }

  private readonly goOn = (): void => {
    const { loop } = this;
    if (!this.alive) return;
    if (this.goesOnAtMs - FIRST_MS > loop.nowMs) {
      loop.at(this.goesOnAtMs - FIRST_MS, null, this.goOn);
      return;
    }
    this.goesOnAtMs = loop.nowMs;
    for (const run of this.held.splice(0)) run();
  };

  kill(): void {
    if (!this.alive) return;
    this.alive = false;
    const told = [...this.onDeath];
    this.onDeath.clear();
    for (const tell of told) tell();
  }
}
