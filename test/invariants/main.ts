/**
 * `npm run invariants [-- PATTERN ...]`: shows that the invariants fire. It runs each break whose message, file or test
 * contains one of the patterns in a child process, as many at a time as there are processors, and prints one line for
 * each. The exit code is 1 if one of them did not fire, 2 if no break was chosen.
 */
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ROOT } from '../docs/tables.ts';
import { patched } from '../sim/mutation/patch.ts';
import { BREAKS } from './all.ts';
import type { Break } from './break.ts';

/** A broken program may hang; no unbroken test file that a break names takes nearly as long. */
const CHILD_MS_MAX = 60_000;
const LINES_SHOWN = 12;
const REPORT = new URL('./report.ts', import.meta.url).href;
const WORLD = fileURLToPath(new URL('./world.ts', import.meta.url));

const patterns = process.argv.slice(2);
const chosen = BREAKS.filter(
  (one) => patterns.length === 0 || patterns.some((pattern) => isOf(one, pattern)),
);
if (chosen.length === 0) {
  process.stderr.write(`invariants: no break's message, file or test contains ${patterns.join(' or ')}\n`);
  process.exit(2);
}
const waiting = [...chosen];
let fired = 0;
await Promise.all(Array.from({ length: Math.min(availableParallelism(), chosen.length) }, work));
console.log(`${fired} of ${chosen.length} breaks fired their invariant`);
process.exitCode = fired === chosen.length ? 0 : 1;

async function work(): Promise<void> {
  for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
    const failure = await run(next);
    if (failure === null) fired++;
    console.log(`${failure === null ? 'fired    ' : 'NOT FIRED'} ${next.message.padEnd(64)} ${nameOf(next)}`);
    if (failure !== null) console.log(failure.replace(/^/gm, '          '));
  }
}

function isOf({ message, file, test }: Break, pattern: string): boolean {
  return [message, file, String(test)].some((text) => text.includes(pattern));
}

function nameOf({ file, test }: Break): string {
  return `${file}  ${typeof test === 'number' ? `world ${test}` : test}`;
}

function argumentsOf({ test, only }: Break): string[] {
  const report = ['--import', REPORT];
  if (typeof test === 'number') return [...report, WORLD, String(test)];
  const titles = only === undefined ? [] : [`--test-name-pattern=${only}`];
  return [...report, ...titles, join(ROOT, test)];
}

/** Returns null if the child reported the invariant and then failed; otherwise why not, and the end of what it printed. */
function run(one: Break): Promise<string | null> {
  return new Promise((resolve) => {
    const { args, env } = patched(one, argumentsOf(one));
    const child = spawn(process.execPath, args, { cwd: ROOT, env });
    const timer = setTimeout(() => child.kill('SIGKILL'), CHILD_MS_MAX);
    let printed = '';
    const onBytes = (bytes: Buffer) => {
      printed += bytes;
    };
    child.stdout.on('data', onBytes);
    child.stderr.on('data', onBytes);
    child.on('close', (code) => {
      clearTimeout(timer);
      const reports = printed.split('\n').filter((line) => line.startsWith('COLO_INVARIANT'));
      if (code !== 0 && reports.some((line) => line.includes(one.message))) return resolve(null);
      const lines = printed.trim().split('\n').slice(-LINES_SHOWN).join('\n');
      resolve(`${code === null ? `killed after ${CHILD_MS_MAX} ms` : `exit ${code}`}\n${lines}`);
    });
  });
}
