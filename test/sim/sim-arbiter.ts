/** The arbiter: one record in memory, reached by each node over a way that can be slow, cut, or lose answers. */
import { ColoError } from '../../src/error.ts';
import type { Arbiter, Held, PairRecord } from '../../src/pair/arbiter.ts';
import type { Die } from './guest/die.ts';
import type { Process } from './loop.ts';

export type ArbiterWay = {
  delayMsMax: number;
  /** unreachable until then */
  cutUntilMs: number;
  /** how many answers are lost, of changes that were made and of those that were not */
  lossy: number;
};

/** Which way of a question does not get through, if any. */
export type Lost = 'request' | 'answer' | null;

export class ArbiterRecord {
  held: Held = { revision: 0, record: null };
  onChange: (record: PairRecord, by: string) => void = () => {};
  /** Told of each change that is asked for; answers what is lost of that one. */
  onAsked: (record: PairRecord) => Lost = () => null;
}

const TIMEOUT_MS = 500;

export class SimArbiter implements Arbiter {
  private readonly store: ArbiterRecord;
  private readonly way: ArbiterWay;
  private readonly owner: Process;
  private readonly die: Die;

  constructor(store: ArbiterRecord, way: ArbiterWay, owner: Process, die: Die) {
    this.store = store;
    this.way = way;
    this.owner = owner;
    this.die = die;
  }

  read(): Promise<Held> {
    return this.ask(() => ({ ...this.store.held }));
  }

  compareAndSwap(revision: number, record: PairRecord): Promise<Held & { won: boolean }> {
    const lost = this.store.onAsked(record);
    return this.ask(() => {
      const won = this.store.held.revision === revision;
      if (won) {
        this.store.held = { revision: revision + 1, record };
        this.store.onChange(record, this.owner.name);
      }
      return { ...this.store.held, won };
    }, lost);
  }

  /** The question arrives, or not; is carried out; and the answer arrives, or not. */
  private ask<T>(carryOut: () => T, surelyLost: Lost = null): Promise<T> {
    const { owner, way, die } = this;
    const { loop } = owner;
    return new Promise((resolve, reject) => {
      const fail = () =>
        loop.after(TIMEOUT_MS, owner, () =>
          reject(new ColoError('COLO_ARBITER_UNREACHABLE', 'the arbiter does not answer')),
        );
      const there = die.next() * way.delayMsMax;
      const back = die.next() * way.delayMsMax;
      const lost = surelyLost !== null || (way.lossy > 0 && die.next() < way.lossy);
      const lostThere = surelyLost === 'request' || (surelyLost === null && lost && die.next() < 0.5);
      // Once sent, it is on its way even if the node dies.
      const arrive = () => {
        if (way.cutUntilMs > loop.nowMs || lostThere) {
          fail();
          return;
        }
        const answer = carryOut();
        loop.after(back, null, () => {
          if (way.cutUntilMs > loop.nowMs || lost) fail();
          else loop.after(0, owner, () => resolve(answer));
        });
      };
      owner.act(() => loop.after(there, null, arrive));
    });
  }
}
