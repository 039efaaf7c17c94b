/**
 * The simulator's command: `npm run sim -- --seed 7`, `npm run sim -- --seeds 1..1000`, `npm run sim -- --mutations`.
 * docs/simulator.md explains it.
 */
import { closeSync, ftruncateSync, openSync, writeSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { TAP } from '../../src/datapath/tap.ts';
import { messageOf } from '../../src/error.ts';
import type { AppendFile } from '../../src/observe/append-file.ts';
import { PcapngWriter } from '../../src/observe/pcapng.ts';
import { minimise, runMany } from './many.ts';
import { proveCheckers } from './mutation/prove.ts';
import { runWorld, type WorldResult } from './world.ts';

const LEGEND = `
       ms who        what happens
          drawn      what the seed has drawn: network, hosts, guest, clients, faults
          node-X     an event of X's event log, or its process starts or ends
          qemu-X     a VM starts, dies, or reaches a phase of a checkpoint
          arbiter    the record, as it was just changed
          fault      a fault that strikes now
          world      the consequence for the service
          VIOLATION  a rule that was broken`;
const PCAP_BYTES_MAX = 1 << 30;
const WHOLE = /^\d{1,10}$/;
const RANGE = /^(\d{1,10})\.\.(\d{1,10})$/;

const { values, tasks } = readArguments();
if (tasks.mutations !== null) process.exitCode = await proveCheckers(tasks.mutations, values.json === true);
else if (tasks.seed !== null) await one(tasks.seed, tasks.without);
else await many(...tasks.seeds);

function readArguments() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: {
        seed: { type: 'string' },
        seeds: { type: 'string' },
        without: { type: 'string' },
        pcap: { type: 'string' },
        json: { type: 'boolean' },
        quiet: { type: 'boolean' },
        mutations: { type: 'boolean' },
      },
    });
    return { values, tasks: readTasks(values, positionals) };
  } catch (cause) {
    console.error(`sim: ${firstLine(messageOf(cause))}`);
    process.exit(2);
  }
}

function readTasks(
  given: { seed?: string; seeds?: string; without?: string; pcap?: string; mutations?: boolean },
  names: readonly string[],
) {
  const { seed, seeds = '1..100', without, pcap } = given;
  if (seed !== undefined && given.seeds !== undefined) throw new Error('--seed or --seeds, not both');
  if (seed === undefined && (without !== undefined || pcap !== undefined)) {
    throw new Error('--without and --pcap go with --seed');
  }
  if (seed !== undefined && !WHOLE.test(seed)) throw new Error(`--seed ${seed}: write a whole number`);
  const range = RANGE.exec(seeds);
  if (range === null || Number(range[1]) > Number(range[2])) {
    throw new Error(`--seeds ${seeds}: write it as FROM..TO`);
  }
  const places = without?.split(',') ?? [];
  if (!places.every((place) => WHOLE.test(place))) {
    throw new Error(`--without ${without}: write the numbers of faults with commas between`);
  }
  if (names.length > 0 && given.mutations !== true)
    throw new Error(`${names[0]}: names belong to --mutations`);
  return {
    mutations: given.mutations === true ? names : null,
    seed: seed === undefined ? null : Number(seed),
    seeds: [Number(range[1]), Number(range[2])] as const,
    without: new Set(places.map(Number)),
  };
}

async function one(seed: number, without: ReadonlySet<number>): Promise<void> {
  const quiet = values.json === true || values.quiet === true;
  if (!quiet) console.log(LEGEND);
  const pcap =
    values.pcap === undefined
      ? null
      : new PcapngWriter({ path: values.pcap, bytesMax: PCAP_BYTES_MAX, onEnd: () => {}, open: openFile });
  const result = await runWorld(seed, {
    without,
    ...(quiet ? {} : { trace: (line) => console.log(line) }),
    ...(pcap === null
      ? {}
      : {
          onFrame: (atMs, port, frame) =>
            pcap.write(
              port.startsWith('uplink') ? TAP.released : TAP.uplinkIn,
              atMs * 1000,
              frame,
              0,
              frame.length,
              port,
            ),
        }),
  });
  await pcap?.end();
  if (values.json === true) console.log(JSON.stringify(result));
  else report(result);
  process.exitCode = result.violations.length === 0 ? 0 : 1;
}

