/**
 * Has the guest write lines to its disk, one after the other, and remembers each that the guest has acknowledged: from then on it
 * must be on the disk, whatever happens.
 *
 * One line at a time is under way, and each is new. A line that the disk lacks, has twice, or has in another order than it was
 * written in, is a fault.
 */
import { Arrivals } from './gaps.ts';
import { LineConnection } from './lines.ts';
import { Breaks, type Clock, monotonicMs, rest, type Target } from './net.ts';

export interface WriterOptions {
  readonly target: Target;
  readonly everyMs?: number;
  /** The beginning of each line: letters and digits. The guest keeps lines, so each writer needs one of its own. */
  readonly prefix?: string;
  readonly connectTimeoutMs?: number;
  readonly requestTimeoutMs?: number;
  readonly clock?: Clock;
}

/** What is wrong with the lines of a disk. */
export interface LineFaults {
  /** lines that were acknowledged and are not there */
  readonly lost: readonly string[];
  /** lines that are there and should not, or not at their place */
  readonly strange: readonly string[];
}

const REST_BROKEN_MS = 100;

export class Writer {
  readonly arrivals = new Arrivals();
  readonly broken = new Breaks();
  /** replies other than an acknowledgement */
  readonly refused: string[] = [];
  private readonly options: WriterOptions;
  private readonly prefix: string;
  private readonly clock: Clock;
  private readonly lines: { readonly text: string; acknowledged: boolean }[] = [];

  constructor(options: WriterOptions) {
    this.options = options;
    this.prefix = options.prefix ?? 'line';
    this.clock = options.clock ?? monotonicMs;
  }

  get acknowledged(): number {
    return this.lines.filter(({ acknowledged }) => acknowledged).length;
  }

  /** Runs until the signal. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    this.arrivals.start(this.clock());
    while (!signal.aborted) {
      await this.converse(signal);
      await rest(REST_BROKEN_MS, signal);
    }
    this.arrivals.finish(this.clock());
  }

  /** Compares what was acknowledged with the lines of a disk that are this writer's. */
  compare(disk: readonly string[]): LineFaults {
    const found = disk.filter((line) => line.startsWith(`${this.prefix}n`));
    const places = new Map(this.lines.map(({ text }, place) => [text, place]));
    const strange: string[] = [];
    let last = -1;
    for (const line of found) {
      const place = places.get(line) ?? -1;
      if (place <= last) strange.push(line);
      else last = place;
    }
    const there = new Set(found);
    const lost = this.lines.filter(({ text, acknowledged }) => acknowledged && !there.has(text));
    return { lost: lost.map(({ text }) => text), strange };
  }

  private async converse(signal: AbortSignal): Promise<void> {
    const { target, everyMs = 20, connectTimeoutMs = 10_000, requestTimeoutMs = 10_000 } = this.options;
    try {
      const connection = await LineConnection.open(target, connectTimeoutMs, (line) =>
        this.refused.push(line),
      );
      while (!signal.aborted) {
        const line = { text: `${this.prefix}n${this.lines.length}`, acknowledged: false };
        this.lines.push(line);
        this.arrivals.resume(this.clock());
        const reply = await connection.ask(`write ${line.text}`, requestTimeoutMs);
        this.arrivals.arrive(this.clock());
        this.arrivals.pause(this.clock());
        line.acknowledged = reply.startsWith('written ');
        if (!line.acknowledged) this.refused.push(reply);
        await rest(everyMs, signal);
      }
      await connection.close(requestTimeoutMs);
    } catch (error) {
      this.broken.note(error, `writer, after ${this.lines.length} lines`, this.clock());
    }
  }
}

/** Reads all lines back from the guest's disk. */
export async function readBack(target: Target, timeoutMs: number): Promise<string[]> {
  const connection = await LineConnection.open(target, timeoutMs, () => {});
  const lines: string[] = [];
  for (;;) {
    const reply = await connection.ask(`read ${lines.length + 1}`, timeoutMs);
    if (reply === '') break;
    lines.push(...reply.split(' '));
  }
  await connection.close(timeoutMs);
  return lines;
}
