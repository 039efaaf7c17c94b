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
import { sleep } from '../io/clock.ts';
import type { StreamEnd } from '../io/frame-port.ts';
import { Outage, redial } from '../io/redial.ts';
import type { StreamListener } from '../io/socket-stream.ts';
import type { Surroundings } from '../io/surroundings.ts';
import type { Instant } from '../units.ts';
import type { EmitDropIn } from './events.ts';
import { type Admission, WaitingRoom } from './waiting-room.ts';

export type StreamPlace = {
  attach(stream: KernelStream): void;
  onClosed: (cause: Error | null) => void;
  /** Closes the stream at a frame boundary. */
  closeWhole(): void;
  /** Where the stream before ended. */
  readonly lastEnd: StreamEnd;
};

export type KeeperEvents = {
  up(place: string): void;
  /** Called once per outage. */
  down(place: string, cause: string): void;
  /** Newcomers were not admitted: `count` since the start, the last one because of `cause`. */
  refused(place: string, cause: string, count: number): void;
  /** The stream to a place's peer ended within a frame, or may have. */
  cut(place: string, message: string): void;
};

/** Emits them as events of the process. */
export function keeperEvents(emit: EmitDropIn): KeeperEvents {
  return {
    up: (place) => emit('stream.up', { place }),
    down: (place, cause) => emit('stream.down', { place, cause }),
    refused: (place, cause, count) => emit('stream.refused', { place, cause, count }),
    cut: (place, message) => emit('stream.cut', { place, message }),
  };
}

const RETRY_MS = 100;
const REFUSED_EVERY_MS = 10_000;

/** How long a process that stops waits for a peer that does not read. */
const DRAIN_MS_MAX = 1000;
const DRAIN_POLL_MS = 2;

/** Resolves when the kernel has taken what was written to the places, or after DRAIN_MS_MAX. */
export async function drained(
  places: readonly { readonly queuedBytes: number }[],
  { clock, timers }: Pick<Surroundings, 'clock' | 'timers'>,
): Promise<void> {
  const untilMs = clock.now() + DRAIN_MS_MAX;
  while (places.some((place) => place.queuedBytes > 0) && clock.now() < untilMs)
    await sleep(timers, DRAIN_POLL_MS);
}

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
    const { attached } = this;
    this.place.closeWhole();
    if (attached) this.noteCut();
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
      this.place.closeWhole();
      this.outage.down(this.explain('a newer peer took its place'));
      this.noteCut();
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
    this.noteCut();
    // A peer that closes every connection at once must not cause a busy loop.
    if (this.endpoint.mode === 'connect') void this.dial(RETRY_MS);
    else this.room.vacant();
  }

  /** What is sent next to the same peer is lost in the rest of that frame. */
  private noteCut(): void {
    const { lastEnd } = this.place;
    if (lastEnd === 'whole') return;
    const how = lastEnd === 'cut' ? 'ended' : 'may have ended';
    this.events.cut(
      this.name,
      `what was sent here ${how} within a frame: if the same QEMU goes on, make the object that reads it anew (docs/drop-in.md)`,
    );
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
