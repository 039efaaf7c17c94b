/** Finds all processes that a command has started, however they came to be. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/** A variable in the environment of the command, which every process that it starts inherits. */
export const MARK = 'COLO_E2E_MARK';

/** Returns "PID program" of every process with the mark that still runs. */
export function processesOf(mark: string): string[] {
  const found: string[] = [];
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
      if (environment.includes(`${MARK}=${mark}`)) found.push(`${pid} ${readlinkSync(`/proc/${pid}/exe`)}`);
    } catch {
      // The process ended meanwhile, or belongs to another user.
    }
  }
  return found;
}
