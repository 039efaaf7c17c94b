/**
 * Sends many short requests to the counter, and checks that it hands out each number once and in order.
 *
 * Several workers each open a connection, ask `next` a few times, close it, and open another. Two things must hold over
 * all of them and over the whole run, failovers included: no number is handed out twice, and a request that was sent
 * after this process had received the number n gets a number greater than n. Two requests that were under way
 * together may be served in any order, so their order is not checked.
 *
 * A connection that breaks is counted, and the worker opens another one.
 */
import { ColoError, messageOf } from '../../src/error.ts';
import { Findings } from './findings.ts';
import { Arrivals } from './gaps.ts';
import { LineConnection } from './lines.ts';
import {
  Breaks,
  BrokenConnection,
  type Clock,
  monotonicMs,
  name,
  rest,
  type Target,
  whenAborted,
} from './net.ts';
import { NumberSet } from './number-set.ts';
import { Samples } from './samples.ts';

export interface CounterOptions {
  readonly target: Target;
  readonly workers?: number;
  readonly requestsPerConnection?: number;
  /**
   * Pause between two connections of a worker. Every connection leaves a local port in TIME_WAIT for a minute, and
   * there are about 28000 ports, so all workers together must stay below 470 connections per second.
   */
  readonly restMs?: number;
  readonly connectTimeoutMs?: number;
  readonly requestTimeoutMs?: number;
  readonly closeTimeoutMs?: number;
  /** How long a request or a close may still take after the signal. */
  readonly drainMs?: number;
  readonly clock?: Clock;
}

/** Which worker received a number, and when. */
export interface CounterReply {
  readonly number: number;
  readonly worker: number;
  readonly connection: number;
  readonly sentMs: number;
  readonly receivedMs: number;
}

export type CounterFinding =
  /** `first` is missing if the first reply is no longer remembered. */
  | { readonly kind: 'twice'; readonly reply: CounterReply; readonly first: CounterReply | undefined }
  /** `seen` was received before the request was sent, and is greater than the reply. */
  | { readonly kind: 'out-of-order'; readonly reply: CounterReply; readonly seen: CounterReply }
  | {
      readonly kind: 'malformed' | 'unasked';
      readonly worker: number;
      readonly atMs: number;
      readonly line: string;
    };

export interface CounterReport {
  readonly ok: boolean;
  readonly replies: number;
  readonly connections: number;
  /** Numbers between the lowest and the highest that no worker received: lost replies, other clients. */
  readonly missing: number;
  readonly findings: Findings<CounterFinding>;
  readonly broken: Breaks;
}

/** How many replies are remembered with their details, for the text of findings. */
const REMEMBERED = 65_536;
/** Pause after a break, so that workers do not ask a dead service thousands of times per second. */
const REST_BROKEN_MS = 100;
/** A line that is a number and nothing else; 15 digits are exact in a double. */
const NUMBER = /^\d{1,15}$/;

export class Counter {
  readonly arrivals = new Arrivals();
  /** Time from sending a request to its reply. */
  readonly responses = new Samples();
  readonly findings = new Findings<CounterFinding>();
  readonly broken = new Breaks();
  replies = 0;
  connections = 0;

  readonly #options: CounterOptions;
  readonly #clock: Clock;
  readonly #seen = new NumberSet();
  readonly #latest = new Map<number, CounterReply>();
  readonly #live = new Set<LineConnection>();
  #highest: CounterReply | undefined;
  #lowestNumber = Number.POSITIVE_INFINITY;
  #wanting = 0;

  constructor(options: CounterOptions) {
    this.#options = options;
    this.#clock = options.clock ?? monotonicMs;
  }

