/**
 * Stores values in the guest, and reads back what was acknowledged.
 *
 * One connection puts a new value under one of a few keys, waits for the reply, and then gets a key at random. A key's value must
 * be the one that was acknowledged last; one whose put was sent and not acknowledged, because the connection broke, may also be there.
 */
import { Findings } from './findings.ts';
import { Arrivals } from './gaps.ts';
import { LineConnection } from './lines.ts';
import { Breaks, type Clock, monotonicMs, rest, type Target } from './net.ts';
import { Random } from './random.ts';

export interface StoreOptions {
  readonly target: Target;
  readonly everyMs?: number;
  readonly keys?: number;
  /** The beginning of the keys' names. The guest keeps values, so each store needs keys that nobody has used before. */
  readonly prefix?: string;
  readonly seed?: number;
  readonly connectTimeoutMs?: number;
  readonly requestTimeoutMs?: number;
  readonly clock?: Clock;
}

export interface StoreFinding {
  readonly atMs: number;
  readonly key: string;
  /** what the guest replied, and what it may have replied */
  readonly got: string;
  readonly allowed: readonly string[];
}

export interface StoreReport {
  readonly ok: boolean;
  readonly puts: number;
  readonly gets: number;
  readonly findings: Findings<StoreFinding>;
  readonly broken: Breaks;
}

const REST_BROKEN_MS = 100;
/** Before the first value, a key has none. */
const NONE = 'none';

export class Store {
  readonly arrivals = new Arrivals();
  readonly findings = new Findings<StoreFinding>();
  readonly broken = new Breaks();
  puts = 0;
  gets = 0;

  private readonly options: StoreOptions;
  private readonly clock: Clock;
  private readonly random: Random;
  /** by key, the values that it may have */
  private readonly allowed = new Map<string, readonly string[]>();

  constructor(options: StoreOptions) {
    this.options = options;
    this.clock = options.clock ?? monotonicMs;
    this.random = new Random(options.seed ?? 1);
  }

  /** Runs until the signal, then reads every key once more. Never rejects. */
  async run(signal: AbortSignal): Promise<StoreReport> {
    this.arrivals.start(this.clock());
    while (!signal.aborted) {
      await this.converse(signal);
      await rest(REST_BROKEN_MS, signal);
    }
    this.arrivals.finish(this.clock());
    return {
      ok: this.puts > 0 && this.findings.count === 0,
      puts: this.puts,
      gets: this.gets,
      findings: this.findings,
      broken: this.broken,
    };
  }

  private async converse(signal: AbortSignal): Promise<void> {
    const { target, everyMs = 50, keys = 100, prefix = 'k' } = this.options;
    const { connectTimeoutMs = 10_000, requestTimeoutMs = 10_000 } = this.options;
    try {
      const connection = await LineConnection.open(target, connectTimeoutMs, (line) =>
        this.find('', line, ['nothing']),
      );
      const ask = async (line: string): Promise<string> => {
        this.arrivals.resume(this.clock());
        const reply = await connection.ask(line, requestTimeoutMs);
        this.arrivals.arrive(this.clock());
        this.arrivals.pause(this.clock());
        return reply;
      };
      while (!signal.aborted) {
        await this.put(ask, `${prefix}${this.random.between(1, keys)}`);
        await this.get(ask, `${prefix}${this.random.between(1, keys)}`);
        await rest(everyMs, signal);
      }
      for (const key of this.allowed.keys()) await this.get(ask, key);
      await connection.close(requestTimeoutMs);
    } catch (error) {
      this.broken.note(error, `store, after ${this.puts} puts`, this.clock());
    }
  }

  private async put(ask: (line: string) => Promise<string>, key: string): Promise<void> {
    const value = `v${this.puts}x${this.random.next()}`;
    this.allowed.set(key, [...(this.allowed.get(key) ?? [NONE]), value]);
    const reply = await ask(`put ${key} ${value}`);
    if (reply !== 'stored') this.find(key, reply, ['stored']);
    this.allowed.set(key, [value]);
    this.puts += 1;
  }

  private async get(ask: (line: string) => Promise<string>, key: string): Promise<void> {
    const value = await ask(`get ${key}`);
    const allowed = this.allowed.get(key) ?? [NONE];
    this.gets += 1;
    if (!allowed.includes(value)) this.find(key, value, allowed);
    // It cannot become another one of them later.
    if (this.allowed.has(key)) this.allowed.set(key, [value]);
  }

  private find(key: string, got: string, allowed: readonly string[]): void {
    this.findings.add({ atMs: this.clock(), key, got, allowed });
  }
}
