/**
 * Runs the administrator's fence command: it cuts a host off, at its power or its switch port.
 *
 * The convention is that of fence-agents (FenceAgentAPI): parameters as `name=value` lines on standard input, unknown ones
 * ignored; exit status 0 says that the host is off, and nothing else does: a command that is still running has failed.
 *
 * Limits: `timeoutMs`; the last OUTPUT_BYTES_MAX of what it prints. The command has a process group of its own: at its time-out,
 * when it fails, and when `signal` aborts, it is killed with its children, and the call ends when it has ended.
 * Failure: COLO_FENCE_START, COLO_FENCE_FAILED, COLO_FENCE_TIMEOUT, COLO_FENCE_ENDED.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../error.ts';
import { deadline } from '../io/deadline.ts';
import { startProblem } from '../qemu/start-problem.ts';
import type { Fencer } from './peer-fence.ts';

const OUTPUT_BYTES_MAX = 1024;
/** What it has printed may be read after its exit is known; what has left its group could keep the output open without an end. */
const OUTPUT_MS_MAX = 100;

export type FenceCommand = { readonly command: readonly string[]; readonly timeoutMs: number };

/** The parameters that the command gets: `peer` is the name of the node to fence. */
export function fenceParameters(peer: string): string {
  // `port` is the older name of `plug`; `nodename` is what agents get that need no plug.
  return `action=off\nnodename=${peer}\nplug=${peer}\nport=${peer}\n`;
}

/** Null without a fence command. */
export function fencerOf({ fence }: { fence?: FenceCommand | undefined }): Fencer | null {
  return fence === undefined ? null : (peer, signal) => runFenceCommand(fence, peer, signal);
}

/** Resolves when the command has fenced `peer`. */
export function runFenceCommand(fence: FenceCommand, peer: string, signal: AbortSignal): Promise<void> {
  const [program, ...args] = fence.command;
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { detached: true, stdio: ['pipe', 'pipe', 'pipe'] });
    let end: ColoError | null = null;
    const kill = (cause: ColoError) => {
      end ??= cause;
      killGroup(child);
    };
    const ended = deadline(fence.timeoutMs, () =>
      kill(
        new ColoError('COLO_FENCE_TIMEOUT', `"${program}" did not end within fence.timeoutMs${said(output)}`),
      ),
    );
    const onAbort = () =>
      kill(new ColoError('COLO_FENCE_ENDED', 'the node stopped before its fence was done'));
    const output = lastOutput(child);
    const settle = () => {
      ended();
      signal.removeEventListener('abort', onAbort);
    };
    child.once('error', (error) => {
      settle();
      const text = `"${program}" cannot be started: ${startProblem(program, error)}; correct fence.command`;
      reject(new ColoError('COLO_FENCE_START', text, { cause: error }));
    });
    child.once('exit', async (code, by) => {
      settle();
      // What it has started may use them for as long as it likes, and is not to keep this process from ending.
      for (const pipe of [child.stdout, child.stderr]) (pipe as Socket | null)?.unref();
      if (end === null && code === 0) return resolve();
      // What it has started could still run when it is tried again.
      killGroup(child);
      await Promise.race([new Promise((all) => child.once('close', all)), sleep(OUTPUT_MS_MAX)]);
      const how = by === null ? `status ${code}` : by;
      reject(end ?? new ColoError('COLO_FENCE_FAILED', `"${program}" ended with ${how}${said(output)}`));
    });
    signal.addEventListener('abort', onAbort);
    if (signal.aborted) onAbort();
    // It may end without having read anything.
    child.stdin?.on('error', () => {});
    child.stdin?.end(fenceParameters(peer));
  });
}

function lastOutput(child: ChildProcess): { text: string } {
  const output = { text: '' };
  for (const stream of [child.stdout, child.stderr])
    stream?.on('data', (chunk: Buffer) => {
      output.text = `${output.text}${chunk.toString('utf8')}`.slice(-OUTPUT_BYTES_MAX);
    });
  return output;
}

function said({ text }: { text: string }): string {
  const last = text.trim().split('\n').at(-1)?.trim() ?? '';
  return last === '' ? ' and printed nothing' : `: ${last}`;
}

function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // All of them have ended.
  }
}
