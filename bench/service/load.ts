/**
 * Clients at work. At full load each client sends its next request when it has the last reply. At a given
 * rate each sends at its own times; a request that has to wait for the last reply is as late as a user would find it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { messageOf } from '../../src/error.ts';
import type { Client } from './clients.ts';

export type Outcome = {
  readonly requests: number;
  readonly perSecond: number;
  readonly latenciesMs: readonly number[];
  readonly errors: number;
  readonly firstError: string | null;
};

/** A service that fails this often is not measured any longer. */
const ERRORS_MAX = 20;
const AGAIN_MS = 50;

type Tally = { latenciesMs: number[]; errors: number; firstError: string | null };

export class Load {
  private readonly clients: Client[];
  private readonly open: (index: number) => Promise<Client>;

  private constructor(clients: Client[], open: (index: number) => Promise<Client>) {
    this.clients = clients;
    this.open = open;
  }

  static async start(count: number, open: (index: number) => Promise<Client>): Promise<Load> {
    const load = new Load([], open);
    try {
      for (let index = 0; index < count; index++) load.clients.push(await open(index));
      return load;
    } catch (error) {
      load.close();
      throw error;
    }
  }

  /** Has each client check what the service has acknowledged to it, and returns what is wrong. */
  async check(): Promise<string[]> {
    const wrong: string[] = [];
    for (const client of this.clients) await client.check().catch((error) => wrong.push(messageOf(error)));
    return wrong;
  }

  /** Has all clients work for so long, and to the end of each one's last request; `perSecond` null is full load. */
  async run(ms: number, perSecond: number | null = null): Promise<Outcome> {
    const tally: Tally = { latenciesMs: [], errors: 0, firstError: null };
    const rates = await Promise.all(this.clients.map((_, index) => this.work(index, ms, perSecond, tally)));
    return {
      ...tally,
      requests: tally.latenciesMs.length,
      perSecond: rates.reduce((sum, rate) => sum + rate, 0),
    };
  }

  close(): void {
    for (const client of this.clients) client.close();
  }

  /** Returns the client's requests per second, to the end of its last one. */
  private async work(index: number, ms: number, perSecond: number | null, tally: Tally): Promise<number> {
    const count = this.clients.length;
    const startMs = performance.now();
    const everyMs = perSecond === null ? 0 : (1000 * count) / perSecond;
    let dueMs = startMs + (everyMs * index) / count;
    let done = 0;
    while (performance.now() - startMs < ms) {
      const earlyMs = dueMs - performance.now();
      if (earlyMs > 0) await sleep(earlyMs);
      const fromMs = perSecond === null ? performance.now() : dueMs;
      try {
        await this.clients[index].request();
        tally.latenciesMs.push(performance.now() - fromMs);
        done++;
      } catch (error) {
        tally.firstError ??= messageOf(error);
        if (++tally.errors >= ERRORS_MAX) throw error;
        await this.replace(index);
      }
      dueMs += everyMs;
    }
    return (1000 * done) / (performance.now() - startMs);
  }

  private async replace(index: number): Promise<void> {
    this.clients[index].close();
    await sleep(AGAIN_MS);
    this.clients[index] = await this.open(index);
  }
}