  /** Runs until the signal, then waits for requests under way and checks their replies. Never rejects. */
  async run(signal: AbortSignal): Promise<CounterReport> {
    const { workers = 4, drainMs = 5000 } = this.#options;
    this.arrivals.start(this.#clock());
    this.arrivals.pause(this.#clock());
    let drainTimer: NodeJS.Timeout | undefined;
    const forget = whenAborted(signal, () => {
      drainTimer = setTimeout(() => {
        const error = new BrokenConnection('timeout', `not done ${drainMs} ms after the end`);
        for (const connection of this.#live) connection.destroy(error);
      }, drainMs);
    });
    await Promise.all(Array.from({ length: workers }, (_, worker) => this.#work(worker, signal)));
    forget();
    clearTimeout(drainTimer);
    this.arrivals.finish(this.#clock());
    return {
      ok: this.replies > 0 && this.findings.count === 0,
      replies: this.replies,
      connections: this.connections,
      missing:
        this.#highest === undefined ? 0 : this.#highest.number - this.#lowestNumber + 1 - this.#seen.size,
      findings: this.findings,
      broken: this.broken,
    };
  }

  async #work(worker: number, signal: AbortSignal): Promise<void> {
    const { restMs = 20 } = this.#options;
    while (!signal.aborted) {
      this.connections += 1;
      const number = this.connections;
      const whole = await this.#converse(worker, number, signal);
      await rest(whole ? restMs : Math.max(restMs, REST_BROKEN_MS), signal);
    }
  }

  /** Makes one connection, from SYN to FIN. Returns false if it broke. */
  async #converse(worker: number, number: number, signal: AbortSignal): Promise<boolean> {
    const { target, requestsPerConnection = 5, connectTimeoutMs = 10_000 } = this.#options;
    const { requestTimeoutMs = 10_000, closeTimeoutMs = 10_000 } = this.#options;
    let doing = 'connect';
    let connection: LineConnection | undefined;
    this.#want();
    try {
      connection = await LineConnection.open(target, connectTimeoutMs, (line) => {
        this.findings.add({ kind: 'unasked', worker, atMs: this.#clock(), line });
      });
      this.#live.add(connection);
      for (let i = 1; i <= requestsPerConnection && !signal.aborted; i += 1) {
        doing = `request ${i}`;
        const floor = this.#highest;
        const sentMs = this.#clock();
        const line = await connection.ask('next', requestTimeoutMs);
        this.#check(line, worker, number, sentMs, floor);
      }
      doing = 'close';
      await connection.close(closeTimeoutMs);
      return true;
    } catch (error) {
      const port = connection === undefined ? '' : ` from port ${connection.localPort}`;
      this.broken.note(
        error,
        `counter worker ${worker}, connection ${number}${port}, ${doing}`,
        this.#clock(),
      );
      return false;
    } finally {
      this.#wantNoMore();
      if (connection !== undefined) this.#live.delete(connection);
    }
  }

  #check(
    line: string,
    worker: number,
    connection: number,
    sentMs: number,
    floor: CounterReply | undefined,
  ): void {
    const receivedMs = this.#clock();
    this.arrivals.arrive(receivedMs);
    if (!NUMBER.test(line)) {
      this.findings.add({ kind: 'malformed', worker, atMs: receivedMs, line });
      return;
    }
    const reply: CounterReply = { number: Number(line), worker, connection, sentMs, receivedMs };
    this.replies += 1;
    this.responses.add(receivedMs - sentMs);
    const added = this.#seen.add(reply.number);
    if (added === 'present') {
      this.findings.add({ kind: 'twice', reply, first: this.#latest.get(reply.number) });
    } else if (added === 'full') {
      // The numbers are too scattered to remember: the counter did not count up to this one.
      this.findings.add({ kind: 'malformed', worker, atMs: receivedMs, line });
    } else {
      this.#remember(reply);
    }
    if (floor !== undefined && reply.number < floor.number) {
      this.findings.add({ kind: 'out-of-order', reply, seen: floor });
    }
    if (this.#highest === undefined || reply.number > this.#highest.number) this.#highest = reply;
    if (reply.number < this.#lowestNumber) this.#lowestNumber = reply.number;
  }

  #remember(reply: CounterReply): void {
    this.#latest.set(reply.number, reply);
    if (this.#latest.size <= REMEMBERED) return;
    // A Map iterates in the order of insertion, so the first key is the oldest.
    for (const oldest of this.#latest.keys()) {
      this.#latest.delete(oldest);
      break;
    }
  }

  /** While no worker has a connection, this client waits for no byte. */
  #want(): void {
    if (this.#wanting === 0) this.arrivals.resume(this.#clock());
    this.#wanting += 1;
  }

  #wantNoMore(): void {
    this.#wanting -= 1;
    if (this.#wanting === 0) this.arrivals.pause(this.#clock());
  }
}

/** The guest's own counts. */
export interface CounterStats {
  readonly udp: number;
  readonly udpDistinct: number;
  readonly udpDuplicates: number;
  readonly icmp: number;
  readonly next: number;
}

const STATS_FIELDS = ['udp', 'udpDistinct', 'udpDuplicates', 'icmp', 'next'] as const;

/** Asks the guest for its counts. Throws COLO_LAB_CLIENT. */
export async function counterStats(target: Target, timeoutMs = 10_000): Promise<CounterStats> {
  let line = '';
  try {
    const connection = await LineConnection.open(target, timeoutMs, () => undefined);
    line = await connection.ask('stats', timeoutMs);
    await connection.close(timeoutMs);
  } catch (error) {
    const why = messageOf(error);
    throw new ColoError('COLO_LAB_CLIENT', `no statistics from the counter at ${name(target)}: ${why}`, {
      cause: error,
    });
  }
  const values = parseStats(line);
  if (values === undefined) {
    throw new ColoError(
      'COLO_LAB_CLIENT',
      `the counter at ${name(target)} replied '${line}', not its statistics`,
    );
  }
  return values;
}

function parseStats(line: string): CounterStats | undefined {
  let parsed: unknown;
  try {
    parsed = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof parsed !== 'object' || parsed === null) return undefined;
  const stats = { udp: 0, udpDistinct: 0, udpDuplicates: 0, icmp: 0, next: 0 };
  const fields = new Map<string, unknown>(Object.entries(parsed));
  for (const field of STATS_FIELDS) {
    const value = fields.get(field);
    if (typeof value !== 'number') return undefined;
    stats[field] = value;
  }
  return stats;
}
