/**
 * Why a VM was stopped, as its QEMU's QMP shows it.
 *
 * QEMU sends STOP when the VM stops and RESUME just before it runs again; neither gives a reason. So the run state is
 * queried at STOP: `colo` or `finish-migrate` is a checkpoint, `paused` an operator. Failure: a reply that comes after
 * RESUME is `running`, and a refusal counts as `unknown`.
 */
import { type ExecuteOptions, isObject, type Qmp } from '../qemu/qmp.ts';

export class VmRunState {
  /** Number of stops and resumes so far. If it has changed, a reply that was awaited is out of date. */
  changes = 0;
  private reason = Promise.resolve('unknown');

  stopped(qmp: Qmp): void {
    this.changes++;
    this.reason = runStatus(qmp).catch(() => 'unknown');
  }

  /** Resolves with the run state of the stop that ends. */
  resumed(): Promise<string> {
    this.changes++;
    const { reason } = this;
    this.reason = Promise.resolve('unknown');
    return reason;
  }
}

/** Resolves with QEMU's RunState, or 'unknown'. */
export async function runStatus(qmp: Qmp, options?: ExecuteOptions): Promise<string> {
  const reply = await qmp.execute('query-status', undefined, options);
  return isObject(reply) && typeof reply.status === 'string' ? reply.status : 'unknown';
}

/** Resolves with QEMU's COLOMode, or 'unknown'. */
export async function coloMode(qmp: Qmp, options?: ExecuteOptions): Promise<string> {
  const reply = await qmp.execute('query-colo-status', undefined, options);
  return isObject(reply) && typeof reply.mode === 'string' ? reply.mode : 'unknown';
}
