/**
 * `npm test`: unit tests first, then the end-to-end tests with real QEMU, one file at a time because two
 * guests fill a small machine. `npm test -- PATTERN ...` runs only the files whose path contains one of the patterns.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname } from 'node:path';
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

/** Resolves with the status of a suite. */
function run({ files, atOnce }: (typeof suites)[number]): Promise<number> {
  const runner = ['--test', `--test-concurrency=${atOnce}`, '--test-reporter=spec', ...files];
  const started = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', ...runner], {
    cwd: root,
    stdio: 'inherit',
  });
  child = started;
  return new Promise((resolve) => started.once('exit', (code) => resolve(code ?? 1)));
}

const failed: string[] = [];
for (const suite of suites) {
  const status = await run(suite);
  if (status !== 0) failed.push(suite.what);
  if (interrupted) break;
}
if (failed.length > 0) {
  process.exitCode = 1;
  process.stderr.write(`FAILED: ${failed.join(' and ')}; each has a summary above\n`);
}
