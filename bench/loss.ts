/**
 * `npm run bench -- loss`: what a lossy network costs clients of a pair, beside what it costs them without colo in between.
 *
 * Client, PVM and SVM are Linux's own TCP stacks in network namespaces; the wire between them is a relay in this process
 * (loss/bed.ts). `colo rewrite` and `colo compare` stand between the VMs and the wire, and nothing takes checkpoints: a
 * connection that needs one stands still until the transfer is given up.
 */
import { parseArgs } from 'node:util';
import { becomeRoot } from '../lab/as-root.ts';
import { ColoError } from '../src/error.ts';
import type { BenchResult } from './bench.ts';
import { COLO, coloOf } from './compare/peers.ts';
import { type Outcome, runTrial, type Trial } from './loss/bed.ts';
import type { Direction } from './loss/service.ts';
import { VARIANTS } from './loss/variants.ts';

const VARIANT_NAMES = Object.entries(VARIANTS).map(
  ([name, { about }]) => `                       ${name.padEnd(18)} ${about}`,
);

const USAGE = `usage: npm run bench -- loss [options]

Transfers over a lossy network: through rewrite and compare, and with the primary VM alone. The wire loses the given share
of the segments in each direction, and delays each by 10 ms. Needs root, or user namespaces and /dev/net/tun. The default
takes about 25 minutes.

  --loss P,P,...       shares of segments that are lost, in percent (default 1,2,3)
  --directions D,D     of down and up (default both)
  --runs N             transfers per row (default 4)
  --megabytes N        size of a transfer (default 20)
  --delay MS           of the wire, in each direction (default 10)
  --seed N             of the first transfer's wire (default 1)
  --variants V,V       (default plain)
${VARIANT_NAMES.join('\n')}
  --before DIR         a checkout that is set up: its colo in turns with this one

Exit codes: 0 every transfer through colo ended, with no difference, in at most 1.3 times the time; 1 not; 2 wrong usage.
`;

const RATIO_MAX = 1.3;
const MEGABYTE = 1_000_000;

type Options = {
  readonly loss: readonly number[];
  readonly directions: readonly Direction[];
  readonly runs: number;
  readonly bytes: number;
  readonly delayMs: number;
  readonly seed: number;
  readonly variants: readonly string[];
  readonly before: string | null;
};

type Column = 'without' | 'before' | 'colo';
type Sum = {
  runs: number;
  finished: number;
  /** of the transfers that ended, and their mean */
  seconds: number;
  stalls: number;
  longestMs: number;
  matched: number;
  divergences: number;
  asked: Record<string, number>;
};
type Row = { name: string; ratio: number | null; columns: Partial<Record<Column, Sum>> };

export async function lossBench(args: string[], print: (line: string) => void): Promise<BenchResult | null> {
  const options = readOptions(args);
  if (options === null) {
    process.stdout.write(USAGE);
    return null;
  }
  await becomeRoot();
  const colos: [Column, string | null][] = [
    ['without', null],
    ...(options.before === null ? [] : [['before', coloOf(options.before)] as [Column, string]]),
    ['colo', COLO],
  ];
  print(HEAD);
  const rows: Row[] = [];
  for (const variant of options.variants)
    for (const direction of options.directions)
      for (const loss of options.loss) {
        const name = `${variant}, ${direction}, ${loss} %`;
        const row: Row = { name, ratio: null, columns: {} };
        for (let run = 0; run < options.runs; run++)
          for (const [column, colo] of colos) {
            const trial = { ...trialOf(options, variant, direction, loss), seed: options.seed + run, colo };
            const outcome = await runTrial(trial);
            row.columns[column] = add(row.columns[column] ?? NOTHING, outcome);
            progress(name, run, column, outcome);
          }
        row.ratio = ratioOf(row.columns);
        rows.push(row);
        for (const line of lines(row)) print(line);
      }
  const claims = claimsOf(rows);
  for (const { text, holds } of claims) print(`${text}: ${holds ? 'holds' : 'DOES NOT HOLD'}`);
  return { ok: claims.every(({ holds }) => holds), rows, claims };
}

function trialOf(
  { bytes, delayMs }: Options,
  name: string,
  direction: Direction,
  loss: number,
): Omit<Trial, 'seed' | 'colo'> {
  const variant = VARIANTS[name];
  return { direction, bytes, variant, quality: { ...variant.quality, delayMs, loss: loss / 100 } };
}

const NOTHING: Sum = {
  runs: 0,
  finished: 0,
  seconds: 0,
  stalls: 0,
  longestMs: 0,
  matched: 0,
  divergences: 0,
  asked: {},
};

