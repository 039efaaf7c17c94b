/** A small virtual network for the tests of guests and clients: a clock, a queue of events, one seeded die per port. */
import { EventHeap } from '../event-heap.ts';
import { Die } from './die.ts';
import type { Machine, MachinePort } from './machine.ts';

export interface LinkOptions {
  readonly delayMs?: number;
  /** Added at random, so that frames overtake each other. */
  readonly jitterMs?: number;
  readonly loss?: number;
  readonly duplication?: number;
}

/** Far more than any test needs; two machines that wake each other without cause reach it soon. */
const EVENTS_MAX = 2_000_000;

type Event = { atMs: number; order: number; run: () => void };

/** All machines on one segment: each frame reaches every other port, as on a hub. */
export class Network {
  now = 0;
  /** Called with every frame that is sent. */
  tap: ((frame: Uint8Array, from: number) => void) | undefined;
  private readonly link: LinkOptions;
  private readonly die: Die;
  private readonly events = new EventHeap<Event>();
  private readonly machines: (Machine | undefined)[] = [];
  private order = 0;

  constructor(seed: number, link: LinkOptions = {}) {
    this.die = new Die(seed);
    this.link = link;
  }

  /** Returns a port for a machine that is plugged in afterwards. `seed` is for the machine's die. */
  port(seed: number): MachinePort & { plug(machine: Machine): void } {
    const index = this.machines.push(undefined) - 1;
    const die = new Die(seed);
    return {
      send: (frame) => this.send(index, frame),
      now: () => this.now,
      wake: (atMs) => this.at(Math.max(atMs, this.now), () => this.machines[index]?.tick()),
      random: () => die.next(),
      plug: (machine) => {
        this.machines[index] = machine;
      },
    };
  }

  /** Runs until that time, until no event is left, or until `done`. */
  run(untilMs: number, done: () => boolean = () => false): void {
    let events = 0;
    for (let next = this.events.first; next !== undefined && next.atMs <= untilMs; next = this.events.first) {
      if (done()) return;
      const event = this.events.pop();
      events += 1;
      if (events > EVENTS_MAX) throw new Error(`the run does not end, at ${this.now} ms`);
      this.now = Math.max(this.now, event.atMs);
      event.run();
    }
  }

  private send(from: number, frame: Uint8Array): void {
    this.tap?.(frame, from);
    const { delayMs = 1, jitterMs = 0, loss = 0, duplication = 0 } = this.link;
    for (let to = 0; to < this.machines.length; to++) {
      if (to === from || this.die.next() < loss) continue;
      for (let copies = this.die.next() < duplication ? 2 : 1; copies > 0; copies--) {
        const atMs = this.now + delayMs + (jitterMs > 0 ? this.die.next() * jitterMs : 0);
        this.at(atMs, () => this.machines[to]?.receive(frame));
      }
    }
  }

  private at(atMs: number, run: () => void): void {
    if (atMs === Number.POSITIVE_INFINITY) return;
    this.order += 1;
    this.events.push({ atMs, order: this.order, run });
  }
}