/** Writes synchronously: a world runs in one turn of the event loop, and no buffer would hold all of its frames. */
function openFile(path: string): AppendFile {
  const fd = openSync(path, 'wx', 0o600);
  return {
    append(bytes, length, done) {
      for (let at = 0; at < length; ) at += writeSync(fd, bytes, at, length - at);
      done(null, length);
    },
    truncate(length, done) {
      ftruncateSync(fd, length);
      done(null);
    },
    close(done) {
      closeSync(fd);
      done();
    },
  };
}

async function many(from: number, to: number): Promise<void> {
  const stop = new AbortController();
  const interrupted = stop.signal;
  process.once('SIGINT', () => stop.abort());
  const startMs = performance.now();
  const bad: WorldResult[] = [];
  const totals: Record<string, number> = {};
  let done = 0;
  let virtualMs = 0;
  let shownMs = startMs;
  const onResult = (result: WorldResult) => {
    if (interrupted.aborted) return;
    done++;
    virtualMs += result.virtualMs;
    for (const [name, count] of Object.entries(result.stats)) totals[name] = (totals[name] ?? 0) + count;
    if (result.violations.length > 0) {
      bad.push(result);
      console.error(
        `seed ${result.seed}: ${result.violations[0].rule}: ${firstLine(result.violations[0].text)}`,
      );
    }
    if (performance.now() - shownMs > 5000) {
      shownMs = performance.now();
      const perMinute = (done / (shownMs - startMs)) * 60_000;
      console.error(`${done} of ${to - from + 1} worlds, ${perMinute.toFixed(0)} a minute`);
    }
  };
  await runMany(from, to, onResult, interrupted);
  const perMinute = (done / (performance.now() - startMs)) * 60_000;
  const byRule: Record<string, number> = {};
  for (const { violations } of bad) byRule[violations[0].rule] = (byRule[violations[0].rule] ?? 0) + 1;
  if (values.json === true) {
    const seeds = bad.map(({ seed, violations }) => ({ seed, ...violations[0] }));
    console.log(JSON.stringify({ worlds: done, bad: seeds, byRule, virtualMs, perMinute, totals }));
  } else {
    console.log(
      `${done} worlds, ${(virtualMs / 3_600_000).toFixed(1)} hours, ${perMinute.toFixed(0)} a minute`,
    );
    if (bad.length > 0) {
      console.log(`${bad.length} broke a rule: ${JSON.stringify(byRule)}`);
      const [first] = bad.sort((a, b) => a.seed - b.seed);
      const { without, result } = interrupted.aborted
        ? { without: new Set<number>(), result: first }
        : await minimise(first);
      report(result);
      const left = without.size === 0 ? '' : ` --without ${[...without].sort((a, b) => a - b).join(',')}`;
      console.log(`again: npm run sim -- --seed ${first.seed}${left}`);
    }
  }
  process.exitCode = bad.length > 0 ? 1 : interrupted.aborted ? 130 : 0;
}

function report({ seed, violations, faults, virtualMs, stats, left }: WorldResult): void {
  console.log(
    `seed ${seed}: ${violations.length === 0 ? 'all rules held' : 'RULES BROKEN'} in ${virtualMs} ms`,
  );
  for (const { atMs, rule, text } of violations) console.log(`  ${atMs.toFixed(3)} ms ${rule}: ${text}`);
  console.log('  faults:');
  for (const i of left) console.log(`    ${i}. ${faults[i]}`);
  console.log(`  ${JSON.stringify(stats)}`);
}

function firstLine(text: string): string {
  return text.split('\n')[0];
}
