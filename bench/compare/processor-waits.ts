/**
 * How long a program and this one have been ready to run and had no processor, by the kernel's own count
 * (/proc/PID/task/TID/schedstat). It tells a late answer of a slow program from one of a busy machine.
 */
import { readdirSync, readFileSync } from 'node:fs';

const NS_PER_MS = 1e6;

export class ProcessorWaits {
  private readonly paths: string[];

  /** Watches the thread of each that has worked most so far. */
  constructor(pid: number) {
    this.paths = [busiest(pid), busiest(process.pid)];
  }

  /** Since they were started, together. */
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
