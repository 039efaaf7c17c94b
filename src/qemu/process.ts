/**
 * One QEMU process: started, watched, stopped.
 *
 * Goal: the node always knows whether its QEMU runs and why it ended, and leaves no QEMU behind. A QEMU
 * without its node is a VM that no node can fence.
 *
 * Tracked: the child, the last 4 KiB of its stderr, its exit.
 *
 * Events: `exited` resolves when QEMU has ended, whatever the cause; `signal` aborts at the same time, with the error
 * to show, for code that waits for this QEMU (QmpClient.connect).
 *
 * No QEMU is left behind: this process kills every child when it exits. If it is itself killed by SIGKILL it cannot, and
 * QEMU's `-run-with exit-with-parent=on` does it (a death signal that the kernel sends; it is bound to the
 * thread that forked, so QEMU must be started from the main thread). QEMU before 10.2 lacks it, hence the probe.
 *
 * Limits: the bytes of stderr, the time to stop. Failure: COLO_QEMU_START if the program cannot be run at all,
 * COLO_QEMU_EXITED with the exit status and the last line of stderr when it ended.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { ColoError, invariant } from '../error.ts';
import { ProcSight, type SleepSight } from '../io/sleep-sight.ts';
import { startProblem } from './start-problem.ts';

/** QEMU's reason for ending is its last line or two. */
export const STDERR_BYTES_MAX = 4096;
/** stderr may still have bytes when the exit is known; a grandchild could keep it open without an end. */
const STDERR_DRAIN_MS = 100;
const PROBE_MS_MAX = 10_000;

export interface QemuExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** names the command, the status and the last line of stderr */
  readonly error: ColoError;
}

export interface StartOptions {
  /** the whole argument vector, program first */
  readonly argv: readonly string[];
  /** added to this process's own environment */
  readonly env?: Readonly<Record<string, string>>;
}

const living = new Set<ChildProcess>();
let killsAtExit = false;

export class QemuProcess {
  readonly exited: Promise<QemuExit>;
  readonly signal: AbortSignal;
  private readonly child: ChildProcess;
  private readonly program: string;
  private stderrTail: Buffer = Buffer.alloc(0);
  private ending: QemuExit | undefined;

  private constructor(child: ChildProcess, program: string) {
    invariant(living.has(child), 'this process would not kill a QEMU when it exits');
    this.child = child;
    this.program = program;
    const ended = new AbortController();
    this.signal = ended.signal;
    child.stderr?.on('data', (chunk: Buffer) => {
      const all = Buffer.concat([this.stderrTail, chunk]);
      this.stderrTail = all.subarray(Math.max(0, all.length - STDERR_BYTES_MAX));
    });
    this.exited = new Promise((resolve) => {
      let timer: NodeJS.Timeout | undefined;
      const settle = (): void => {
        if (this.ending) return;
        clearTimeout(timer);
        const { exitCode: code, signalCode: signal } = child;
        this.ending = { code, signal, error: this.exitError(code, signal) };
        ended.abort(this.ending.error);
        resolve(this.ending);
      };
      child.once('exit', () => {
        living.delete(child);
        timer = setTimeout(settle, STDERR_DRAIN_MS);
      });
      child.once('close', settle);
    });
  }

  /** Resolves when the program runs; QEMU may still reject its arguments. */
  static async start(options: StartOptions): Promise<QemuProcess> {
    const child = await spawnChild(options, 'pipe');
    return new QemuProcess(child, String(options.argv[0]));
  }

  get pid(): number {
    return this.child.pid as number;
  }

  /** how QEMU ended; undefined while it runs */
  get exit(): QemuExit | undefined {
    return this.ending;
  }

  /** the last 4 KiB, from the start of a line */
  get stderr(): string {
    const text = this.stderrTail.toString('utf8');
    return this.stderrTail.length < STDERR_BYTES_MAX ? text : text.slice(text.indexOf('\n') + 1);
  }

