/** `npm run bench -- NAME`: measures what we claim beside what QEMU does, in one run. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ColoError } from '../src/error.ts';
import type { Bench } from './bench.ts';

const RESULTS = fileURLToPath(new URL('./results/', import.meta.url));

/** Each bench is loaded when it runs: none needs another one's imports. */
const BENCHES: Readonly<Record<string, { readonly about: string; readonly load: () => Promise<Bench> }>> = {
  checkpoint: {
    about: "pause of a checkpoint: our relay, stock QEMU's migration, and two QEMUs joined directly",
    load: async () => (await import('./checkpoint.ts')).checkpointBench,
  },
  compare: {
    about: "matched output per second: colo compare against QEMU's colo-compare and a bare relay",
    load: async () => (await import('./compare.ts')).compareBench,
  },
  diff: {
    about: 'rate and peak of memory of colo diff on two recordings of 1 GB',
    load: async () => (await import('./diff.ts')).diffBench,
  },
  failover: {
    about:
      'real services under load, and the machine of the primary dies: what clients see, and what is lost',
    load: async () => (await import('./failover.ts')).failoverBench,
  },
  hops: {
    about: 'one round trip through a pair, hop by hop, and what each process does for it',
    load: async () => (await import('./hops.ts')).hopsBench,
  },
  hosts: {
    about: "two hosts, and all of the primary's dies at once: for how long TCP clients wait, and on what",
    load: async () => (await import('./hosts.ts')).hostsBench,
  },
  link: {
    about:
      'frames and checkpoints over a link inside TLS and over a plain one; and what its delay costs a service',
    load: async () => (await import('./link.ts')).linkBench,
  },
  loss: {
    about: 'transfers over a lossy network between real Linux stacks: through colo, and without it',
    load: async () => (await import('./loss.ts')).lossBench,
  },
  service: {
    about: "real services under load: unprotected, in stock QEMU's COLO, and through colo",
    load: async () => (await import('./service.ts')).serviceBench,
  },
};

function usage(): string {
  const names = Object.entries(BENCHES).map(([name, { about }]) => `  ${name.padEnd(12)} ${about}`);
  return `usage: npm run bench -- NAME [--json] [options of the bench; NAME --help lists them]

${names.join('\n')}

Prints a table and writes bench/results/NAME.json. With --json the table goes to standard error and the last line
on standard output is that JSON, or what the bench says of it. Exit codes: 0 the claim held, 1 it did not or the bench failed, 2 wrong usage.
`;
}

async function main(args: string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === '--help' || name === '-h') {
    process.stdout.write(usage());
    return 0;
  }
  if (!Object.hasOwn(BENCHES, name)) {
    process.stderr.write(`COLO_USAGE: there is no bench "${name}"\n${usage()}`);
    return 2;
  }
  const json = rest.includes('--json');
  const out = json ? process.stderr : process.stdout;
  const bench = await BENCHES[name].load();
  const result = await bench(
    rest.filter((arg) => arg !== '--json'),
    (line) => out.write(`${line}\n`),
  );
  if (result === null) return 0;
  const { lastLine, ...figures } = result;
  const text = JSON.stringify({ bench: name, ...figures });
  mkdirSync(RESULTS, { recursive: true });
  writeFileSync(`${RESULTS}${name}.json`, `${text}\n`);
  if (json) process.stdout.write(`${lastLine === undefined ? text : JSON.stringify(lastLine)}\n`);
  return result.ok ? 0 : 1;
}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof ColoError)) throw error;
  process.stderr.write(`${error.code}: ${error.message}\n`);
  process.exitCode = error.code === 'COLO_USAGE' ? 2 : 1;
}
