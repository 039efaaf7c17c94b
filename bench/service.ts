/**
 * `npm run bench -- service`: real services under load, in a guest that is unprotected, in a pair of QEMU's own COLO, in a
 * pair of another build, and in a pair of this one.
 *
 * The columns take turns: each round starts them one after the other, has each work through all rows, and ends them, every
 * second round in reverse, so that a drift of the machine meets all alike. Only one column runs at a time: an idle pair takes
 * an eighth of a processor without KVM, so idle ones would slow down the one that is measured. Each figure is the median of
 * the rounds; on a busy machine, many short rounds with few rows make turns short.
 *
 * A row at half load (NAME-half) gets half of the rate at which the unprotected guest worked at full load in the same round;
 * the unprotected column therefore always goes first. A request's latency counts from when it was due.
 */
import { parseArgs } from 'node:util';
import { installServices } from '../lab/services/image.ts';
import { ColoError, messageOf } from '../src/error.ts';
import { type Bench, type BenchResult, spread } from './bench.ts';
import { claimsOf, type RowFigures, type Rows } from './service/claims.ts';
import { checkCheckout, startSide } from './service/columns.ts';
import { Counted } from './service/counted.ts';
import { Load } from './service/load.ts';
import { rowLines, rowNames, wholeNumber } from './service/options.ts';
import { processorMs } from './service/processor.ts';
import { machineFor, untilReplies } from './service/ready.ts';
import { type Around, clientsOf, HALF, ROWS, rowOf } from './service/rows.ts';
import { COLUMNS, type Column, type Counts, type Side } from './service/side.ts';
import { type Cell, lines, median, TABLE_HEAD } from './service/table.ts';

const USAGE = `usage: npm run bench -- service [options]

Requests to nginx, OpenSSH, Redis, PostgreSQL and dnsmasq in one guest of 512 MB. The first run fetches 55 MB. The default
takes about 35 minutes, and needs two processors to itself.

  --rows R,R,...       (default all)
${rowLines(ROWS)}
                       NAME-half: NAME at half of the rate that the unprotected guest has reached; after NAME
  --columns C,C,...    of ${COLUMNS.join(', ')} (default all; before only with --before)
  --before DIR         a checkout that is set up, for the column "before"
  --rounds N           of which each figure is the median (default 3)
  --seconds N          for each cell of a round (default 5)
  --vcpus N            of the guest, 1 or 2 (default 1)

div/1000, cp/1000: divergences and checkpoints per 1000 requests. CPU: processor time per request.
A claim is checked if its row and its columns are run; those about single rows against the column "before" are for a build
without input in portions.
With --json the last line on standard output is {"rows":{ROW:{COLUMN:{"rate":n,"p50":n,"p99":n,"div1000":n,"cp1000":n}}}}.
Exit codes: 0 every cell was measured, no request failed and every claim held, 1 not, 2 wrong usage.
`;

/** Before each cell: TCG has not translated yet what the guest's programs do now, nor V8 compiled what clients and nodes do. */
const WARM_UP_MS = 3000;
/**
 * Before the first cell of new programs. A pair runs for weeks, and V8 compiles what a node does most in its first half minute:
 * with one Redis client a node needs 0.3 ms of processor time per request in the first seconds, and 0.2 ms after that.
 */
const FIRST_WARM_UP_MS = 25_000;

export type Options = {
  readonly rows: readonly string[];
  readonly columns: readonly Column[];
  readonly before: string | null;
  readonly rounds: number;
  readonly ms: number;
  readonly vcpus: number;
};

type Failure = { readonly row: string; readonly column: Column; readonly why: string };

/** `cells`: of each round, by row and column (`key`). */
type Measured = {
  readonly cells: ReadonlyMap<string, readonly Cell[]>;
  readonly failures: readonly Failure[];
};

export const serviceBench: Bench = async (args, print) => {
  const options = readOptions(args);
  if (options === null) {
    process.stdout.write(USAGE);
    return null;
  }
  if (options.before !== null) checkCheckout(options.before);
  const run = new Run(options);
  for (let round = 0; round < options.rounds; round++)
    for (const column of inOrder(options.columns, round)) await run.column(column);
  return report(options, run, print);
};

