/**
 * Keeps the uplink connected: dials until it is there, and again whenever it is lost. Says so once each time, not at
 * every try.
 */
import type { Endpoint } from '../endpoint.ts';
import type { FramePort } from '../io/frame-port.ts';
import { connectStream } from '../io/socket-stream.ts';
import type { EventLog } from '../observe/event-log.ts';

const RETRY_MS = 100;

export class UplinkKeeper {
  private readonly port: FramePort;
  private readonly endpoint: Endpoint;
  private readonly events: EventLog;
  private closing = false;
  private upAtMs = 0;

  constructor(port: FramePort, endpoint: Endpoint, events: EventLog) {
    this.port = port;
    this.endpoint = endpoint;
    this.events = events;
    port.onClosed = (cause) => {
      if (this.closing) return;
      this.events.emit('uplink.lost', { cause: cause?.message ?? 'closed' });
      // One that hangs up at every greeting must not turn into a busy loop.
      const shortMs = RETRY_MS - (performance.now() - this.upAtMs);
      if (shortMs > 0) setTimeout(() => void this.connect(), shortMs);
      else void this.connect();
    };
  }

  async connect(): Promise<void> {
    for (let told = false; !this.closing; ) {
      try {
        const stream = await connectStream(this.endpoint);
        if (this.closing) {
          stream.close();
          return;
        }
        this.upAtMs = performance.now();
        this.port.attach(stream);
        this.events.emit('uplink.up', {});
        return;
      } catch (cause) {
        if (!told) this.events.emit('uplink.down', { message: (cause as Error).message });
        told = true;
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    }
  }

  close(): void {
    this.closing = true;
    this.port.close();
  }
}
