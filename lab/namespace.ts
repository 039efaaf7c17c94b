/**
 * Network namespaces without a name. A namespace is a property of a thread, and all of Node's synchronous work is done by one:
 * `within` moves that thread into a namespace, and back. Children that are started and interfaces that are made meanwhile
 * belong to that namespace. It ends with its last process and file, so that nothing is left even after a SIGKILL.
 *
 * It needs root, or a user namespace (as-root.ts).
 */
import { closeSync, openSync, writeFileSync } from 'node:fs';
import koffi from 'koffi';
import { ColoError } from '../src/error.ts';

const libc = koffi.load('libc.so.6');
const unshare = libc.func('int unshare(int flags)');
const setns = libc.func('int setns(int fd, int kind)');

const CLONE_NEWNET = 0x4000_0000;

/** The file of a namespace, which keeps it alive. */
export type Namespace = { readonly fd: number };

/** Throws COLO_LAB_NAMESPACE if this user may not. */
export function newNamespace(): Namespace {
  const home = openSync('/proc/thread-self/ns/net', 'r');
  if (unshare(CLONE_NEWNET) !== 0) {
    closeSync(home);
    throw new ColoError('COLO_LAB_NAMESPACE', `cannot make a network namespace (errno ${koffi.errno()})`);
  }
  const fd = openSync('/proc/thread-self/ns/net', 'r');
  enter(home);
  closeSync(home);
  return { fd };
}

/** Runs `work`, which must be synchronous, in a namespace. */
export function within<T>({ fd }: Namespace, work: () => T): T {
  const home = openSync('/proc/thread-self/ns/net', 'r');
  enter(fd);
  try {
    return work();
  } finally {
    enter(home);
    closeSync(home);
  }
}

/** Returns a path of the namespace, for programs of this machine while this process lives. */
export function fileOf({ fd }: Namespace): string {
  return `/proc/${process.pid}/fd/${fd}`;
}

function enter(fd: number): void {
  if (setns(fd, CLONE_NEWNET) !== 0)
    throw new ColoError('COLO_LAB_NAMESPACE', `cannot enter a network namespace (errno ${koffi.errno()})`);
}

/** Sets a variable of the namespace that the thread is in: `key` is its path in /proc/sys. */
export function setKernel(key: string, value: string): void {
  writeFileSync(`/proc/sys/${key}`, value);
}
