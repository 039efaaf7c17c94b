/** Unix sockets outlive a process that was killed: who listens again must first see that nobody is there. */
import { lstatSync, unlinkSync } from 'node:fs';
import { connect } from 'node:net';

/** Whether anybody accepts connections on this unix socket. */
export function answersUnix(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ path });
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', (error: NodeJS.ErrnoException) => {
      // Full backlog or no permission: somebody is there all the same.
      resolve(error.code !== 'ECONNREFUSED' && error.code !== 'ENOENT');
    });
  });
}

/**
 * Frees a path that a dead process left behind. Answers what is there now: nothing (`free`), a living listener
 * (`taken`), or something that is no socket and was not touched (`foreign`).
 */
export async function removeStaleSocket(path: string): Promise<'free' | 'taken' | 'foreign'> {
  if (!(lstatSync(path, { throwIfNoEntry: false })?.isSocket() ?? true)) return 'foreign';
  if (await answersUnix(path)) return 'taken';
  try {
    unlinkSync(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
  }
  return 'free';
}
