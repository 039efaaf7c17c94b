/**
 * The arbiter: one record in memory. Each node reaches it by a way that can be slow, be cut, or lose replies. As etcd may, it can
 * report an error and make the change later.
 */
import { ColoError } from '../../src/error.ts';
import type { Arbiter, PairRecord, Stored } from '../../src/pair/arbiter.ts';
import type { Die } from './guest/die.ts';
import type { Process } from './loop.ts';

export type ArbiterWay = {
  delayMsMax: number;
  /** The arbiter is unreachable until then. */
  cutUntilMs: number;
  /** The share of requests whose request or reply is lost, half each. */
  lossy: number;
};

/** The direction of a request that is lost, if any; or the request is carried out so much later than the error that it ends in. */
export type Lost = 'request' | 'reply' | { readonly lateMs: number } | null;

export class ArbiterRecord {
  stored: Stored = { revision: 0, record: null };
  onChange: (record: PairRecord, by: string) => void = () => {};
  /** Called with each change that a node asks for. Returns what is lost of that request. */
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

  read(): Promise<Stored> {
    return this.ask(() => ({ ...this.store.stored }));
  }

  compareAndSwap(revision: number, record: PairRecord): Promise<Stored & { won: boolean }> {
    const lost = this.store.onAsked(record);
    const carryOut = () => {
      const won = this.store.stored.revision === revision;
      if (won) {
        this.store.stored = { revision: revision + 1, record };
        this.store.onChange(record, this.owner.name);
      }
      return { ...this.store.stored, won };
    };
    return typeof lost === 'object' && lost !== null
      ? this.carryOutLate(carryOut, lost.lateMs)
      : this.ask(carryOut, lost);
  }

  /** The request arrives, its reply is an error, and it is carried out later. */
  private carryOutLate(carryOut: () => unknown, lateMs: number): Promise<never> {
    const { owner, way } = this;
    const { loop } = owner;
    return new Promise((_, reject) => {
      owner.act(() => {
        loop.after(way.delayMsMax + lateMs, null, () => void carryOut());
        loop.after(2 * way.delayMsMax, owner, () => reject(noReply()));
      });
    });
  }

  /** Draws nothing, so that a node that asks regularly leaves its world as it was. */
  probe(): Promise<Stored> {
    const { owner, way } = this;
    const { loop } = owner;
    return new Promise((resolve, reject) => {
      loop.after(way.delayMsMax, owner, () => {
        if (way.cutUntilMs > loop.nowMs) reject(noReply());
        else resolve({ ...this.store.stored });
      });
    });
  }

  close(): void {}

  /** Sends a request, which arrives or not and is then carried out; and its reply, which arrives or not. */
  private ask<T>(carryOut: () => T, surelyLost: 'request' | 'reply' | null = null): Promise<T> {
    const { owner, way, die } = this;
    const { loop } = owner;
    return new Promise((resolve, reject) => {
      const fail = () => loop.after(TIMEOUT_MS, owner, () => reject(noReply()));
      const there = die.next() * way.delayMsMax;
      const back = die.next() * way.delayMsMax;
      const lost = surelyLost !== null || (way.lossy > 0 && die.next() < way.lossy);
      const lostThere = surelyLost === 'request' || (surelyLost === null && lost && die.next() < 0.5);
      // A request that was sent arrives even if the node dies.
      const arrive = () => {
        if (way.cutUntilMs > loop.nowMs || lostThere) {
          fail();
          return;
        }
        const reply = carryOut();
        loop.after(back, null, () => {
          if (way.cutUntilMs > loop.nowMs || lost) fail();
          else loop.after(0, owner, () => resolve(reply));
        });
      };
      owner.act(() => loop.after(there, null, arrive));
    });
  }
}

const noReply = (): ColoError => new ColoError('COLO_ARBITER_UNREACHABLE', 'the arbiter does not reply');
