/**
 * Sees from outside whether a QEMU and the processors of its guest sleep: without QMP, and without an agent in the guest.
 *
 * A guest with nothing to do halts its processors, and QEMU's thread for each of them (a vCPU thread) then sleeps. QEMU's main
 * thread sleeps once it has handled what it has read; what a vCPU thread sends leaves through the main thread, too. So the
 * guest is at rest when the main thread is in state S and then every vCPU thread is (proc_pid_stat(5)). The order matters: the main
 * thread wakes vCPU threads before it sleeps. What is on its way to and from the VM is the caller's to ask first and
 * last (datapath/sleep-watch.ts).
 *
 * Tracked: one open /proc/PID/task/TID/stat per thread; a look reads them. The owner names the vCPU threads (QMP's
 * query-cpus-fast): they are those of one QEMU, and a new QEMU gets a new sight.
 *
 * What sleep does not show: a guest that waits for a timer or for its disk sleeps too. With KVM, `halt_poll_ns` keeps a vCPU
 * thread running for up to 0.2 ms after its guest has halted, and a guest with `idle=poll` never sleeps.
 *
 * Failure: a thread that cannot be looked at (it has ended; /proc is hidden by hidepid, or shows another namespace) makes the sight
 * blind for good, with the reason; it then sees no sleep.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { messageOf } from '../error.ts';

/** What the data paths ask. */
export interface SleepSight {
  /** Whether QEMU and its guest sleep now; false if that cannot be seen. */
  isAsleep(): boolean;
  /** Why it cannot be seen; null if it can. */
  blindness(): string | null;
}

/** "PID (name) S": a pid has at most 7 digits, and a thread's name at most 15 bytes (64 of a kernel's worker). */
const HEAD_BYTES = 96;
const PARENTHESIS = 0x29;
const SLEEPS = 0x53;

export class ProcSight implements SleepSight {
  private readonly head = new Uint8Array(HEAD_BYTES);
  /** of the main thread, and then of each vCPU thread */
  private files: number[] = [];
  private why: string | null = null;

  /** `proc`: tests give a folder of their own. */
  constructor(pid: number, vcpuThreads: readonly number[], proc = '/proc') {
    try {
      if (vcpuThreads.length === 0) throw new Error('QEMU names no thread of a processor');
      for (const thread of new Set([pid, ...vcpuThreads]))
        this.files.push(openSync(`${proc}/${pid}/task/${thread}/stat`, 'r'));
    } catch (cause) {
      this.becomeBlind(cause);
    }
  }

  blindness(): string | null {
    return this.why;
  }

  isAsleep(): boolean {
    if (this.why !== null) return false;
    try {
      for (const file of this.files) if (!this.sleeps(file)) return false;
      return true;
    } catch (cause) {
      this.becomeBlind(cause);
      return false;
    }
  }

  /** QEMU has ended: its files are closed. */
  close(): void {
    if (this.why === null) this.becomeBlind('QEMU has ended');
  }

  private sleeps(file: number): boolean {
    const { head } = this;
    const bytes = readSync(file, head, 0, HEAD_BYTES, 0);
    // A name may contain a parenthesis, and what follows it contains none.
    let at = bytes - 1;
    while (at >= 0 && head[at] !== PARENTHESIS) at--;
    return at >= 0 && head[at + 2] === SLEEPS;
  }

  private becomeBlind(cause: unknown): void {
    this.why = `the threads of QEMU cannot be seen: ${messageOf(cause)}`;
    for (const file of this.files.splice(0)) closeSync(file);
  }
}
