/**
 * Notifies of what happens to an SVM, as its QEMU's QMP shows it: checkpoints and the failover.
 *
 * QEMU has no event for either, only STOP and RESUME (vm-run-state.ts). At RESUME the COLO mode is queried: `secondary`
 * follows, and unless an operator had stopped it, that was a checkpoint; `none` was promoted (x-colo-lost-heartbeat);
 * `primary` is a survivor with a new secondary, whose checkpoints change nothing in it. COLO_EXIT is not the failover: the
 * SVM runs, unheard, until somebody decides.
 *
 * From RESUME to the reply the VM counts as stopped. Failure: if checkpoints went unseen because the connection was lost, it
 * is not known which of the two VMs' numbers the SVM uses. A new connection then starts as after a checkpoint; if that was
 * wrong, the next checkpoint heals it. A query that gets no reply, or an impossible one, ends the connection.
 */
import type { Endpoint } from '../endpoint.ts';
import type { Timers } from '../io/clock.ts';
import type { Qmp } from '../qemu/qmp.ts';
import type { EmitDropIn } from './events.ts';
import { type ConnectQmp, HEARTBEAT_REPLY_MS_MAX, type QmpConnection, QmpKeeper } from './qmp-keeper.ts';
import { coloMode, runStatus, VmRunState } from './vm-run-state.ts';

export type SvmEvents = {
  /** The VM is stopped, or may be. */
  stopped(): void;
  /** It runs as before. Also called, without effect, after the other three. */
  unchanged(): void;
  /** It has no state yet. */
  waiting(): void;
  /** It is now a copy of the PVM, and follows it. */
  committed(): void;
  /** It is now the one VM. */
  promoted(): void;
  note: EmitDropIn;
};

export class SvmWatch {
  private readonly events: SvmEvents;
  private readonly keeper: QmpKeeper;
  private readonly runState = new VmRunState();

  constructor(endpoint: Endpoint, connect: ConnectQmp, timers: Timers, events: SvmEvents) {
    this.events = events;
    this.keeper = new QmpKeeper(endpoint, connect, timers, {
      up: (qmp) => this.onUp(qmp),
      event: async (qmp, name, data) => {
        if (name === 'STOP') this.onStop(qmp);
        else if (name === 'RESUME') await this.onResume(qmp);
        else if (name === 'COLO_EXIT')
          events.note('colo.exit', { mode: String(data.mode), reason: String(data.reason) });
      },
      beat: async (qmp) => void (await runStatus(qmp, { timeoutMs: HEARTBEAT_REPLY_MS_MAX })),
      down: () => events.unchanged(),
      note: events.note,
    });
  }

  start(): void {
    this.keeper.start();
  }

  close(): void {
    this.keeper.close();
  }

  private async onUp(qmp: Qmp): Promise<void> {
    this.events.stopped();
    const { changes } = this.runState;
    const status = await runStatus(qmp);
    const mode = await coloMode(qmp);
    // An event that came first has notified of a later state already.
    if (changes !== this.runState.changes) return;
    if (mode === 'none' && status === 'inmigrate') this.events.waiting();
    else if (mode === 'secondary') this.events.committed();
    else this.events.promoted();
    if (status === 'colo') this.onStop(qmp);
  }

  private onStop(qmp: Qmp): void {
    this.events.stopped();
    this.runState.stopped(qmp);
  }

  private async onResume(qmp: QmpConnection): Promise<void> {
    const stoppedBy = this.runState.resumed();
    const { changes } = this.runState;
    this.events.stopped();
    try {
      const mode = await coloMode(qmp);
      if (mode === 'secondary' && (await stoppedBy) !== 'paused') this.events.committed();
      else if (mode === 'none') this.events.promoted();
    } catch (cause) {
      this.keeper.drop(qmp, cause);
    } finally {
      this.events.unchanged();
    }
    // It was stopped again before the replies came.
    if (changes !== this.runState.changes) this.events.stopped();
  }
}
