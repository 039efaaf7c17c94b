/**
 * The simulator's command: `npm run sim -- --seed 7`, `npm run sim -- --seeds 1..1000`, `npm run sim -- --mutations`.
 * docs/simulator.md explains it.
 */
import { parseArgs } from 'node:util';
import { TAP } from '../../src/datapath/tap.ts';
import { PcapngWriter } from '../../src/observe/pcapng.ts';
import { minimise, runMany } from './many.ts';
import { proveCheckers } from './mutation/prove.ts';
import { runWorld, type WorldResult } from './world.ts';

const LEGEND = `
       ms who        what happens
          node-X     an event of X's event log, or its process starts or ends
          qemu-X     a VM starts, dies, or reaches a phase of a checkpoint
          arbiter    the record, as it was just changed
          fault      what goes wrong from now on
          world      what it means for the service
          VIOLATION  a rule that was broken`;
const PCAP_BYTES_MAX = 1 << 30;

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

if (values.mutations === true) process.exitCode = await proveCheckers(positionals, values.json === true);
else if (positionals.length > 0) throw new Error(`${positionals[0]}: names belong to --mutations`);
else if (values.seed !== undefined) await one(Number(values.seed));
else await many(values.seeds ?? '1..100');

async function one(seed: number): Promise<void> {
  const without = new Set((values.without ?? '').split(',').filter(Boolean).map(Number));
  const quiet = values.json === true || values.quiet === true;
  if (!quiet) console.log(LEGEND);
  const pcap =
    values.pcap === undefined
      ? null
      : new PcapngWriter({ path: values.pcap, bytesMax: PCAP_BYTES_MAX, onEnd: () => {} });
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

async function many(range: string): Promise<void> {
  const [from, to] = range.split('..').map(Number);
  if (!(from <= to)) throw new Error(`--seeds ${range}: write it as FROM..TO`);
  const startMs = performance.now();
  const bad: WorldResult[] = [];
  const totals: Record<string, number> = {};
  let done = 0;
  let virtualMs = 0;
  let shownMs = startMs;
  await runMany(from, to, (result) => {
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
  });
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
      const { without, result } = await minimise(first);
      report(result);
      const left = without.size === 0 ? '' : ` --without ${[...without].sort((a, b) => a - b).join(',')}`;
      console.log(`again: npm run sim -- --seed ${first.seed}${left}`);
    }
  }
  process.exitCode = bad.length === 0 ? 0 : 1;
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
