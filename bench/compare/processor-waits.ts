/**
 * Measures how long a program and this one have been ready to run without a processor, by the kernel's own count
 * (/proc/PID/task/TID/schedstat). It distinguishes a slow program from a busy machine.
 */
import { readdirSync, readFileSync } from 'node:fs';

const NS_PER_MS = 1e6;

export class ProcessorWaits {
  private readonly paths: string[];

  /** Watches, in each of the two, the thread that has used most processor time so far. */
  constructor(pid: number) {
    this.paths = [busiest(pid), busiest(process.pid)];
  }

  /** Returns the sum of both waits since the programs started. */
  ms(): number {
    return this.paths.reduce((sum, path) => sum + readStat(path).waitedNs / NS_PER_MS, 0);
  }
}

function busiest(pid: number): string {
  const folder = `/proc/${pid}/task`;
  const threads = readdirSync(folder).map((thread) => `${folder}/${thread}/schedstat`);
  return threads.reduce((most, path) => (readStat(path).ranNs > readStat(most).ranNs ? path : most));
}

function readStat(path: string): { ranNs: number; waitedNs: number } {
  const [ranNs, waitedNs] = readFileSync(path, 'utf8').split(' ').map(Number);
  return { ranNs, waitedNs };
}
