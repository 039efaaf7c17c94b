/**
 * When bytes arrived, and the longest time in which none did.
 *
 * A gap is the whole interval between two consecutive arrivals. Part of it may be the client's own doing: a rate
 * limit that did not read, an echo session with nothing outstanding. Each client says when it pauses and resumes,
 * and the longest gap is the one with the longest time spent *waiting*, so a pause of our own is never taken for a
 * blackout. What is reported as its length is the whole interval, because a blackout that began while the client
 * was not looking began no later than that.
 */
import { invariant } from '../../src/error.ts';

/** A kill is stamped after the signal was sent, so the gap may begin a little before it. */
export const WINDOW_BEFORE_MS = 100;
/** A failover that takes longer than this is found all the same: the gap began inside the window. */
export const WINDOW_AFTER_MS = 5000;

export interface Gap {
  readonly fromMs: number;
  readonly toMs: number;
  /** The whole interval. */
  readonly ms: number;
  /** The part in which the client wanted bytes; gaps are ranked by it. */
  readonly waitedMs: number;
  /** No byte has ended it yet. */
  readonly open: boolean;
}

/** A bounded record of arrivals. Beyond the limit the older half is forgotten, and asking about it is an error. */
export class Arrivals {
  /** 6 MiB; a demo's busiest client makes about a hundred thousand arrivals. */
  static readonly KEPT_MAX = 262_144;

  readonly #limit: number;
  #times = new Float64Array(1024);
  /** Own pauses in the interval that ends at the arrival. */
  #paused = new Float64Array(1024);
  /** Everything that had arrived up to and including this arrival. */
  #totals = new Float64Array(1024);
  #length = 0;
  #pausedSinceLastMs = 0;
  #pauseBeganMs = Number.NaN;
  #finished = false;
  #forgotten = false;

  /** Arrivals so far, forgotten ones included. */
  count = 0;
  /** Sum of the amounts that arrived. */
  total = 0;

  constructor(limit = Arrivals.KEPT_MAX) {
    invariant(limit >= 2, 'a record of arrivals needs room for two');
    this.#limit = limit;
  }

  /** From here on the client is active: the first gap begins here. */
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

  /** From here until `resume` the client does not want bytes. */
  pause(atMs: number): void {
    if (Number.isNaN(this.#pauseBeganMs)) this.#pauseBeganMs = atMs;
  }

  resume(atMs: number): void {
    if (Number.isNaN(this.#pauseBeganMs)) return;
    this.#pausedSinceLastMs += atMs - this.#pauseBeganMs;
    this.#pauseBeganMs = Number.NaN;
  }

  /** The client is done: the time from the last arrival to here is the last gap, and none stays open. */
  finish(atMs: number): void {
    if (this.#finished || this.#length === 0) return;
    this.resume(atMs);
    this.#append(Math.max(atMs, this.#times[this.#length - 1]), this.#pausedSinceLastMs);
    this.#finished = true;
  }

  get finished(): boolean {
    return this.#finished;
  }

  /** What arrived after `sinceMs`, as far as it is remembered. */
  amountSince(sinceMs: number): number {
    const index = this.#firstAfter(sinceMs);
    return this.total - (index === 0 ? 0 : this.#totals[index - 1]);
  }

  /** The longest gap that has time in common with [fromMs, toMs]; undefined if the client was not active then. */
  longestGap(fromMs: number, toMs: number, nowMs: number): Gap | undefined {
    if (this.#length === 0) return undefined;
    invariant(!this.#forgotten || fromMs >= this.#times[0], 'the arrivals around that time are forgotten');
    let longest: Gap | undefined;
    // The interval that ends at the first arrival after fromMs is the first that can overlap.
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

  /** Index of the first arrival later than `ms`. */
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

/** The longest gap that this client saw around a kill. */
export function gapAround(arrivals: Arrivals, killMs: number, nowMs: number): Gap | undefined {
  return arrivals.longestGap(killMs - WINDOW_BEFORE_MS, killMs + WINDOW_AFTER_MS, nowMs);
}

export interface Blackout {
  /** Which client saw it. */
  readonly client: string;
  readonly gap: Gap;
}

/** What a failover cost: the longest gap over the clients given, which must be those that are always active. */
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