/** Returns the columns in the order of a round; the unprotected one gives the rate for half load, so it is first. */
export function inOrder(columns: readonly Column[], round: number): Column[] {
  const others = columns.filter((column) => column !== 'unprotected');
  const first = columns.filter((column) => column === 'unprotected');
  return [...first, ...(round % 2 === 0 ? others : others.toReversed())];
}

class Run implements Measured {
  readonly cells = new Map<string, Cell[]>();
  readonly failures: Failure[] = [];
  private readonly options: Options;
  /** requests per second of the unprotected guest at full load, in the latest round */
  private readonly unprotected = new Map<string, number>();
  private counted = new Counted();
  /** before the next cell */
  private warmUpMs = FIRST_WARM_UP_MS;

  constructor(options: Options) {
    this.options = options;
  }

  /** Works through all rows; after a row that failed, with new programs. */
  async column(column: Column): Promise<void> {
    let side: Side | null = null;
    try {
      for (const name of this.options.rows) {
        try {
          side ??= await this.start(column);
        } catch (error) {
          this.fail('all rows', column, error);
          return;
        }
        try {
          const cell = await this.cell(name, column, side);
          this.cells.set(key(name, column), [...(this.cells.get(key(name, column)) ?? []), cell]);
        } catch (error) {
          this.fail(name, column, error);
          await side.stop();
          side = null;
        }
      }
    } finally {
      await side?.stop();
    }
  }

  private fail(row: string, column: Column, error: unknown): void {
    this.failures.push({ row, column, why: messageOf(error) });
    process.stderr.write(`  ${row}, ${column}: ${messageOf(error)}\n`);
  }

  private start(column: Column): Promise<Side> {
    const { rows, vcpus, before } = this.options;
    this.counted = new Counted();
    this.warmUpMs = FIRST_WARM_UP_MS;
    return startSide(column, machineFor(rows, vcpus), before, async ({ target }) => {
      await untilReplies(rows, target, await this.around());
    });
  }

  private async around(): Promise<Around> {
    const { ssh } = await installServices();
    return { ssh, counted: this.counted };
  }

  private async cell(name: string, column: Column, side: Side): Promise<Cell> {
    const { ms } = this.options;
    const perSecond = this.rateFor(name);
    const around = await this.around();
    const row = rowOf(name);
    const loads: Load[] = [];
    try {
      await side.useRules(row.rules ?? []);
      for (const { service, clients, open } of clientsOf(row))
        loads.push(await Load.start(clients, (index) => open(side.target(service), index, around)));
      const [load, other] = loads;
      await Promise.all([load.run(this.warmUpMs, perSecond), other?.run(this.warmUpMs)]);
      this.warmUpMs = WARM_UP_MS;
      const before = await side.counts();
      const usedBefore = used(before);
      const [outcome, noise] = await Promise.all([load.run(ms, perSecond), other?.run(ms)]);
      const after = await side.counts();
      const why = outcome.firstError ?? noise?.firstError ?? null;
      if (outcome.requests === 0) throw new ColoError('COLO_BENCH_PEER', `no request ended: ${why}`);
      if (why !== null) this.fail(name, column, why);
      if (column === 'unprotected' && perSecond === null) this.unprotected.set(name, outcome.perSecond);
      const perRequest = Object.entries(used(after)).map(([process, usedMs]) => {
        return [process, (usedMs - (usedBefore[process] ?? 0)) / outcome.requests] as const;
      });
      const cell: Cell = {
        rate: outcome.perSecond,
        p50: spread(outcome.latenciesMs).p50,
        p99: spread(outcome.latenciesMs).p99,
        requests: outcome.requests,
        errors: outcome.errors,
        divergences: after.divergences - before.divergences,
        checkpoints: after.checkpoints.slice(before.checkpoints.length),
        processorMs: Object.fromEntries(perRequest),
      };
      progress(name, column, cell);
      return cell;
    } finally {
      for (const load of loads) load.close();
    }
  }

