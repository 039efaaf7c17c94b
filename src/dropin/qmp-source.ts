/**
 * Checkpoints of a primary's QEMU under KVM or TCG, over QMP: asked for by setting x-checkpoint-delay to what it
 * is, and seen from outside.
 *
 * What is seen: STOP when the PVM stands, RESUME just before it runs again. There is no event for a checkpoint. So at
 * STOP QEMU is asked what it stands for (`colo`, or an operator's `paused`), and at RESUME whether it is in COLO. An
 * answer to the first question that comes too late says `running`; then a RESUME in COLO counts as a checkpoint's.
 *
 * Failure: without a connection nothing can be asked for, and held output waits; the next connection finds out where
 * QEMU is. COLO that has ended (x-colo-lost-heartbeat) shows at the RESUME after it.
 */
import type { Endpoint } from '../endpoint.ts';
import type { Timers } from '../io/clock.ts';
import { isObject, type Qmp, type QmpEvent } from '../qemu/qmp.ts';
import type { CheckpointEvents, CheckpointSource } from './checkpoint-source.ts';

/** What QmpClient is, so that a test can put another in its place. */
export type QmpConnection = Qmp & {
  onEvent(listener: (event: QmpEvent) => void): unknown;
  onClose(listener: (reason: Error) => void): unknown;
  close(): void;
};

export type ConnectQmp = (endpoint: Endpoint) => Promise<QmpConnection>;

const RETRY_MS = 500;
/** Runstates of a primary that a checkpoint, or the first copy, has stopped. */
const STANDS_FOR_COLO = ['colo', 'finish-migrate', 'running', 'unknown'];

export class QmpSource implements CheckpointSource {
  private readonly endpoint: Endpoint;
  private readonly connect: ConnectQmp;
  private readonly timers: Timers;
  private readonly events: CheckpointEvents;
  private qmp: QmpConnection | null = null;
  private standsFor: Promise<string> = Promise.resolve('unknown');
  private closing = false;
  private told = false;
  private cancelRetry = (): void => {};

  constructor(endpoint: Endpoint, connect: ConnectQmp, timers: Timers, events: CheckpointEvents) {
    this.endpoint = endpoint;
    this.connect = connect;
    this.timers = timers;
    this.events = events;
  }

  async start(): Promise<void> {
    void this.dial();
  }

  ask(): void {
    const { qmp } = this;
    if (qmp !== null) void this.askFor(qmp).catch((cause: unknown) => this.refused(cause));
  }

  async close(): Promise<void> {
    this.closing = true;
    this.cancelRetry();
    this.qmp?.close();
  }

  private async dial(): Promise<void> {
    try {
      const qmp = await this.connect(this.endpoint);
      if (this.closing) {
        qmp.close();
        return;
      }
      this.qmp = qmp;
      this.told = false;
      qmp.onEvent(({ event }) => {
        if (event === 'STOP') this.onStop(qmp);
        else if (event === 'RESUME') this.onResume(qmp).catch((cause: unknown) => this.refused(cause));
      });
      qmp.onClose((reason) => this.lost(reason));
      this.events.note('qmp.up', {});
      if (!(await isPrimary(qmp))) this.events.alone();
    } catch (cause) {
      this.lost(cause as Error);
    }
  }

  private lost(reason: Error): void {
    this.qmp = null;
    if (this.closing) return;
    this.events.ranOn();
    if (!this.told) this.events.note('qmp.down', { cause: reason.message });
    this.told = true;
    this.cancelRetry();
    this.cancelRetry = this.timers.after(RETRY_MS, () => void this.dial());
  }

  private async askFor(qmp: QmpConnection): Promise<void> {
    // Setting the delay is what asks; its value is the operator's.
    const parameters = await qmp.execute('query-migrate-parameters');
    const delayMs = isObject(parameters) ? parameters['x-checkpoint-delay'] : undefined;
    await qmp.execute('migrate-set-parameters', { 'x-checkpoint-delay': delayMs });
  }

  private refused(cause: unknown): void {
    if (!this.closing) this.events.note('qmp.refused', { message: (cause as Error).message });
  }

  private onStop(qmp: QmpConnection): void {
    this.events.stood();
    this.standsFor = qmp.execute('query-status').then(
      (reply) => (isObject(reply) && typeof reply.status === 'string' ? reply.status : 'unknown'),
      () => 'unknown',
    );
  }

  private async onResume(qmp: QmpConnection): Promise<void> {
    const { standsFor } = this;
    this.events.resumed();
    try {
      if (!(await isPrimary(qmp))) this.events.alone();
      else if (STANDS_FOR_COLO.includes(await standsFor)) this.events.committed();
    } finally {
      this.events.ranOn();
    }
  }
}

async function isPrimary(qmp: QmpConnection): Promise<boolean> {
  const reply = await qmp.execute('query-colo-status');
  return isObject(reply) && reply.mode === 'primary';
}
