/** The order in which a process serves its connections: what input in portions is for. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Die } from './die.ts';
import { EpollProcess } from './epoll.ts';

const CLIENTS = 6;
const REQUESTS = 200;

/** A process with clients that each send when they have been served, and the order in which it served. */
class Service {
  nowMs = 0;
  readonly served: number[] = [];
  private readonly waiting = new Set<number>();
  private readonly process: EpollProcess;

  constructor(seed: number) {
    const die = new Die(seed);
    this.process = new EpollProcess(
      { send() {}, wake() {}, now: () => this.nowMs, random: () => die.next() },
      1,
      (id) => this.waiting.has(id),
      (id) => {
        this.waiting.delete(id);
        this.served.push(id);
      },
    );
  }

  get sleeps(): boolean {
    return this.process.runAt === Number.POSITIVE_INFINITY;
  }

  request(id: number): void {
    this.waiting.add(id);
    this.process.note(id);
  }

  run(untilMs: number): void {
    while (this.process.runAt <= untilMs) {
      this.nowMs = this.process.runAt;
      this.process.tick();
    }
    this.nowMs = untilMs;
  }
}

/** Two services of equal state get the same requests; `atRest`: each portion only when both sleep. */
function orders(seed: number, atRest: boolean): [number[], number[]] {
  const die = new Die(seed);
  const [a, b] = [new Service(seed + 1000), new Service(seed + 2000)];
  for (let requests = 0, ms = 0; requests < REQUESTS; ms += 0.7) {
    for (const one of [a, b]) one.run(ms);
    if (atRest && !(a.sleeps && b.sleeps)) continue;
    for (let id = 0; id < CLIENTS; id++) {
      if (!die.chance(atRest ? 0.7 : 0.2)) continue;
      requests++;
      for (const one of [a, b]) one.request(id);
    }
  }
  for (const one of [a, b]) one.run(1e6);
  return [a.served, b.served];
}

test('requests that come while both processes sleep are served in one order', () => {
  for (let seed = 1; seed <= 50; seed++) {
    const [a, b] = orders(seed, true);
    assert.deepEqual(a, b, `seed ${seed}`);
  }
});

test('requests that come at any time are served in two', () => {
  let differ = 0;
  for (let seed = 1; seed <= 50; seed++) {
    const [a, b] = orders(seed, false);
    if (a.join() !== b.join()) differ++;
  }
  assert.ok(differ >= 40, `${differ} of 50`);
});
