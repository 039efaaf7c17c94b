/**
 * Keeps the uplink connected: dials until it is up, and again whenever it is lost. `uplink.down` is emitted once per
 * outage, not at every attempt.
 */
import type { Endpoint } from '../endpoint.ts';
import type { FramePort } from '../io/frame-port.ts';
import { Outage, redial } from '../io/redial.ts';
import { type Surroundings, systemSurroundings } from '../io/surroundings.ts';
import type { EventSink } from '../observe/events.ts';

const RETRY_MS = 100;

export class UplinkKeeper {
  private readonly port: FramePort;
  private readonly endpoint: Endpoint;
  private readonly events: EventSink;
  private readonly changed: () => void;
  private readonly surroundings: Surroundings;
  private readonly outage: Outage;
  private readonly closing = new AbortController();
  private upAtMs = 0;

  /** `changed` is called whenever the uplink was connected, or lost. */
  constructor(
    port: FramePort,
    endpoint: Endpoint,
    { events, changed }: { events: EventSink; changed: () => void },
    surroundings: Surroundings = systemSurroundings,
  ) {
    this.port = port;
    this.endpoint = endpoint;
    this.events = events;
    this.changed = changed;
    this.surroundings = surroundings;
    this.outage = new Outage('per outage', (message) => this.events.emit('uplink.down', { message }));
    port.onClosed = (cause) => {
      if (this.closing.signal.aborted) return;
      this.events.emit('uplink.lost', { cause: cause?.message ?? 'closed' });
      this.changed();
      // A peer that closes every connection at once must not cause a busy loop.
      void this.connect(RETRY_MS - (surroundings.clock.now() - this.upAtMs));
    };
  }

  /** Resolves when the uplink is up, or closed. */
  async connect(firstWaitMs = 0): Promise<void> {
    const { clock, timers, transports } = this.surroundings;
    await redial({
      dial: () => transports.connect(this.endpoint),
      connected: (stream) => {
        this.upAtMs = clock.now();
        this.port.attach(stream);
        this.events.emit('uplink.up', {});
        this.changed();
      },
      outage: this.outage,
      timers,
      waitMs: RETRY_MS,
      firstWaitMs,
      signal: this.closing.signal,
    });
  }

  close(): void {
    this.closing.abort();
    this.port.close();
  }
}
