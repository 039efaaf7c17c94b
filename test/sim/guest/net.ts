/** A small virtual network for the tests of guests and clients: a clock, a queue of events, one seeded die per port. */
import { Die } from './die.ts';
import type { Machine, MachinePort } from './machine.ts';

export interface LinkOptions {
  readonly delayMs?: number;
  /** Added at random, so that frames overtake each other. */
  readonly jitterMs?: number;
  readonly loss?: number;
  readonly duplication?: number;
}

/** Far more than any test needs; two machines that wake each other for nothing reach it soon. */
const EVENTS_MAX = 2_000_000;

type Event = { atMs: number; order: number; run: () => void };

/** All machines on one segment: each frame reaches every other port, as on a hub. */
export class Network {
  now = 0;
  /** Every frame that was sent, if wanted. */
  tap: ((frame: Uint8Array, from: number) => void) | undefined;
  readonly #link: LinkOptions;
  readonly #die: Die;
  readonly #events: Event[] = [];
  readonly #machines: (Machine | undefined)[] = [];
  #order = 0;

  constructor(seed: number, link: LinkOptions = {}) {
    this.#die = new Die(seed);
    this.#link = link;
  }

  /** A port for a machine that is plugged in afterwards. `seed` feeds its die. */
  port(seed: number): MachinePort & { plug(machine: Machine): void } {
    const index = this.#machines.push(undefined) - 1;
    const die = new Die(seed);
    return {
      send: (frame) => this.#send(index, frame),
      now: () => this.now,
      wake: (atMs) => this.#at(Math.max(atMs, this.now), () => this.#machines[index]?.tick()),
      random: () => die.next(),
      plug: (machine) => {
        this.#machines[index] = machine;
      },
    };
  }

  /** Runs until that time, or until nothing is left to happen, or until `done`. */
  run(untilMs: number, done: () => boolean = () => false): void {
    let events = 0;
    while (this.#events.length > 0 && this.#events[0].atMs <= untilMs && !done()) {
      const event = this.#pop();
      events += 1;
      if (events > EVENTS_MAX) throw new Error(`a run that does not end, at ${this.now} ms`);
      this.now = Math.max(this.now, event.atMs);
      event.run();
    }
  }

  #send(from: number, frame: Uint8Array): void {
    this.tap?.(frame, from);
    const { delayMs = 1, jitterMs = 0, loss = 0, duplication = 0 } = this.#link;
    for (let to = 0; to < this.#machines.length; to++) {
      if (to === from || this.#die.next() < loss) continue;
      for (let copies = this.#die.next() < duplication ? 2 : 1; copies > 0; copies--) {
        const atMs = this.now + delayMs + (jitterMs > 0 ? this.#die.next() * jitterMs : 0);
        this.#at(atMs, () => this.#machines[to]?.receive(frame));
      }
    }
  }

  #at(atMs: number, run: () => void): void {
    if (atMs === Number.POSITIVE_INFINITY) return;
    const heap = this.#events;
    this.#order += 1;
    const event = { atMs, order: this.#order, run };
    let i = heap.push(event) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(event, heap[parent])) break;
      heap[i] = heap[parent];
      i = parent;
    }
    heap[i] = event;
  }

  #pop(): Event {
    const heap = this.#events;
    const top = heap[0];
    const last = heap.pop() as Event;
    if (heap.length > 0) {
      let i = 0;
      for (;;) {
        let child = 2 * i + 1;
        if (child >= heap.length) break;
        if (child + 1 < heap.length && before(heap[child + 1], heap[child])) child += 1;
        if (!before(heap[child], last)) break;
        heap[i] = heap[child];
        i = child;
      }
      heap[i] = last;
    }
    return top;
  }
}

function before(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}
