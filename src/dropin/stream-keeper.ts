/**
 * Keeps a place of `colo compare` or `colo rewrite` connected: dials or accepts, and does so again when the peer has
 * gone.
 *
 * An accepting place that has a peer keeps it until a newcomer has proven to be the peer that comes back: that one's old
 * connection may still seem to be there (waiting-room.ts). A vacant place takes whoever comes.
 *
 * Limits: those of the waiting room; of refused newcomers one event per REFUSED_EVERY_MS, with their number.
 */
import { type Endpoint, formatEndpoint } from '../endpoint.ts';
import { invariant, messageOf } from '../error.ts';
import type { KernelStream } from '../io/byte-stream.ts';
import { Outage, redial } from '../io/redial.ts';
import type { StreamListener } from '../io/socket-stream.ts';
import type { Surroundings } from '../io/surroundings.ts';
import type { Instant } from '../units.ts';
import { type Admission, WaitingRoom } from './waiting-room.ts';

export type StreamPlace = {
  attach(stream: KernelStream): void;
  onClosed: (cause: Error | null) => void;
  close(): void;
};

export type KeeperEvents = {
  up(place: string): void;
  /** Called once per outage. */
  down(place: string, cause: string): void;
  /** Newcomers were not admitted: `count` since the start, the last one because of `cause`. */
  refused(place: string, cause: string, count: number): void;
};

const RETRY_MS = 100;
const REFUSED_EVERY_MS = 10_000;

export class StreamKeeper {
  private readonly name: string;
  private readonly endpoint: Endpoint;
  private readonly place: StreamPlace;
  private readonly surroundings: Surroundings;
  private readonly events: KeeperEvents;
  private readonly outage: Outage;
  private readonly room: WaitingRoom;
  private readonly closing = new AbortController();
  private listener: StreamListener | null = null;
  private attached = false;
  private isDialling = false;
  private refused = 0;
  private refusedAtMs: Instant | null = null;

  constructor(options: {
    name: string;
    endpoint: Endpoint;
    place: StreamPlace;
    /** What a newcomer has to prove while the place is taken. */
    admission: Admission;
    surroundings: Surroundings;
    events: KeeperEvents;
  }) {
    this.name = options.name;
    this.endpoint = options.endpoint;
    this.place = options.place;
    this.surroundings = options.surroundings;
    this.events = options.events;
    this.outage = new Outage('per outage', (message) => this.events.down(this.name, message));
    this.place.onClosed = (cause) => this.lost(cause);
    this.room = new WaitingRoom(options.admission, this.surroundings.timers, {
      admitted: (stream) => this.take(stream),
      refused: (cause) => this.noteRefused(cause),
    });
  }

  /** Resolves when it listens, or has begun to dial. Rejects with COLO_ENDPOINT_LISTEN. */
  async start(): Promise<void> {
    if (this.endpoint.mode === 'listen')
      this.listener = await this.surroundings.transports.listen(this.endpoint, (one) => this.accept(one));
    else void this.dial(0);
  }

  async close(): Promise<void> {
    this.closing.abort();
    await this.listener?.close();
    this.room.close();
    this.place.close();
  }

  private accept(stream: KernelStream): void {
    if (this.attached && !this.closing.signal.aborted) this.room.enter(stream);
    else this.take(stream);
  }

  private take(stream: KernelStream): void {
    if (this.closing.signal.aborted) {
      stream.close();
      return;
    }
    if (this.attached) {
      this.attached = false;
      this.place.close();
      this.outage.down(this.explain('a newer peer took its place'));
    }
    this.attached = true;
    this.outage.up();
    this.events.up(this.name);
    this.place.attach(stream);
  }

  private async dial(firstWaitMs: number): Promise<void> {
    invariant(!this.isDialling && !this.attached, `${this.name} is dialled while it has a connection`);
    this.isDialling = true;
    const { timers, transports } = this.surroundings;
    await redial({
      dial: () => transports.connect(this.endpoint),
      connected: (stream) => {
        this.isDialling = false;
        this.take(stream);
      },
      outage: this.outage,
      timers,
      waitMs: RETRY_MS,
      firstWaitMs,
      signal: this.closing.signal,
    });
  }

  private lost(cause: Error | null): void {
    if (!this.attached) return;
    this.attached = false;
    if (this.closing.signal.aborted) return;
    this.outage.down(this.explain(cause === null ? 'the peer closed it' : messageOf(cause)));
    // A peer that closes every connection at once must not cause a busy loop.
    if (this.endpoint.mode === 'connect') void this.dial(RETRY_MS);
    else this.room.vacant();
  }

  private noteRefused(cause: string): void {
    this.refused++;
    const nowMs = this.surroundings.clock.now();
    if (this.refusedAtMs !== null && nowMs - this.refusedAtMs < REFUSED_EVERY_MS) return;
    this.refusedAtMs = nowMs;
    this.events.refused(this.name, this.explain(cause), this.refused);
  }

  private explain(cause: string): string {
    return `${formatEndpoint(this.endpoint)}: ${cause}`;
  }
}
