/** Processes on a machine of the bed. Each dies with this process, however that ends. */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { type Namespace, within } from '../namespace.ts';
import { startChild } from '../process.ts';

/** Returns the words before a command that run it in a namespace, for a program that starts its children itself. */
export function wordsIn({ fd }: Namespace): string[] {
  return ['setpriv', '--pdeathsig', 'KILL', 'nsenter', `--net=/proc/${process.pid}/fd/${fd}`];
}

/** Starts a process in a namespace. */
export function startIn(
  namespace: Namespace,
  command: readonly string[],
  options: SpawnOptions,
): ChildProcess {
  return within(namespace, () => startChild(['setpriv', '--pdeathsig', 'KILL', ...command], options));
}
