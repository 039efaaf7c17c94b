/**
 * `npm test`: unit tests first, then the end-to-end tests with real QEMU, one file at a time because two
 * guests fill a small machine. `npm test -- PATTERN ...` runs only the files whose path contains one of the patterns.
 * Each kind has its summary, and the last lines count the tests of both.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const patterns = process.argv.slice(2);
const wanted = (file: string) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern));
const filesOf = (glob: string) => globSync(glob, { cwd: root }).filter(wanted).sort();

/** Many unit tests wait for timers; some measure time, and each of them has a processor. */
const UNIT_FILES_AT_ONCE = Math.min(2, availableParallelism());

const suites = [
  { what: 'unit tests', files: filesOf('test/**/*.test.ts'), atOnce: UNIT_FILES_AT_ONCE },
  { what: 'end-to-end tests', files: filesOf('test/**/*.e2e.ts'), atOnce: 1 },
].filter(({ files }) => files.length > 0);
if (suites.length === 0) {
  process.stderr.write(`COLO_USAGE: no test file's path contains ${patterns.join(' or ')}\n`);
  process.exit(2);
}

let child: ChildProcess | null = null;
let interrupted = false;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => {
    interrupted = true;
    child?.kill(signal);
  });

/** Resolves with the status of a suite, whose counts are in the file `counts` then. */
function run({ files, atOnce }: (typeof suites)[number], counts: string): Promise<number> {
  const reporters = { spec: 'stdout', [join(root, 'scripts/counts.ts')]: counts };
  const runner = [
    '--test',
    `--test-concurrency=${atOnce}`,
    ...Object.entries(reporters).flatMap(([reporter, destination]) => [
      `--test-reporter=${reporter}`,
      `--test-reporter-destination=${destination}`,
    ]),
  ];
  const started = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', ...runner, ...files], {
    cwd: root,
    stdio: 'inherit',
  });
  child = started;
  return new Promise((resolve) => started.once('exit', (code) => resolve(code ?? 1)));
}

/** The runner's names of its counts, and those that it prints. */
const COUNTS = {
  tests: 'tests',
  suites: 'suites',
  passed: 'pass',
  failed: 'fail',
  cancelled: 'cancelled',
  skipped: 'skipped',
  todo: 'todo',
} as const;
type Count = keyof typeof COUNTS;
const names = Object.keys(COUNTS) as Count[];

const total: Record<Count, number> = {
  tests: 0,
  suites: 0,
  passed: 0,
  failed: 0,
  cancelled: 0,
  skipped: 0,
  todo: 0,
};
const failed: string[] = [];
const folder = mkdtempSync(join(tmpdir(), 'colo-counts-'));
try {
  for (const suite of suites) {
    const file = join(folder, 'counts');
    writeFileSync(file, '');
    const status = await run(suite, file);
    if (status !== 0) failed.push(suite.what);
    if (interrupted) break;
    // Empty if the runner itself has failed.
    const line = readFileSync(file, 'utf8');
    if (line === '') continue;
    const counts = JSON.parse(line) as Record<Count, number>;
    for (const name of names) total[name] += counts[name];
  }
} finally {
  rmSync(folder, { recursive: true });
}
if (failed.length > 0) {
  process.exitCode = 1;
  process.stderr.write(`FAILED: ${failed.join(' and ')}; each has a summary above\n`);
}
if (suites.length > 1) for (const name of names) process.stdout.write(`ℹ ${COUNTS[name]} ${total[name]}\n`);
