/** The result of a run as one object: the last line of `--json`. */
import type { Options } from './options.ts';
import type { ChaosResult } from './run.ts';
import { type Row, rowsOf } from './table.ts';

/** Scripts rely on the first six. */
export type Summary = {
  readonly ok: boolean;
  readonly failures: number;
  readonly acknowledgedLost: number;
  readonly secondVoices: number;
  readonly protectedAtEnd: boolean;
  /** with disks: at the end both images were equal, byte for byte; absent without */
  readonly disksEqual?: boolean;
  readonly seed: number;
  readonly arbiter: string;
  /** connections that ended in any other way than in order */
  readonly broken: number;
  /** replies that were checked */
  readonly acknowledged: number;
  /** frames of the VM that were recorded, and that the recorder missed; null if it ended too early to know */
  readonly frames: number;
  readonly unrecorded: number | null;
  /** why the run ended before its time */
  readonly broke: string | null;
  readonly rows: readonly Row[];
};

/** `ok` needs work: replies and frames that were checked, every failure that was asked for, and no frame that nobody saw. */
export function summaryOf(
  options: Pick<Options, 'seed' | 'failures' | 'arbiter'>,
  { outcomes, checked, voices, unrecorded, broke, disksEqual }: ChaosResult,
): Summary {
  const protectedAtEnd = broke === null;
  const secondVoices = voices.seconds.length;
  const { lost: acknowledgedLost, broken, acknowledged } = checked;
  const worked =
    outcomes.length === options.failures && acknowledged > 0 && voices.frames > 0 && unrecorded === 0;
  return {
    ok:
      disksEqual !== false &&
      worked &&
      protectedAtEnd &&
      acknowledgedLost === 0 &&
      broken === 0 &&
      secondVoices === 0,
    failures: outcomes.length,
    acknowledgedLost,
    secondVoices,
    protectedAtEnd,
    ...(disksEqual === null ? {} : { disksEqual }),
    ...{ seed: options.seed, arbiter: options.arbiter },
    ...{ broken, acknowledged, frames: voices.frames, unrecorded, broke },
    rows: rowsOf(outcomes),
  };
}
