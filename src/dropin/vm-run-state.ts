/**
 * Why a VM was stopped, as its QEMU's QMP shows it.
 *
 * QEMU sends STOP when the VM stops and RESUME just before it runs again; neither gives a reason. So the run state is
 * queried at STOP: `colo` or `finish-migrate` is a checkpoint, `paused` an operator. Failure: a reply that comes after
 * RESUME is `running`, and a refusal counts as `unknown`.
 */
import { ColoError } from '../error.ts';
import { type ExecuteOptions, isObject, type Qmp } from '../qemu/qmp.ts';

/** The part of an impossible reply that is shown. */
const SHOWN_MAX = 80;

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

const MODES = ['none', 'primary', 'secondary'] as const;
export type ColoMode = (typeof MODES)[number];

/** Resolves with QEMU's COLOMode. Rejects with COLO_QEMU_STATE if the reply is none: nothing may be concluded from it. */
export async function coloMode(qmp: Qmp, options?: ExecuteOptions): Promise<ColoMode> {
  const reply = await qmp.execute('query-colo-status', undefined, options);
  const mode = MODES.find((one) => isObject(reply) && reply.mode === one);
  if (mode === undefined)
    throw new ColoError(
      'COLO_QEMU_STATE',
      `query-colo-status was replied to with ${String(JSON.stringify(reply)).slice(0, SHOWN_MAX)}; is this a QEMU with COLO?`,
    );
  return mode;
}
