/**
 * `npm run sim -- --mutations [NAME ...]`: proves the rules. Each mutation (mutations.ts) must break a rule within its
 * number of seeds, or fail its test. A child process runs each of them, as many at a time as there are processors.
 */
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ROOT } from '../../docs/tables.ts';
import type { Mutation } from './mutation.ts';
import { MUTATIONS } from './mutations.ts';
import { patched } from './patch.ts';

const RUN = fileURLToPath(new URL('./run.ts', import.meta.url));

type Found = { seeds: number; rule: string; text: string };
export type Outcome = {
  name: string;
  about: string;
  /** where it must be found: the number of seeds, or the test's file */
  within: string;
  found: Found | null;
  failure: string | null;
};

/** Returns the exit code: 0 if a rule found every mutation, 2 if a name is unknown. `json`: prints one object at the end. */
export async function proveCheckers(names: readonly string[], json: boolean): Promise<number> {
  for (const name of names) {
    if (MUTATIONS.some((one) => one.name === name)) continue;
    process.stderr.write(
      `there is no mutation "${name}"; choose of ${MUTATIONS.map((one) => one.name).join(', ')}\n`,
    );
    return 2;
  }
  const wanted = MUTATIONS.filter(({ name }) => names.length === 0 || names.includes(name));
  const waiting = [...wanted];
  const outcomes: Outcome[] = [];
  const say = (line: string): void => void (json ? process.stderr : process.stdout).write(`${line}\n`);
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
      const outcome = await prove(next);
      outcomes.push(outcome);
      say(line(outcome));
    }
  };
  await Promise.all(Array.from({ length: Math.min(availableParallelism(), wanted.length) }, work));
  const missed = outcomes.filter(({ found }) => found === null);
  say(`${outcomes.length - missed.length} of ${outcomes.length} mutations found`);
  if (json) process.stdout.write(`${JSON.stringify({ ok: missed.length === 0, mutations: outcomes })}\n`);
  return missed.length === 0 ? 0 : 1;
}

function line({ name, found, failure, within }: Outcome): string {
  if (found !== null)
    return `${name.padEnd(32)} ${String(found.seeds).padStart(5)} of ${within}  ${found.rule}: ${found.text.split('\n')[0].slice(0, 90)}`;
  return `${name.padEnd(32)} NOT FOUND in ${within}${failure === null ? '' : `: ${failure}`}`;
}

export async function prove(mutation: Mutation): Promise<Outcome> {
  const { name, about } = mutation;
  const within = 'test' in mutation ? mutation.test : `${mutation.seedsMax} seeds`;
  const outcome = { name, about, within };
  if ('test' in mutation) {
    const ran = await runPatched(mutation, ['--test-reporter=tap', join(ROOT, mutation.test)]);
    if (ran.code === 0) return { ...outcome, found: null, failure: null };
    const failed = /^not ok \d+ - (.*)$/m.exec(ran.out);
    // It did not get as far as a test.
    if (failed === null) return { ...outcome, found: null, failure: lastWords(ran) };
    return { ...outcome, found: { seeds: 1, rule: 'test', text: failed[1] }, failure: null };
  }
  const ran = await runPatched(mutation, [RUN, String(mutation.seedsMax)]);
  if (ran.code !== 0) return { ...outcome, found: null, failure: lastWords(ran) };
  return { ...outcome, found: JSON.parse(lastLine(ran.out)) as Found | null, failure: null };
}

function lastWords({ code, err }: Ran): string {
  return lastLine(err) || `exit ${code}`;
}

function lastLine(text: string): string {
  return text.trim().split('\n').at(-1) ?? '';
}

type Ran = { code: number | null; out: string; err: string };

function runPatched(mutation: Mutation, words: readonly string[]): Promise<Ran> {
  return new Promise((resolve) => {
    const { args, env } = patched(mutation, words);
    // Under a test runner Node would report in that one's own format.
    const child = spawn(process.execPath, args, { env: { ...env, NODE_TEST_CONTEXT: undefined } });
    const ran: Ran = { code: null, out: '', err: '' };
    child.stdout.on('data', (bytes) => {
      ran.out += bytes;
    });
    child.stderr.on('data', (bytes) => {
      ran.err += bytes;
    });
    child.on('close', (code) => resolve({ ...ran, code }));
  });
}
