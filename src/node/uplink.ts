/**
 * Keeps the uplink connected: dials until it is there, and again whenever it is lost. Says so once each time, not at
 * every try.
 */
import type { Endpoint } from '../endpoint.ts';
import { sleep } from '../io/clock.ts';
import type { FramePort } from '../io/frame-port.ts';
import { type Surroundings, systemSurroundings } from '../io/surroundings.ts';
import type { EventSink } from '../observe/status.ts';

const RETRY_MS = 100;

export class UplinkKeeper {
  private readonly port: FramePort;
  private readonly endpoint: Endpoint;
  private readonly events: EventSink;
  private readonly surroundings: Surroundings;
  private closing = false;
  private upAtMs = 0;

  constructor(
    port: FramePort,
    endpoint: Endpoint,
    events: EventSink,
    surroundings: Surroundings = systemSurroundings,
  ) {
    this.port = port;
    this.endpoint = endpoint;
    this.events = events;
    this.surroundings = surroundings;
    port.onClosed = (cause) => {
      if (this.closing) return;
      this.events.emit('uplink.lost', { cause: cause?.message ?? 'closed' });
      // One that hangs up at every greeting must not turn into a busy loop.
      const shortMs = RETRY_MS - (surroundings.clock.now() - this.upAtMs);
      if (shortMs > 0) surroundings.timers.after(shortMs, () => void this.connect());
      else void this.connect();
    };
  }

  async connect(): Promise<void> {
    const { clock, timers, transports } = this.surroundings;
    for (let told = false; !this.closing; ) {
      try {
        const stream = await transports.connect(this.endpoint);
        if (this.closing) {
          stream.close();
          return;
        }
        this.upAtMs = clock.now();
        this.port.attach(stream);
        this.events.emit('uplink.up', {});
        return;
      } catch (cause) {
        if (!told) this.events.emit('uplink.down', { message: (cause as Error).message });
        told = true;
        await sleep(timers, RETRY_MS);
      }
    }
  }

  close(): void {
    this.closing = true;
    this.port.close();
  }
}
