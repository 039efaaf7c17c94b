/**
 * What a command does when its output or its terminal is gone.
 *
 * One that carries a VM's network outlives both: a reader that has ended (EPIPE), a terminal that was closed (EIO, SIGHUP), a
 * full disk (ENOSPC), a log that was rotated (SIGHUP). Any other has nothing left to do.
 */
import { writeSync } from 'node:fs';
import { messageOf } from '../error.ts';

let isOutliving = false;

/** From now on the process carries a VM's network. */
export function outliveOutput(): void {
  isOutliving = true;
  process.on('SIGHUP', () => {});
}

export function outlivesOutput(): boolean {
  return isOutliving;
}

/** Standard output or standard error could not be written to. */
export function onOutputError(error: NodeJS.ErrnoException): void {
  if (isOutliving) return;
  // A reader that has ended (head, less) is not an error.
  if (error.code === 'EPIPE') process.exit(0);
  try {
    writeSync(process.stderr.fd, `COLO_OUTPUT: the output cannot be written: ${messageOf(error)}\n`);
  } catch {
    // It is standard error that cannot be written.
  }
  process.exit(process.exitCode || 1);
}
