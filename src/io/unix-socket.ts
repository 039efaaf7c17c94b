/** The path of a unix socket outlives a process that was killed: a new listener first checks that no process accepts there. */
import { lstatSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';

/** Returns whether a process accepts connections on this unix socket. */
export function acceptsUnix(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // A full backlog or a missing permission: a process is there nevertheless.
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT');
    });
  });
}

/**
 * Removes the path of a socket whose process has ended. Returns what is there now: nothing (`free`), a process that
 * accepts (`taken`), or a file that is not a socket and was not touched (`foreign`).
 */
export async function removeStaleSocket(path: string): Promise<'free' | 'taken' | 'foreign'> {
  if (!(lstatSync(path, { throwIfNoEntry: false })?.isSocket() ?? true)) return 'foreign';
  if (await acceptsUnix(path)) return 'taken';
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return 'free';
}
