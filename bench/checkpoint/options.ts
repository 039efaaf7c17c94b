/** The options of the bench. */
import { parseArgs } from 'node:util';
import { ColoError } from '../../src/error.ts';

export const HELP = `npm run bench -- checkpoint [--json] [--count N] [--pace MS] [--load] [--before CHECKOUT]
  --count N   checkpoints on each side, default 60
  --pace MS   how long the guest runs between two checkpoints, default 100
  --load      a TCP echo session and a UDP echo load on each side's guest, instead of idle guests
  --before CHECKOUT   another pair, ours of another build: a checkout that is set up`;

const COUNT_MAX = 10_000;
const PACE_MS_MAX = 60_000;

export type Options = {
  readonly count: number;
  readonly paceMs: number;
  readonly load: boolean;
  readonly before: string | null;
};

/** Returns null if only help was asked for. Throws COLO_USAGE. */
export function readOptions(args: string[]): Options | null {
  try {
    const { values } = parseArgs({
      args,
      options: {
        count: { type: 'string', default: '60' },
        pace: { type: 'string', default: '100' },
        load: { type: 'boolean', default: false },
        before: { type: 'string' },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    if (values.help) return null;
    const count = Number(values.count);
    if (!Number.isInteger(count) || count < 1 || count > COUNT_MAX)
      throw new Error(`--count takes a whole number from 1 to ${COUNT_MAX}`);
    const paceMs = Number(values.pace);
    if (!(paceMs >= 0 && paceMs <= PACE_MS_MAX))
      throw new Error(`--pace takes milliseconds from 0 to ${PACE_MS_MAX}`);
    return { count, paceMs, load: values.load, before: values.before ?? null };
  } catch (cause) {
    throw new ColoError('COLO_USAGE', `${(cause as Error).message}\n${HELP}`);
  }
}
