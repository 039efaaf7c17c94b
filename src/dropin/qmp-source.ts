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
import { isObject, type Qmp } from '../qemu/qmp.ts';
import type { CheckpointEvents, CheckpointSource } from './checkpoint-source.ts';
import { type ConnectQmp, QmpKeeper } from './qmp-keeper.ts';

/** Runstates of a primary that a checkpoint, or the first copy, has stopped. */
const STANDS_FOR_COLO = ['colo', 'finish-migrate', 'running', 'unknown'];

export class QmpSource implements CheckpointSource {
  private readonly events: CheckpointEvents;
  private readonly keeper: QmpKeeper;
  private standsFor: Promise<string> = Promise.resolve('unknown');

  constructor(endpoint: Endpoint, connect: ConnectQmp, timers: Timers, events: CheckpointEvents) {
    this.events = events;
    this.keeper = new QmpKeeper(endpoint, connect, timers, {
      up: async (qmp) => {
        if (!(await isPrimary(qmp))) events.alone();
        // It has been in COLO for a while: what both VMs said so far is not known here. A checkpoint makes them equal.
        else this.ask();
      },
      event: async (qmp, name) => {
        if (name === 'STOP') this.onStop(qmp);
        else if (name === 'RESUME') await this.onResume(qmp);
      },
      down: () => events.ranOn(),
      note: events.note,
    });
  }

  async start(): Promise<void> {
    this.keeper.start();
  }

  ask(): void {
    const { qmp } = this.keeper;
    if (qmp !== null) void this.askFor(qmp).catch((cause: unknown) => this.keeper.refused(cause));
  }

  async close(): Promise<void> {
    this.keeper.close();
  }

  private async askFor(qmp: Qmp): Promise<void> {
    // Setting the delay is what asks; its value is the operator's.
    const parameters = await qmp.execute('query-migrate-parameters');
    const delayMs = isObject(parameters) ? parameters['x-checkpoint-delay'] : undefined;
    await qmp.execute('migrate-set-parameters', { 'x-checkpoint-delay': delayMs });
  }

  private onStop(qmp: Qmp): void {
    this.events.stood();
    this.standsFor = qmp.execute('query-status').then(
      (reply) => (isObject(reply) && typeof reply.status === 'string' ? reply.status : 'unknown'),
      () => 'unknown',
    );
  }

  private async onResume(qmp: Qmp): Promise<void> {
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

async function isPrimary(qmp: Qmp): Promise<boolean> {
  const reply = await qmp.execute('query-colo-status');
  return isObject(reply) && reply.mode === 'primary';
}