  /** Null for full load. */
  private rateFor(name: string): number | null {
    if (!HALF.test(name)) return null;
    const rate = this.unprotected.get(name.replace(HALF, ''));
    if (rate === undefined)
      throw new ColoError('COLO_BENCH_PEER', 'the unprotected guest has no rate at full load in this run');
    return rate / 2;
  }
}

/** Always on standard error: a line per cell. */
function progress(name: string, column: Column, { rate, p50, checkpoints }: Cell): void {
  const figures = `${rate.toFixed(1)}/s, p50 ${p50.toFixed(1)} ms, ${checkpoints.length} checkpoints`;
  process.stderr.write(`  ${name}, ${column}: ${figures}\n`);
}

function key(row: string, column: Column): string {
  return `${row} ${column}`;
}

function used({ processes }: Counts): Record<string, number> {
  return Object.fromEntries(Object.entries(processes).map(([name, pid]) => [name, processorMs(pid)]));
}

/** Prints the table and the claims, and returns them. */
export function report(options: Options, run: Measured, print: (line: string) => void): BenchResult {
  const rows: Record<string, Rows[string]> = {};
  const details: Record<string, Record<string, unknown>> = {};
  print(
    `guest with ${options.vcpus} vCPU; medians of ${options.rounds} rounds of ${options.ms / 1000} s; times in ms`,
  );
  print(TABLE_HEAD);
  for (const name of options.rows) {
    const figures: Partial<Record<Column, RowFigures>> = {};
    rows[name] = figures;
    details[name] = {};
    const cells = new Map<Column, readonly Cell[]>();
    for (const column of options.columns) {
      const measured = run.cells.get(key(name, column));
      if (measured === undefined) continue;
      cells.set(column, measured);
      const { rate, p50, p99, div1000, cp1000, ...more } = median(measured);
      figures[column] = { rate, p50, p99, div1000, cp1000 };
      details[name][column] = more;
    }
    for (const line of lines(name, cells)) print(line);
  }
  for (const { row, column, why } of run.failures) print(`FAILED: ${row}, ${column}: ${why}`);
  const { columns, rounds, vcpus } = options;
  const claims = claimsOf(rows, vcpus);
  for (const { text, ratio, holds } of claims)
    print(`${text}: ${ratio.toFixed(3)}, ${holds ? 'holds' : 'DOES NOT HOLD'}`);
  const ok = run.failures.length === 0 && claims.every(({ holds }) => holds);
  return { ok, lastLine: { rows }, rows, claims, details, failures: run.failures, columns, rounds, vcpus };
}

/** Returns null if only help is wanted. Throws COLO_USAGE. */
export function readOptions(args: string[]): Options | null {
  try {
    const string = { type: 'string' } as const;
    const { values } = parseArgs({
      args,
      options: {
        ...{ rows: string, columns: string, before: string, rounds: string, seconds: string, vcpus: string },
        help: { type: 'boolean', short: 'h' },
      },
    });
    if (values.help === true) return null;
    const before = values.before ?? null;
    const rows = rowNames(values.rows, ROWS, (name) => name.replace(HALF, ''));
    const asked =
      values.columns?.split(',') ?? COLUMNS.filter((name) => name !== 'before' || before !== null);
    for (const name of asked)
      if (!(COLUMNS as readonly string[]).includes(name))
        throw new Error(`--columns: there is no column "${name}"; choose of ${COLUMNS.join(', ')}`);
    const columns = COLUMNS.filter((name) => asked.includes(name));
    if (columns.includes('before') && before === null)
      throw new Error('the column "before" needs --before CHECKOUT');
    for (const [index, name] of rows.entries()) {
      const full = name.replace(HALF, '');
      if (full !== name && !(columns.includes('unprotected') && rows.slice(0, index).includes(full)))
        throw new Error(`${name} needs the column "unprotected", and the row ${full} before it`);
    }
    return {
      ...{ rows, columns, before },
      rounds: wholeNumber('rounds', values.rounds ?? '3', 100),
      ms: wholeNumber('seconds', values.seconds ?? '5', 3600) * 1000,
      vcpus: wholeNumber('vcpus', values.vcpus ?? '1', 2),
    };
  } catch (error) {
    throw new ColoError('COLO_USAGE', (error as Error).message, { cause: error });
  }
}
