/**
 * Keeps a connection to a QEMU's QMP: dials until it is there, and again when it is lost.
 *
 * A QEMU that is stopped or hangs keeps its connections and sends nothing. So it is asked for its state every
 * HEARTBEAT_MS; without a reply in HEARTBEAT_REPLY_MS_MAX the connection counts as lost.
 */
import type { Endpoint } from '../endpoint.ts';
import { invariant, messageOf } from '../error.ts';
import type { Timers } from '../io/clock.ts';
import { Outage, redial } from '../io/redial.ts';
import type { JsonObject, Qmp, QmpEvent } from '../qemu/qmp.ts';
import type { EmitDropIn } from './events.ts';

/** The part of QmpClient that is used, so that tests can replace it. */
export type QmpConnection = Qmp & {
  onEvent(listener: (event: QmpEvent) => void): unknown;
  onClose(listener: (reason: Error) => void): unknown;
  close(): void;
};

/** `signal` gives the attempt up. */
export type ConnectQmp = (endpoint: Endpoint, signal: AbortSignal) => Promise<QmpConnection>;

export type QmpKeeperEvents = {
  /** Called for a new connection, before any of its events. A rejection closes it. */
  up(qmp: QmpConnection): Promise<void>;
  event(qmp: QmpConnection, name: string, data: JsonObject): Promise<void>;
  /** Queries what the user has to know; called every HEARTBEAT_MS. A rejection closes the connection. */
  beat(qmp: QmpConnection): Promise<void>;
  /** The connection is lost, or an attempt failed: replies that were awaited will not come. */
  down(): void;
  note: EmitDropIn;
};

const RETRY_MS = 500;
const HEARTBEAT_MS = 5000;
/** How long QEMU may take for the reply to a heartbeat. */
export const HEARTBEAT_REPLY_MS_MAX = 5000;

export class QmpKeeper {
  private readonly endpoint: Endpoint;
  private readonly connect: ConnectQmp;
  private readonly timers: Timers;
  private readonly events: QmpKeeperEvents;
  private readonly outage: Outage;
  private readonly closing = new AbortController();
  private current: QmpConnection | null = null;
  private cancelHeartbeat = (): void => {};

  constructor(endpoint: Endpoint, connect: ConnectQmp, timers: Timers, events: QmpKeeperEvents) {
    this.endpoint = endpoint;
    this.connect = connect;
    this.timers = timers;
    this.events = events;
    this.outage = new Outage('per outage', (cause) => this.events.note('qmp.down', { cause }));
  }

  get qmp(): QmpConnection | null {
    return this.current;
  }

  start(): void {
    void this.dial(0);
  }

  close(): void {
    this.closing.abort();
    this.cancelHeartbeat();
    this.current?.close();
  }

  /** QEMU did not reply to what has to be known: the connection is closed, and the next one asks again. */
  drop(qmp: QmpConnection, cause: unknown): void {
    // In this order: the cause that counts is this one, not that the connection was closed here.
    this.lost(qmp, cause);
    qmp.close();
  }

  /** QEMU has refused a command, or did not reply. */
  refused(cause: unknown): void {
    if (!this.isClosing) this.events.note('qmp.refused', { message: messageOf(cause) });
  }

  private get isClosing(): boolean {
    return this.closing.signal.aborted;
  }

  private async dial(firstWaitMs: number): Promise<void> {
    await redial({
      dial: () => this.attempt(),
      connected: (qmp) => void this.serve(qmp),
      // A connection alone does not end an outage: QEMU has to reply.
      outage: new Outage('per outage', (cause) => this.outage.down(cause)),
      timers: this.timers,
      waitMs: RETRY_MS,
      firstWaitMs,
      signal: this.closing.signal,
    });
  }

  private async attempt(): Promise<QmpConnection> {
    try {
      return await this.connect(this.endpoint, this.closing.signal);
    } catch (cause) {
      if (!this.isClosing) this.events.down();
      throw cause;
    }
  }

  private async serve(qmp: QmpConnection): Promise<void> {
    invariant(this.current === null, 'a second QMP connection was opened to one QEMU');
    this.current = qmp;
    qmp.onEvent(({ event, data }) => {
      void this.events.event(qmp, event, data).catch((cause: unknown) => this.refused(cause));
    });
    qmp.onClose((reason) => this.lost(qmp, reason));
    try {
      await this.events.up(qmp);
      if (this.current !== qmp) return;
      this.outage.up();
      this.events.note('qmp.up', {});
      this.beatLater(qmp);
    } catch (cause) {
      this.drop(qmp, cause);
    }
  }

  private beatLater(qmp: QmpConnection): void {
    this.cancelHeartbeat = this.timers.after(HEARTBEAT_MS, () => {
      this.events.beat(qmp).then(
        () => {
          if (this.current === qmp) this.beatLater(qmp);
        },
        (cause: unknown) => this.drop(qmp, cause),
      );
    });
  }

  private lost(qmp: QmpConnection, cause: unknown): void {
    if (this.current !== qmp) return;
    this.current = null;
    this.cancelHeartbeat();
    if (this.isClosing) return;
    this.events.down();
    this.outage.down(messageOf(cause));
    void this.dial(RETRY_MS);
  }
}
