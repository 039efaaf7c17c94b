/**
 * One QEMU process: started, watched, stopped.
 *
 * Goal: the node always knows whether its QEMU lives, can say why it does not, and never leaves one behind. A QEMU
 * without its node is a VM that nobody fences.
 *
 * What is tracked: the child, the last 4 KiB of its stderr, its exit.
 *
 * Events: `exited` resolves when it has ended, by whatever cause; `signal` aborts at the same time, with the error
 * to show, for whoever waits for something from this QEMU (QmpClient.connect).
 *
 * Never left behind: on our own exit every child is killed. When we are killed with SIGKILL nobody runs that, which
 * is what QEMU's `-run-with exit-with-parent=on` is for (a death signal that the kernel sends; it is bound to the
 * thread that forked, so QEMU must be started from the main thread). QEMU before 10.2 lacks it, hence the probe.
 *
 * Limits: stderr kept, time to stop. Failure: COLO_QEMU_START when the program cannot be run at all,
 * COLO_QEMU_EXITED with the exit status and QEMU's last words when it ended.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { ColoError } from '../error.ts';

/** QEMU's reason for ending is its last line or two. */
export const STDERR_BYTES_MAX = 4096;
/** stderr may still hold bytes when the exit is known; a grandchild could keep it open for ever. */
const STDERR_DRAIN_MS = 100;
const PROBE_MS_MAX = 10_000;

export interface QemuExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** Names the command, the status and the last line of stderr. */
  readonly error: ColoError;
}

export interface StartOptions {
  /** The whole argument vector, program first. */
  readonly argv: readonly string[];
  /** Added to our own environment. */
  readonly env?: Readonly<Record<string, string>>;
}

const living = new Set<ChildProcess>();
let killsAtExit = false;

export class QemuProcess {
  readonly exited: Promise<QemuExit>;
  readonly signal: AbortSignal;
  readonly #child: ChildProcess;
  readonly #program: string;
  #stderr: Buffer = Buffer.alloc(0);
  #exit: QemuExit | undefined;

  private constructor(child: ChildProcess, program: string) {
    this.#child = child;
    this.#program = program;
    const ended = new AbortController();
    this.signal = ended.signal;
    child.stderr?.on('data', (chunk: Buffer) => {
      const all = Buffer.concat([this.#stderr, chunk]);
      this.#stderr = all.subarray(Math.max(0, all.length - STDERR_BYTES_MAX));
    });
    this.exited = new Promise((resolve) => {
      let timer: NodeJS.Timeout | undefined;
      const settle = (): void => {
        if (this.#exit) return;
        clearTimeout(timer);
        const { exitCode: code, signalCode: signal } = child;
        this.#exit = { code, signal, error: this.#exitError(code, signal) };
        ended.abort(this.#exit.error);
        resolve(this.#exit);
      };
      child.once('exit', () => {
        living.delete(child);
        timer = setTimeout(settle, STDERR_DRAIN_MS);
      });
      child.once('close', settle);
    });
  }

  /** Resolves when the program runs, which says nothing yet about what QEMU makes of its arguments. */
  static async start(options: StartOptions): Promise<QemuProcess> {
    const child = await spawnChild(options, 'pipe');
    return new QemuProcess(child, String(options.argv[0]));
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  /** How it ended, or undefined while it runs. */
  get exit(): QemuExit | undefined {
    return this.#exit;
  }

  /** At most the last 4 KiB, from the start of a line. */
  get stderr(): string {
    const text = this.#stderr.toString('utf8');
    return this.#stderr.length < STDERR_BYTES_MAX ? text : text.slice(text.indexOf('\n') + 1);
  }

  /** Asks with SIGTERM, insists with SIGKILL. May be called any number of times. */
  async stop(options: { readonly graceMs: number }): Promise<QemuExit> {
    if (this.#exit) return this.#exit;
    this.#child.kill('SIGTERM');
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), options.graceMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }

  /** The fence of last resort: nothing of this VM runs on. */
  kill(): void {
    this.#child.kill('SIGKILL');
  }

  #exitError(code: number | null, signal: NodeJS.Signals | null): ColoError {
    const lines = this.stderr.split('\n').filter((line) => line.trim() !== '');
    const last = lines.at(-1)?.trim() ?? 'it wrote nothing to stderr';
    const how = signal === null ? `status ${code}` : signal;
    return new ColoError('COLO_QEMU_EXITED', `QEMU (${this.#program}) ended with ${how}: ${last}`);
  }
}

const probed = new Map<string, Promise<boolean>>();

/** Whether this QEMU knows `-run-with exit-with-parent=on`; asked once per command. */
export function probeExitWithParent(
  command: readonly string[],
  env?: Readonly<Record<string, string>>,
): Promise<boolean> {
  const key = JSON.stringify([command, env ?? {}]);
  let answer = probed.get(key);
  if (!answer) {
    answer = askExitWithParent(command, env);
    probed.set(key, answer);
    // A program that could not be started may be there the next time.
    answer.catch(() => probed.delete(key));
  }
  return answer;
}

async function askExitWithParent(
  command: readonly string[],
  env?: Readonly<Record<string, string>>,
): Promise<boolean> {
  // Options are read in order: an unknown one ends QEMU with status 1 before it gets to -version.
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
      const text = `cannot start ${program}: ${error.message}; is it installed, and is vm.command right?`;
      reject(new ColoError('COLO_QEMU_START', text, { cause: error }));
    };
    let child: ChildProcess;
    try {
      child = spawn(program, args, {
        stdio: ['ignore', 'ignore', stderr],
        env: { ...process.env, ...options.env },
      });
    } catch (error) {
      // Arguments that cannot be passed at all, such as one with a zero byte.
      fail(error as Error);
      return;
    }
    child.once('error', fail);
    child.once('spawn', () => {
      // An error from here on is a signal that could not be sent: the child has gone already.
      child.removeListener('error', fail);
      child.on('error', () => undefined);
      living.add(child);
      killAtExit();
      resolve(child);
    });
  });
}

function killAtExit(): void {
  if (killsAtExit) return;
  killsAtExit = true;
  process.once('exit', () => {
    for (const child of living) child.kill('SIGKILL');
  });
}
