/**
 * Reads one node for any number of pages: its status once a second, and its events as they happen.
 *
 * Goal: the node does not notice how many pages are open, nor how slow they are. It has one follower of its events, and one
 * request for its status at a time.
 *
 * Tracked: the latest status; since when the node is away; SAMPLES_MAX samples; EVENTS_MAX events, and TURNS_MAX of those that
 * are changes of state (past.ts).
 *
 * | happens                              | the pages get                                                                  |
 * |--------------------------------------|--------------------------------------------------------------------------------|
 * | a second is over                     | `view`: the status, or since when the node is away                             |
 * | events come                          | `events`, gathered for GATHER_MS; of more than GATHERED_MAX only changes of state, and the number of the rest |
 * | the node goes away, and comes back   | the same as each second; the events that happened meanwhile                    |
 * | events are missing in the sequence   | their number, as `missed`: a node keeps a thousand in memory                    |
 *
 * Limits: as above. A status that is not there after the client's timeout counts as a node that is away.
 */
import type { Clock, Timers } from '../io/clock.ts';
import type { NodeEvent, NodeStatus } from '../observe/status.ts';
import { type Away, EVENTS_MAX, isTurn, SAMPLES_MAX, type Sample, TURNS_MAX, type View } from './messages.ts';
import { Past } from './past.ts';
import { Sampler } from './sampler.ts';

const LOOK_MS = 1000;
/** The eye sees no difference, and a node with many checkpoints fills each message. */
const GATHER_MS = 250;
/** A page shows a few hundred events a second without delay. */
const GATHERED_MAX = 100;

/** The calls to a node; each rejects with an Error, a ColoError as a rule. */
export type FollowedNode = {
  status(): Promise<NodeStatus>;
  /** Yields the events after the number, and the next ones until the node ends or `signal` aborts. */
  events(after: number, signal: AbortSignal): AsyncIterable<NodeEvent>;
};

/** Takes messages: server-sent events of the page (readers.ts). `json`: the body; `events`: how many it has. */
export type FeedReaders = {
  view(json: string): void;
  events(lines: readonly string[], missed: number): void;
};

export type FeedOptions = {
  node: FollowedNode;
  readers: FeedReaders;
  clock: Clock;
  timers: Timers;
};

export class Feed {
  private readonly options: FeedOptions;
  private readonly sampler = new Sampler();
  private readonly past = new Past(EVENTS_MAX);
  private readonly turns = new Past(TURNS_MAX);
  private samples: Sample[] = [];
  private status: NodeStatus | null = null;
  private statusAtMs: number | null = null;
  private away: Away | null = null;
  private last: NodeEvent | null = null;
  private gathered: { line: string; isTurn: boolean }[] = [];
  private missed = 0;
  private isGathering = false;
  private readonly ended = new AbortController();

  constructor(options: FeedOptions) {
    this.options = options;
  }

  /** Reads the node until `end`. */
  run(): void {
    void this.look();
    void this.follow();
  }

  end(): void {
    this.ended.abort();
  }

  /** Returns the body of `hello`. */
  hello(): string {
    // What is gathered is part of it, and must not come again.
    this.pass();
    const view = JSON.stringify(this.view()).slice(0, -1);
    return `${view},"samples":${JSON.stringify(this.samples)},"events":${this.past.json()},"turns":${this.turns.json()}}`;
  }

  private view(): View {
    const { status, statusAtMs, away } = this;
    return { nowMs: this.options.clock.wall(), status, statusAtMs, away };
  }

  private async look(): Promise<void> {
    const { node, readers, clock, timers } = this.options;
    const began = clock.now();
    let sample: Sample | null = null;
    try {
      const status = await node.status();
      this.statusAtMs = clock.wall();
      this.status = status;
      this.away = null;
      sample = this.sampler.sample(status, this.statusAtMs);
      this.samples.push(sample);
      if (this.samples.length > SAMPLES_MAX) this.samples.shift();
    } catch (error) {
      this.sampler.away();
      this.away = { sinceMs: this.away?.sinceMs ?? clock.wall(), ...codeAndMessage(error) };
    }
    if (this.ended.signal.aborted) return;
    readers.view(JSON.stringify({ ...this.view(), sample }));
    timers.after(Math.max(0, began + LOOK_MS - clock.now()), () => void this.look());
  }

  /** Follows the node's events, again after each end. */
  private async follow(): Promise<void> {
    const { node, timers } = this.options;
    const { signal } = this.ended;
    try {
      // All that the node has: after a new start, or with a new log, its numbers may be others.
      for await (const event of node.events(0, signal)) {
        if (signal.aborted) return;
        this.event(event);
      }
    } catch {
      // look() says why the node is away.
    }
    if (!signal.aborted) timers.after(LOOK_MS, () => void this.follow());
  }

  private event(event: NodeEvent): void {
    const { last } = this;
    if (last !== null && event.seq <= last.seq && event.at <= last.at) return;
    // A log that begins again has lower numbers, and later times.
    if (last !== null && event.seq > last.seq + 1) this.missed += event.seq - last.seq - 1;
    this.last = event;
    this.sampler.event(event);
    const line = JSON.stringify(event);
    this.past.add(line);
    const isOfState = isTurn(event.type);
    if (isOfState) this.turns.add(line);
    this.gathered.push({ line, isTurn: isOfState });
    if (this.gathered.length > 3 * GATHERED_MAX) this.thin();
    if (this.isGathering) return;
    this.isGathering = true;
    this.options.timers.after(GATHER_MS, () => this.pass());
  }

  /** Of a flood, the changes of state remain, and the latest of the rest. */
  private thin(): void {
    const { gathered } = this;
    const latestFrom = gathered.length - GATHERED_MAX;
    const kept = gathered.filter((one, i) => one.isTurn || i >= latestFrom).slice(-2 * GATHERED_MAX);
    this.missed += gathered.length - kept.length;
    this.gathered = kept;
  }

  private pass(): void {
    if (this.gathered.length > GATHERED_MAX) this.thin();
    const { gathered, missed } = this;
    this.isGathering = false;
    if (gathered.length === 0) return;
    this.gathered = [];
    this.missed = 0;
    const lines = gathered.map(({ line }) => line);
    this.options.readers.events(lines, missed);
  }
}

function codeAndMessage(error: unknown): { code: string; message: string } {
  const { code, message } = error as { code?: unknown; message?: unknown };
  return { code: typeof code === 'string' ? code : 'COLO_INTERNAL', message: String(message) };
}
