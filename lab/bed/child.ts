/** Processes on a machine of the bed. Each dies with this process, however that ends. */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { fileOf, type Namespace, within } from '../namespace.ts';
import { startChild } from '../process.ts';

/** Returns the words before a command that run it in a namespace, for a program that starts its children itself. */
export function wordsIn(namespace: Namespace): string[] {
  return ['setpriv', '--pdeathsig', 'KILL', 'nsenter', `--net=${fileOf(namespace)}`];
}

/** As `ip netns exec` does: a process that looks at its network interfaces in /sys sees those of its namespace. */
const WITH_OWN_SYS = ['unshare', '--mount', 'sh', '-c', 'mount -t sysfs sysfs /sys && exec "$@"', 'sh'];

/** Starts a process in a namespace, with that namespace's interfaces in /sys. */
export function startWithSysIn(
  namespace: Namespace,
  command: readonly string[],
  options: SpawnOptions,
): ChildProcess {
  return startIn(namespace, [...WITH_OWN_SYS, ...command], options);
}

/** Starts a process in a namespace. */
export function startIn(
  namespace: Namespace,
  command: readonly string[],
  options: SpawnOptions,
): ChildProcess {
  return within(namespace, () => startChild(['setpriv', '--pdeathsig', 'KILL', ...command], options));
}
