/**
 * Child processes and working folders that end with this process: on a normal exit, on Ctrl-C, SIGTERM and
 * SIGHUP. After a SIGKILL this process cannot clean up, so each child is started so that it notices that itself.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ColoError } from '../src/error.ts';
import { startProblem } from '../src/qemu/start-problem.ts';

export type RunResult = { readonly status: number; readonly stdout: string; readonly stderr: string };

/** More than any tool prints; a tool that prints without end must not fill our memory. */
const OUTPUT_CHARACTERS_MAX = 16 << 20;

const children = new Set<ChildProcess>();
const folders = new Set<string>();
let watching = false;

/** Returns a new folder that is removed when this process ends. Its path is short, because it holds unix sockets. */
export function workFolder(): string {
  watchOurEnd();
  const folder = mkdtempSync(join(tmpdir(), 'colo-'));
  folders.add(folder);
  return folder;
}

export function removeWorkFolder(folder: string): void {
  folders.delete(folder);
  rmSync(folder, { recursive: true, force: true });
}

/** Starts a process that must not outlive this one. */
export function startChild(command: readonly string[], options: SpawnOptions): ChildProcess {
  watchOurEnd();
  const child = spawn(command[0], command.slice(1), options);
  children.add(child);
  child.on('exit', () => children.delete(child));
  child.on('error', () => children.delete(child));
  return child;
}

/** Kills a child: the lab's programs have nothing to save. */
export async function stopChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return;
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  child.kill('SIGKILL');
  await gone;
}

/** Runs a tool to its end and returns its output and status. Throws COLO_SETUP_TOOL only if it cannot be started. */
export function run(command: readonly string[], options: SpawnOptions = {}): Promise<RunResult> {
  return new Promise((resolve, reject) => {
    const child = startChild(command, { ...options, stdio: ['ignore', 'pipe', 'pipe'] });
    const out = { stdout: '', stderr: '' };
    for (const name of ['stdout', 'stderr'] as const) {
      child[name]?.setEncoding('utf8').on('data', (text: string) => {
        if (out[name].length < OUTPUT_CHARACTERS_MAX) out[name] += text;
      });
    }
    child.on('error', (error) =>
      reject(
        new ColoError('COLO_SETUP_TOOL', `cannot start ${command[0]}: ${startProblem(command[0], error)}`, {
          cause: error,
        }),
      ),
    );
    child.on('close', (code, signal) => resolve({ status: signal === null ? (code ?? 1) : 128, ...out }));
  });
}

function watchOurEnd(): void {
  if (watching) return;
  watching = true;
  process.on('exit', endEverything);
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const) {
    process.on(signal, () => {
      // A program with a signal handler of its own decides when to end; the exit event still cleans up.
      if (process.listenerCount(signal) === 1) process.exit(status);
    });
  }
}

function endEverything(): void {
  for (const child of children) child.kill('SIGKILL');
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
}
