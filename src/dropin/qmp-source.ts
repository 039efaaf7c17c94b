/**
 * Takes the checkpoints of a primary's QEMU under KVM or TCG, over QMP: asks for one by setting x-checkpoint-delay to its
 * present value, and sees them from outside.
 *
 * There is no event for a checkpoint, only STOP and RESUME (vm-run-state.ts). At RESUME the COLO mode is queried: as
 * primary, and unless an operator had stopped the VM, it was a checkpoint.
 *
 * COLO_EXIT is the only sign of a pair that broke by an error: QEMU then waits for an operator's x-colo-lost-heartbeat, its COLO
 * mode stays `primary`, and it takes no checkpoint any more. After that command the mode is `none`.
 *
 * Failure: without a connection nothing can be asked for, and output stays held; the next connection queries where QEMU is.
 * A query that gets no reply, or an impossible one, ends the connection, so that it is repeated until it gets one.
 */
import type { Endpoint } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import type { Timers } from '../io/clock.ts';
import { isObject, type JsonObject, type Qmp } from '../qemu/qmp.ts';
import type { CheckpointEvents, CheckpointSource } from './checkpoint-source.ts';
import { type ConnectQmp, HEARTBEAT_REPLY_MS_MAX, type QmpConnection, QmpKeeper } from './qmp-keeper.ts';
import { coloMode, VmRunState } from './vm-run-state.ts';

/** Run states of a primary that was stopped by a checkpoint or the first copy, or whose reply came too late. */
const STOPPED_BY_COLO = ['colo', 'finish-migrate', 'running', 'unknown'];

export class QmpSource implements CheckpointSource {
  private readonly events: CheckpointEvents;
  private readonly keeper: QmpKeeper;
  private readonly runState = new VmRunState();

  constructor(endpoint: Endpoint, connect: ConnectQmp, timers: Timers, events: CheckpointEvents) {
    this.events = events;
    this.keeper = new QmpKeeper(endpoint, connect, timers, {
      up: (qmp) => this.queryMode(qmp),
      beat: (qmp) => this.queryMode(qmp),
      event: async (qmp, name, data) => {
        if (name === 'STOP') this.onStop(qmp);
        else if (name === 'RESUME') await this.onResume(qmp);
        else if (name === 'COLO_EXIT') await this.onExit(qmp, data);
      },
      down: () => {
        events.unchanged();
        events.unknown();
      },
      note: events.note,
    });
  }

  async start(): Promise<void> {
    this.keeper.start();
  }

  ask(): void {
    const { qmp } = this.keeper;
    if (qmp !== null) void askFor(qmp).catch((cause: unknown) => this.keeper.refused(cause));
  }

  async close(): Promise<void> {
    this.keeper.close();
  }

  /** Also between events: a pair that nobody saw begin would leave uncompared, and one that nobody saw end would be held. */
  private async queryMode(qmp: Qmp): Promise<void> {
    const mode = await coloMode(qmp, { timeoutMs: HEARTBEAT_REPLY_MS_MAX });
    if (mode === 'primary') this.events.primary();
    else if (mode === 'none') this.events.alone();
    else throw new ColoError('COLO_QEMU_STATE', `this is not the primary's QEMU: its COLO mode is ${mode}`);
  }

  private onStop(qmp: Qmp): void {
    this.events.stopped();
    this.runState.stopped(qmp);
  }

  private async onResume(qmp: QmpConnection): Promise<void> {
    const stoppedBy = this.runState.resumed();
    this.events.resumed();
    try {
      if (!(await isPrimary(qmp))) this.events.alone();
      else if (STOPPED_BY_COLO.includes(await stoppedBy)) this.events.committed();
    } catch (cause) {
      this.keeper.drop(qmp, cause);
    } finally {
      this.events.unchanged();
    }
  }

  private async onExit(qmp: QmpConnection, data: JsonObject): Promise<void> {
    this.events.note('colo.exit', { mode: String(data.mode), reason: String(data.reason) });
    try {
      // The operator may have decided already.
      if (!(await isPrimary(qmp))) this.events.alone();
      else if (data.reason === 'error') this.events.broken();
    } catch (cause) {
      this.keeper.drop(qmp, cause);
    }
  }
}

/** Setting the delay is the request; its value is the operator's and stays. */
async function askFor(qmp: Qmp): Promise<void> {
  const parameters = await qmp.execute('query-migrate-parameters');
  const delayMs = isObject(parameters) ? parameters['x-checkpoint-delay'] : undefined;
  await qmp.execute('migrate-set-parameters', { 'x-checkpoint-delay': delayMs });
}

async function isPrimary(qmp: Qmp): Promise<boolean> {
  return (await coloMode(qmp)) === 'primary';
}
