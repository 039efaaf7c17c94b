/**
 * Records when bytes arrived, and finds the longest time without an arrival.
 *
 * A gap is the whole interval between two consecutive arrivals. The client itself may cause part of it: a rate
 * limit that did not read, an echo session with nothing outstanding. Each client therefore records when it pauses and
 * resumes. The longest gap is the one with the longest time spent *waiting*, so that a client's own pause is never
 * taken for a blackout. Its reported length is the whole interval, because a blackout that began while the client
 * did not read began no later than that.
 */
import { invariant } from '../../src/error.ts';

/** The time of a kill is read after the signal was sent, so the gap may begin a little earlier. */
export const WINDOW_BEFORE_MS = 100;
/** A failover that takes longer than this is found too: its gap began inside the window. */
export const WINDOW_AFTER_MS = 5000;

export interface Gap {
  readonly fromMs: number;
  readonly toMs: number;
  /** The whole interval. */
  readonly ms: number;
  /** The part in which the client waited for bytes; gaps are ranked by it. */
  readonly waitedMs: number;
  /** True while no byte has ended the gap. */
  readonly open: boolean;
}

/** A bounded record of arrivals. At the limit it forgets the older half; a question about that half is an error. */
export class Arrivals {
  /** 6 MiB; a demo's busiest client records about a hundred thousand arrivals. */
  static readonly KEPT_MAX = 262_144;

  readonly #limit: number;
  #times = new Float64Array(1024);
  /** The client's own pauses in the interval that ends at the arrival. */
  #paused = new Float64Array(1024);
  /** Sum of the amounts up to and including this arrival. */
  #totals = new Float64Array(1024);
  #length = 0;
  #pausedSinceLastMs = 0;
  #pauseBeganMs = Number.NaN;
  #finished = false;
  #forgotten = false;

  /** Number of arrivals, forgotten ones included. */
  count = 0;
  /** Sum of the amounts that arrived. */
  total = 0;

  constructor(limit = Arrivals.KEPT_MAX) {
    invariant(limit >= 2, 'a record of arrivals needs room for two');
    this.#limit = limit;
  }

  /** Marks the client as active: the first gap begins now. */
  start(atMs: number): void {
    invariant(this.#length === 0, 'arrivals start once');
    this.#append(atMs, 0);
  }

  arrive(atMs: number, amount = 1): void {
    invariant(this.#length > 0, 'an arrival before the start');
    invariant(!this.#finished, 'an arrival after the end');
    this.count += 1;
    this.total += amount;
    const pausing = !Number.isNaN(this.#pauseBeganMs);
    if (pausing) this.resume(atMs);
    this.#append(atMs, this.#pausedSinceLastMs);
    this.#pausedSinceLastMs = 0;
    if (pausing) this.pause(atMs);
  }

  /** Marks the client as not waiting, until `resume`. */
  pause(atMs: number): void {
    if (Number.isNaN(this.#pauseBeganMs)) this.#pauseBeganMs = atMs;
  }

  resume(atMs: number): void {
    if (Number.isNaN(this.#pauseBeganMs)) return;
    this.#pausedSinceLastMs += atMs - this.#pauseBeganMs;
    this.#pauseBeganMs = Number.NaN;
  }

  /** Marks the client as done: the last gap lasts from the last arrival until now. */
  finish(atMs: number): void {
    if (this.#finished || this.#length === 0) return;
    this.resume(atMs);
    this.#append(Math.max(atMs, this.#times[this.#length - 1]), this.#pausedSinceLastMs);
    this.#finished = true;
  }

  get finished(): boolean {
    return this.#finished;
  }

  /** Returns the amount that arrived after `sinceMs`, as far as it is remembered. */
  amountSince(sinceMs: number): number {
    const index = this.#firstAfter(sinceMs);
    return this.total - (index === 0 ? 0 : this.#totals[index - 1]);
  }

  /** Returns the longest gap that overlaps [fromMs, toMs], or undefined if the client was not active then. */
  longestGap(fromMs: number, toMs: number, nowMs: number): Gap | undefined {
    if (this.#length === 0) return undefined;
    invariant(!this.#forgotten || fromMs >= this.#times[0], 'the arrivals around that time are forgotten');
    let longest: Gap | undefined;
    // The first interval that can overlap ends at the first arrival after fromMs.
    for (let i = Math.max(1, this.#firstAfter(fromMs)); i < this.#length; i += 1) {
      const began = this.#times[i - 1];
      if (began > toMs) break;
      longest = longer(longest, began, this.#times[i], this.#paused[i], false);
    }
    const last = this.#times[this.#length - 1];
    if (!this.#finished && last <= toMs && nowMs > last && nowMs >= fromMs) {
      const pausing = Number.isNaN(this.#pauseBeganMs) ? 0 : Math.max(0, nowMs - this.#pauseBeganMs);
      longest = longer(longest, last, nowMs, this.#pausedSinceLastMs + pausing, true);
    }
    return longest;
  }

  /** Returns the index of the first arrival later than `ms`. */
  #firstAfter(ms: number): number {
    let low = 0;
    let high = this.#length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#times[middle] > ms) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #append(atMs: number, pausedMs: number): void {
    invariant(this.#length === 0 || atMs >= this.#times[this.#length - 1], 'the clock of arrivals went back');
    if (this.#length === this.#limit) this.#forgetHalf();
    if (this.#length === this.#times.length) {
      const size = Math.min(this.#length * 2, Math.max(this.#limit, this.#length));
      this.#times = grown(this.#times, size);
      this.#paused = grown(this.#paused, size);
      this.#totals = grown(this.#totals, size);
    }
    this.#times[this.#length] = atMs;
    this.#paused[this.#length] = pausedMs;
    this.#totals[this.#length] = this.total;
    this.#length += 1;
  }

  #forgetHalf(): void {
    const from = this.#length >>> 1;
    this.#times.copyWithin(0, from, this.#length);
    this.#paused.copyWithin(0, from, this.#length);
    this.#totals.copyWithin(0, from, this.#length);
    this.#length -= from;
    this.#forgotten = true;
  }
}

function grown(values: Float64Array<ArrayBuffer>, size: number): Float64Array<ArrayBuffer> {
  const larger = new Float64Array(size);
  larger.set(values);
  return larger;
}

function longer(best: Gap | undefined, fromMs: number, toMs: number, pausedMs: number, open: boolean): Gap {
  const ms = toMs - fromMs;
  const waitedMs = Math.max(0, ms - pausedMs);
  if (best !== undefined && waitedMs <= best.waitedMs) return best;
  return { fromMs, toMs, ms, waitedMs, open };
}

/** Returns the longest gap that this client had around a kill. */
export function gapAround(arrivals: Arrivals, killMs: number, nowMs: number): Gap | undefined {
  return arrivals.longestGap(killMs - WINDOW_BEFORE_MS, killMs + WINDOW_AFTER_MS, nowMs);
}

export interface Blackout {
  /** The name of the client that had it. */
  readonly client: string;
  readonly gap: Gap;
}

/** Returns a failover's blackout: the longest gap of the given clients, which must be always active ones. */
export function blackout(
  clients: Readonly<Record<string, Arrivals>>,
  killMs: number,
  nowMs: number,
): Blackout | undefined {
  let worst: Blackout | undefined;
  for (const [client, arrivals] of Object.entries(clients)) {
    const gap = gapAround(arrivals, killMs, nowMs);
    if (gap === undefined) continue;
    if (worst === undefined || gap.waitedMs > worst.gap.waitedMs) worst = { client, gap };
  }
  return worst;
}
