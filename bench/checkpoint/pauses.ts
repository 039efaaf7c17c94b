/**
 * How long a VM was stopped, by QEMU's own STOP and RESUME events, and what the pair did meanwhile.
 *
 * A checkpoint stops both VMs, in this order by QEMU's own clock:
 *
 *   secondary stops -reply-> primary stops -state-> secondary resumes -loaded-> primary resumes
 *
 * `state` and `loaded` together are the pause of the primary, which clients notice. `reply` is before it: the message by which
 * the primary stops is on its way, and whatever stands between the two QEMUs reads the secondary's last output.
 *
 * The two QEMUs' events come over two connections, in any order, so they are matched by their times. Both run on one machine,
 * whose clock they read.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../../src/error.ts';
import type { Qmp } from '../../src/qemu/qmp.ts';

/** Unix time in microseconds. */
export type Pause = { readonly stopUs: number; readonly resumeUs: number };

/** One checkpoint; milliseconds. */
export type Steps = { readonly reply: number; readonly state: number; readonly loaded: number };

const CHECKPOINT_MS_MAX = 10_000;

/** Collects the pauses of one VM. */
export class PauseWatch {
  readonly pauses: Pause[] = [];
  private stoppedUs = 0;
  private readonly name: string;
  private notify: () => void = () => {};

  constructor(name: string, qmp: Pick<Qmp, 'onEvent'>) {
    this.name = name;
    qmp.onEvent(({ event, timestampUs }) => {
      if (event === 'STOP') this.stoppedUs = timestampUs;
      if (event !== 'RESUME' || this.stoppedUs === 0) return;
      this.pauses.push({ stopUs: this.stoppedUs, resumeUs: timestampUs });
      this.notify();
    });
  }

  /** Runs `action`; resolves with its result when the VM has been stopped and runs again. */
  async through<T>(action: () => Promise<T>): Promise<T> {
    const late = new AbortController();
    const resumed = new Promise<void>((resolve) => {
      this.notify = resolve;
    });
    const tooLate = sleep(CHECKPOINT_MS_MAX, undefined, { signal: late.signal }).then(() => {
      throw new ColoError('COLO_LAB', `${this.name}: no checkpoint in ${CHECKPOINT_MS_MAX / 1000} s`);
    });
    tooLate.catch(() => {});
    try {
      const [result] = await Promise.race([Promise.all([action(), resumed]), tooLate]);
      return result;
    } finally {
      late.abort();
    }
  }
}

/** Returns how long the VM was stopped, in milliseconds. */
export function pauseMs({ stopUs, resumeUs }: Pause): number {
  return (resumeUs - stopUs) / 1e3;
}

/**
 * Returns the steps of each pause of the primary. A pause without one of the secondary that began before it and ended within it
 * is left out.
 */
export function stepsOf(primary: readonly Pause[], secondary: readonly Pause[]): Steps[] {
  return primary.flatMap(({ stopUs, resumeUs }) => {
    const other = secondary.findLast((pause) => pause.stopUs <= stopUs);
    if (other === undefined || other.resumeUs < stopUs || other.resumeUs > resumeUs) return [];
    return [
      {
        reply: (stopUs - other.stopUs) / 1e3,
        state: (other.resumeUs - stopUs) / 1e3,
        loaded: (resumeUs - other.resumeUs) / 1e3,
      },
    ];
  });
}
