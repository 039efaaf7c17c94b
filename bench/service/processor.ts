/** How much processor time processes have used. */
import { readFileSync } from 'node:fs';

/** USER_HZ, which Linux shows to programs whatever its own clock. */
const TICK_MS = 10;

/** Returns the milliseconds of all threads of a process, in user mode and in the kernel (proc_pid_stat(5)). */
export function processorMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  // The second field is the program's name, which may contain blanks and parentheses.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const [user, kernel] = [Number(fields[11]), Number(fields[12])];
  return (user + kernel) * TICK_MS;
}
