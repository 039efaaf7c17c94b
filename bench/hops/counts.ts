/** What a process has done so far, as /proc shows it. */
import { readdirSync, readFileSync } from 'node:fs';
import { processorMs } from '../service/processor.ts';

/** `sleeps`: how often its threads have gone to sleep, each of which needs a wake-up; `bytes`: read and written, each a copy. */
export type Counts = {
  readonly processorMs: number;
  readonly sleeps: number;
  readonly reads: number;
  readonly writes: number;
  readonly bytes: number;
};

export function countsOf(pid: number): Counts {
  const io = fields(`/proc/${pid}/io`);
  const sleeps = readdirSync(`/proc/${pid}/task`).map((thread) => {
    return fields(`/proc/${pid}/task/${thread}/status`).voluntary_ctxt_switches ?? 0;
  });
  return {
    processorMs: processorMs(pid),
    sleeps: sleeps.reduce((sum, one) => sum + one, 0),
    reads: io.syscr,
    writes: io.syscw,
    bytes: io.rchar + io.wchar,
  };
}

function fields(path: string): Record<string, number> {
  const lines = readFileSync(path, 'utf8').split('\n');
  return Object.fromEntries(
    lines.map((line) => line.split(':')).map(([name, value]) => [name, Number(value)]),
  );
}