function add(sum: Sum, { ms, right, stalls, longestMs, compared }: Outcome): Sum {
  const finished = sum.finished + (ms !== null && right ? 1 : 0);
  const total = sum.seconds * sum.finished + (ms !== null && right ? ms / 1000 : 0);
  const asked = { ...sum.asked };
  for (const [reason, count] of Object.entries(compared?.asked ?? {}))
    asked[reason] = (asked[reason] ?? 0) + count;
  return {
    runs: sum.runs + 1,
    finished,
    seconds: finished === 0 ? 0 : total / finished,
    stalls: sum.stalls + stalls,
    longestMs: Math.max(sum.longestMs, Math.round(longestMs)),
    matched: sum.matched + (compared?.matched ?? 0),
    divergences: sum.divergences + (compared?.divergences ?? 0),
    asked,
  };
}

function ratioOf({ without, colo }: Row['columns']): number | null {
  if (without === undefined || colo === undefined || without.finished === 0 || colo.finished === 0)
    return null;
  return colo.seconds / without.seconds;
}

const HEAD = [
  'transfer'.padEnd(30),
  ''.padEnd(8),
  ...['ended', 'mean s', 'ratio', 'stalls', 'longest s', 'matched', 'differ'].map((name) =>
    name.padStart(10),
  ),
  '  checkpoints asked for',
].join('');

function lines({ name, ratio, columns }: Row): string[] {
  return Object.entries(columns).map(([column, sum]) => {
    const isBare = column === 'without';
    const cells = [
      `${sum.finished}/${sum.runs}`,
      sum.seconds.toFixed(1),
      column === 'colo' && ratio !== null ? ratio.toFixed(2) : '',
      String(sum.stalls),
      (sum.longestMs / 1000).toFixed(1),
      isBare ? '' : String(sum.matched),
      isBare ? '' : String(sum.divergences),
    ];
    const asked = Object.entries(sum.asked).map(([reason, count]) => `${count} ${reason}`);
    const figures = cells.map((cell) => cell.padStart(10)).join('');
    return `${(isBare ? name : '').padEnd(30)}${column.padEnd(8)}${figures}  ${asked.join(', ')}`;
  });
}

/** Always on standard error: one line per transfer, which may take a minute. */
function progress(name: string, run: number, column: Column, outcome: Outcome): void {
  const { ms, right, longestMs, lost, compared } = outcome;
  const how = ms === null ? 'stands' : `${(ms / 1000).toFixed(1)} s${right ? '' : ', WRONG BYTES'}`;
  const asked = compared === null ? '' : `, asked for ${JSON.stringify(compared.asked)}`;
  process.stderr.write(
    `  ${name}, run ${run + 1}, ${column}: ${how}, longest gap ${(longestMs / 1000).toFixed(1)} s, ${lost} lost${asked}\n`,
  );
}

function claimsOf(rows: readonly Row[]): { text: string; holds: boolean }[] {
  const sums = rows.map(({ columns }) => columns.colo ?? NOTHING);
  const total = (of: (sum: Sum) => number): number => sums.reduce((all, sum) => all + of(sum), 0);
  const [finished, runs] = [total((sum) => sum.finished), total((sum) => sum.runs)];
  const divergences = total((sum) => sum.divergences);
  return [
    { text: `${finished} of ${runs} transfers ended, with the right bytes`, holds: finished === runs },
    { text: `${divergences} differences were found`, holds: divergences === 0 },
    ...rows.map(({ name, ratio }) => ({
      text: `${name}: at most ${RATIO_MAX} times the time without colo (${ratio?.toFixed(2) ?? 'none ended'})`,
      holds: ratio !== null && ratio <= RATIO_MAX,
    })),
  ];
}

function readOptions(args: string[]): Options | null {
  try {
    const string = { type: 'string' } as const;
    const { values } = parseArgs({
      args,
      options: {
        ...{ loss: string, directions: string, runs: string, megabytes: string, delay: string },
        ...{ seed: string, variants: string, before: string },
        help: { type: 'boolean', short: 'h' },
      },
    });
    if (values.help === true) return null;
    const number = (name: string, text: string, min: number, max: number): number => {
      const value = Number(text);
      if (text === '' || !(value >= min && value <= max))
        throw new Error(`--${name} takes numbers from ${min} to ${max}`);
      return value;
    };
    const list = (name: string, text: string, known: readonly string[]): string[] => {
      const names = text.split(',');
      for (const one of names)
        if (!known.includes(one)) throw new Error(`--${name}: choose of ${known.join(', ')}`);
      return names;
    };
    return {
      loss: (values.loss ?? '1,2,3').split(',').map((text) => number('loss', text, 0, 50)),
      directions: list('directions', values.directions ?? 'down,up', ['down', 'up']) as Direction[],
      runs: Math.floor(number('runs', values.runs ?? '4', 1, 1000)),
      bytes: Math.round(number('megabytes', values.megabytes ?? '20', 0.001, 10_000) * MEGABYTE),
      delayMs: number('delay', values.delay ?? '10', 0, 10_000),
      seed: Math.floor(number('seed', values.seed ?? '1', 0, 2 ** 30)),
      variants: list('variants', values.variants ?? 'plain', Object.keys(VARIANTS)),
      before: values.before ?? null,
    };
  } catch (error) {
    throw new ColoError('COLO_USAGE', (error as Error).message, { cause: error });
  }
}
