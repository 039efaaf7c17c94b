/**
 * `npm run bench -- failover`: the clients of each row of the service bench, and some with sessions, work at full load, and
 * the machine of the primary dies in the middle. One pair works through all rows: the node that died joins again, and in the next row the other
 * one dies.
 */
import { parseArgs } from 'node:util';
import { ColoError, messageOf } from '../src/error.ts';
import type { Bench, BenchResult } from './bench.ts';
import { MortalPair } from './failover/pair.ts';
import { failOver, type RowFigures, type RowOutcome } from './failover/row.ts';
import { rowLines, rowNames, wholeNumber } from './service/options.ts';
import { clientsOf, ROWS, rowOf, SESSION_ROWS } from './service/rows.ts';

const FAILOVER_ROWS = { ...ROWS, ...SESSION_ROWS };

const USAGE = `usage: npm run bench -- failover [options]

Clients of nginx, OpenSSH, Redis, PostgreSQL and dnsmasq in one guest of 512 MB work at full load; node and VM of the primary
are killed at once; the clients work on, over the same connections. Then they check what was acknowledged, the node that
died joins again, they check once more, and the next row begins. The first run fetches 55 MB. The default takes about
5 minutes, and needs two processors to itself.

  --rows R,R,...       (default all)
${rowLines(FAILOVER_ROWS)}
  --seconds N          of work before the death, and as long after it (default 5)

before, under way, after: requests that were answered before the death, were sent but not answered, were sent later.
p50: the median latency before the death; gap: the longest time between two replies to one client; detect: until the lease of
the dead primary was over; promote: from there until the promotion was complete; rejoin: until the pair was protected again; all in ms.
failed: requests; broken: connections; lost: checks of which something acknowledged was not there, or was there twice.
With --json the last line on standard output is {"rows":{ROW:{...}}}, each row with the figures clients, before, underWay, after, p50,
gapMs, detectMs, promoteMs, rejoinMs, failed, broken and lost; a row that did not end is left out.
Exit codes: 0 every row ended, with work before and after, and nothing failed, broke or was lost; 1 not; 2 wrong usage.
`;

export type Options = { readonly rows: readonly string[]; readonly ms: number };

/** By row; an error is why the row did not end. */
export type Outcomes = ReadonlyMap<string, RowOutcome | Error>;

export const failoverBench: Bench = async (args, print) => {
  const options = readOptions(args);
  if (options === null) {
    process.stdout.write(USAGE);
    return null;
  }
  return report(await failOverAll(options), print);
};

/** After a row in which anything went wrong, the next one begins with a new pair. */
async function failOverAll({ rows, ms }: Options): Promise<Outcomes> {
  const outcomes = new Map<string, RowOutcome | Error>();
  let pair: MortalPair | null = null;
  try {
    for (const name of rows) {
      let outcome: RowOutcome | Error;
      try {
        pair ??= await MortalPair.start(rows);
        outcome = await failOver(name, pair, ms);
      } catch (error) {
        outcome = error instanceof Error ? error : new Error(messageOf(error));
      }
      outcomes.set(name, outcome);
      for (const line of troubles(name, outcome)) process.stderr.write(`  ${line}\n`);
      if (!(outcome instanceof Error)) process.stderr.write(`  ${tableLine(name, outcome.figures)}\n`);
      if (!isRight(outcome)) {
        await pair?.stop();
        pair = null;
      }
    }
  } finally {
    await pair?.stop();
  }
  return outcomes;
}

/** Prints the table, what was checked and what went wrong. */
export function report(outcomes: Outcomes, print: (line: string) => void): BenchResult {
  print(TABLE_HEAD);
  const rows: Record<string, RowFigures> = {};
  const failures: string[] = [];
  for (const [name, outcome] of outcomes) {
    failures.push(...troubles(name, outcome));
    if (outcome instanceof Error) continue;
    rows[name] = outcome.figures;
    print(tableLine(name, outcome.figures));
  }
  for (const name of Object.keys(rows)) {
    const checks = clientsOf(rowOf(name)).map((clients) => clients.checks);
    print(`checked of ${name}: ${checks.join('; beside it: ')}`);
  }
  for (const failure of failures) print(`FAILED: ${failure}`);
  const ok = outcomes.size > 0 && [...outcomes.values()].every(isRight);
  return { ok, lastLine: { rows }, rows, failures };
}

function isRight(outcome: RowOutcome | Error): boolean {
  if (outcome instanceof Error) return false;
  const { before, after, failed, broken, lost } = outcome.figures;
  return before > 0 && after > 0 && failed === 0 && broken === 0 && lost === 0;
}

/** What is printed of one row's failures; the first ones are enough to see a pattern. */
const TROUBLES_MAX = 5;

function troubles(name: string, outcome: RowOutcome | Error): string[] {
  if (outcome instanceof Error) return [`${name}: ${outcome.message}`];
  const { figures, wrong } = outcome;
  const lines = wrong.slice(0, TROUBLES_MAX).map((why) => `${name}: ${why}`);
  if (wrong.length > TROUBLES_MAX) lines.push(`${name}: and ${wrong.length - TROUBLES_MAX} more`);
  for (const when of ['before', 'after'] as const)
    if (figures[when] === 0) lines.push(`${name}: no request ${when} the failover`);
  return lines;
}

const COLUMNS: readonly (readonly [string, (figures: RowFigures) => string])[] = [
  ['clients', ({ clients }) => String(clients)],
  ['before', ({ before }) => String(before)],
  ['under way', ({ underWay }) => String(underWay)],
  ['after', ({ after }) => String(after)],
  ['p50', ({ p50 }) => p50?.toFixed(1) ?? ''],
  ['gap', ({ gapMs }) => gapMs.toFixed(0)],
  ['detect', ({ detectMs }) => detectMs.toFixed(0)],
  ['promote', ({ promoteMs }) => promoteMs.toFixed(0)],
  ['rejoin', ({ rejoinMs }) => rejoinMs.toFixed(0)],
  ['failed', ({ failed }) => String(failed)],
  ['broken', ({ broken }) => String(broken)],
  ['lost', ({ lost }) => String(lost)],
];

const TABLE_HEAD = `${''.padEnd(20)}${COLUMNS.map(([head]) => head.padStart(10)).join('')}`;

function tableLine(name: string, figures: RowFigures): string {
  return `${name.padEnd(20)}${COLUMNS.map(([, text]) => text(figures).padStart(10)).join('')}`;
}

/** Returns null if only help is wanted. Throws COLO_USAGE. */
export function readOptions(args: string[]): Options | null {
  try {
    const { values } = parseArgs({
      args,
      options: {
        rows: { type: 'string' },
        seconds: { type: 'string' },
        help: { type: 'boolean', short: 'h' },
      },
    });
    if (values.help === true) return null;
    return {
      rows: rowNames(values.rows, FAILOVER_ROWS),
      ms: wholeNumber('seconds', values.seconds ?? '5', 3600) * 1000,
    };
  } catch (error) {
    throw new ColoError('COLO_USAGE', messageOf(error), { cause: error });
  }
}