  /** Sends SIGTERM, and SIGKILL after `graceMs`. May be called any number of times. */
  async stop(options: { readonly graceMs: number }): Promise<QemuExit> {
    if (this.ending) return this.ending;
    this.child.kill('SIGTERM');
    const timer = setTimeout(() => this.child.kill('SIGKILL'), options.graceMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Returns what sees whether this QEMU and its guest sleep, until QEMU has ended. */
  sight(vcpuThreads: readonly number[]): SleepSight {
    const sight = new ProcSight(this.pid, vcpuThreads);
    this.child.once('exit', () => sight.close());
    if (this.child.exitCode !== null || this.child.signalCode !== null) sight.close();
    return sight;
  }

  /** Ends the VM at once: the fence of last resort. */
  kill(): void {
    this.child.kill('SIGKILL');
  }

  private exitError(code: number | null, signal: NodeJS.Signals | null): ColoError {
    const lines = this.stderr.split('\n').filter((line) => line.trim() !== '');
    const last = lines.at(-1)?.trim() ?? 'it wrote nothing to stderr';
    const how = signal === null ? `status ${code}` : signal;
    return new ColoError('COLO_QEMU_EXITED', `QEMU (${this.program}) ended with ${how}: ${last}`);
  }
}

const probed = new Map<string, Promise<boolean>>();

/** Returns whether this QEMU has `-run-with exit-with-parent=on`; probed once per command. */
export function probeExitWithParent(
  command: readonly string[],
  env?: Readonly<Record<string, string>>,
): Promise<boolean> {
  const key = JSON.stringify([command, env ?? {}]);
  let result = probed.get(key);
  if (!result) {
    result = runProbe(command, env);
    probed.set(key, result);
    // A program that could not be started may be installed by the next time.
    result.catch(() => probed.delete(key));
  }
  return result;
}

async function runProbe(
  command: readonly string[],
  env?: Readonly<Record<string, string>>,
): Promise<boolean> {
  // QEMU reads its options in order: an unknown one ends it with status 1 before it reaches -version.
  const argv = [...command, '-run-with', 'exit-with-parent=on', '-version'];
  const child = await spawnChild(env ? { argv, env } : { argv }, 'ignore');
  return await new Promise((resolve) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), PROBE_MS_MAX);
    child.once('exit', (code) => {
      living.delete(child);
      clearTimeout(timer);
      resolve(code === 0);
    });
  });
}

function spawnChild(options: StartOptions, stderr: 'pipe' | 'ignore'): Promise<ChildProcess> {
  const [program, ...args] = options.argv;
  if (program === undefined || program === '') {
    return Promise.reject(new ColoError('COLO_QEMU_START', 'no QEMU to start: vm.command is empty'));
  }
  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => {
      const why = startProblem(program, error);
      const text = `cannot start ${program}: ${why}; is it installed, and is vm.command right?`;
      reject(new ColoError('COLO_QEMU_START', text, { cause: error }));
    };
    let child: ChildProcess;
    try {
      child = spawn(program, args, {
        stdio: ['ignore', 'ignore', stderr],
        detached: hasTerminal(),
        env: { ...process.env, ...options.env },
      });
    } catch (error) {
      // Arguments that cannot be passed at all, such as one with a zero byte.
      fail(error as Error);
      return;
    }
    child.once('error', fail);
    child.once('spawn', () => {
      // An error from here on is a signal that could not be sent: the child is gone already.
      child.removeListener('error', fail);
      child.on('error', () => undefined);
      living.add(child);
      killAtExit();
      resolve(child);
    });
  });
}

/**
 * With a terminal, QEMU gets a session of its own: Ctrl-C and the terminal's end are for this process, which stops QEMU in order,
 * or not at all. Without one, nobody sends signals to a session, and both stay in one: Linux schedules each session as a group
 * (autogroup, sched(7)), and a node that the kernel wakes for each single frame of another group's VM halves the rate of a download.
 */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}

function killAtExit(): void {
  if (killsAtExit) return;
  killsAtExit = true;
  process.once('exit', () => {
    for (const child of living) child.kill('SIGKILL');
  });
}
