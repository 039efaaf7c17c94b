/**
 * `npm run sim -- --mutations [NAME ...]`: proves the rules. Each mutation (mutations.ts) must break a rule within its
 * number of seeds. A child process runs each of them, as many at a time as there are processors.
 */
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { MUTATIONS, type Mutation } from './mutations.ts';
import { patched } from './patch.ts';

const RUN = fileURLToPath(new URL('./run.ts', import.meta.url));

type Found = { seeds: number; rule: string; text: string };
export type Outcome = {
  name: string;
  about: string;
  seedsMax: number;
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

function line({ name, found, failure, seedsMax }: Outcome): string {
  if (found !== null)
    return `${name.padEnd(32)} ${String(found.seeds).padStart(5)} of ${seedsMax}  ${found.rule}: ${found.text.split('\n')[0].slice(0, 90)}`;
  return `${name.padEnd(32)} NOT FOUND in ${seedsMax} seeds${failure === null ? '' : `: ${failure}`}`;
}

export function prove(mutation: Mutation): Promise<Outcome> {
  const { name, about, seedsMax } = mutation;
  return new Promise((resolve) => {
    const { args, env } = patched(mutation, [RUN, String(seedsMax)]);
    const child = spawn(process.execPath, args, { env });
    let out = '';
    let err = '';
    child.stdout.on('data', (bytes) => {
      out += bytes;
    });
    child.stderr.on('data', (bytes) => {
      err += bytes;
    });
    child.on('close', (code) => {
      const last = out.trim().split('\n').at(-1) ?? '';
      if (code === 0)
        resolve({ name, about, seedsMax, found: JSON.parse(last) as Found | null, failure: null });
      else
        resolve({
          name,
          about,
          seedsMax,
          found: null,
          failure: err.trim().split('\n').at(-1) ?? `exit ${code}`,
        });
    });
  });
}
