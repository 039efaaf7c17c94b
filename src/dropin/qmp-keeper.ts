/** Keeps a connection to a QEMU's QMP, and dials again when it has gone. */
import type { Endpoint } from '../endpoint.ts';
import type { Timers } from '../io/clock.ts';
import type { Qmp, QmpEvent } from '../qemu/qmp.ts';

/** What QmpClient is, so that a test can put another in its place. */
export type QmpConnection = Qmp & {
  onEvent(listener: (event: QmpEvent) => void): unknown;
  onClose(listener: (reason: Error) => void): unknown;
  close(): void;
};

export type ConnectQmp = (endpoint: Endpoint) => Promise<QmpConnection>;

export type QmpKeeperEvents = {
  /** A new connection, before any event of it: a rejection ends it. */
  up(qmp: QmpConnection): Promise<void>;
  event(qmp: QmpConnection, name: string): Promise<void>;
  /** The connection has gone, or there was none: what was being waited for will not come. */
  down(): void;
  note(type: string, details: Record<string, unknown>): void;
};

const RETRY_MS = 500;

export class QmpKeeper {
  private readonly endpoint: Endpoint;
  private readonly connect: ConnectQmp;
  private readonly timers: Timers;
  private readonly events: QmpKeeperEvents;
  private current: QmpConnection | null = null;
  private closing = false;
  private told = false;
  private cancelRetry = (): void => {};

  constructor(endpoint: Endpoint, connect: ConnectQmp, timers: Timers, events: QmpKeeperEvents) {
    this.endpoint = endpoint;
    this.connect = connect;
    this.timers = timers;
    this.events = events;
  }

  get qmp(): QmpConnection | null {
    return this.current;
  }

  start(): void {
    void this.dial();
  }

  close(): void {
    this.closing = true;
    this.cancelRetry();
    this.current?.close();
  }

  /** QEMU said no, or nothing. */
  refused(cause: unknown): void {
    if (!this.closing) this.events.note('qmp.refused', { message: (cause as Error).message });
  }

  private async dial(): Promise<void> {
    try {
      const qmp = await this.connect(this.endpoint);
      if (this.closing) {
        qmp.close();
        return;
      }
      this.current = qmp;
      this.told = false;
      qmp.onEvent(
        ({ event }) => void this.events.event(qmp, event).catch((cause: unknown) => this.refused(cause)),
      );
      qmp.onClose((reason) => this.lost(reason));
      this.events.note('qmp.up', {});
      await this.events.up(qmp);
    } catch (cause) {
      this.current?.close();
      this.lost(cause as Error);
    }
  }

  private lost(reason: Error): void {
    this.current = null;
    if (this.closing) return;
    this.events.down();
    if (!this.told) this.events.note('qmp.down', { cause: reason.message });
    this.told = true;
    this.cancelRetry();
    this.cancelRetry = this.timers.after(RETRY_MS, () => void this.dial());
  }
}
