/**
 * Keeps a place of `colo compare` or `colo rewrite` connected: dials or accepts, and again when the peer has gone.
 *
 * Of an accepting place the newest peer is the one: an old one may be a connection whose host has died.
 */
import { type Endpoint, formatEndpoint } from '../endpoint.ts';
import type { ByteStream } from '../io/byte-stream.ts';
import type { Timers } from '../io/clock.ts';
import { connectStream, listenStream, type StreamListener } from '../io/socket-stream.ts';

export type StreamPlace = {
  attach(stream: ByteStream): void;
  onClosed: (cause: Error | null) => void;
  close(): void;
};

export type KeeperEvents = {
  up(place: string): void;
  /** Told once for each time that it is not there. */
  down(place: string, cause: string): void;
};

const RETRY_MS = 100;

export class StreamKeeper {
  private readonly name: string;
  private readonly endpoint: Endpoint;
  private readonly place: StreamPlace;
  private readonly timers: Timers;
  private readonly events: KeeperEvents;
  private listener: StreamListener | null = null;
  private attached = false;
  private closing = false;
  private told = false;
  private cancelRetry = (): void => {};

  constructor(options: {
    name: string;
    endpoint: Endpoint;
    place: StreamPlace;
    timers: Timers;
    events: KeeperEvents;
  }) {
    this.name = options.name;
    this.endpoint = options.endpoint;
    this.place = options.place;
    this.timers = options.timers;
    this.events = options.events;
    this.place.onClosed = (cause) => this.lost(cause);
  }

  /** Resolves when it listens, or has begun to dial. Rejects with COLO_ENDPOINT_LISTEN. */
  async start(): Promise<void> {
    if (this.endpoint.mode === 'listen')
      this.listener = await listenStream(this.endpoint, (one) => this.take(one));
    else void this.dial();
  }

  async close(): Promise<void> {
    this.closing = true;
    this.cancelRetry();
    await this.listener?.close();
    this.place.close();
  }

  private take(stream: ByteStream): void {
    if (this.closing) {
      stream.close();
      return;
    }
    if (this.attached) {
      this.attached = false;
      this.place.close();
      this.events.down(this.name, `${formatEndpoint(this.endpoint)}: a newer peer took its place`);
    }
    this.attached = true;
    this.told = false;
    this.place.attach(stream);
    this.events.up(this.name);
  }

  private async dial(): Promise<void> {
    try {
      this.take(await connectStream(this.endpoint));
    } catch (cause) {
      if (this.closing) return;
      if (!this.told) this.events.down(this.name, (cause as Error).message);
      this.told = true;
      this.retry();
    }
  }

  private lost(cause: Error | null): void {
    if (!this.attached) return;
    this.attached = false;
    if (this.closing) return;
    this.events.down(
      this.name,
      `${formatEndpoint(this.endpoint)}: ${cause?.message ?? 'the peer closed it'}`,
    );
    this.told = true;
    // One that hangs up at every greeting must not turn into a busy loop.
    if (this.endpoint.mode === 'connect') this.retry();
  }

  private retry(): void {
    this.cancelRetry = this.timers.after(RETRY_MS, () => void this.dial());
  }
}
