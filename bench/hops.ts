/**
 * `npm run bench -- hops`: one round trip of one Redis client through a pair, hop by hop, and what each process does for it.
 *
 * Two runs of the same pair: one without any instrument, of which the counts are (/proc, and the nodes' own count of the turns of
 * their event loops); one with captures in both nodes, of which the times are. Both QEMUs trace in both.
 */
import { readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import type { Target } from '../lab/clients/net.ts';
import { startNetwork } from '../lab/network.ts';
import type { LabNode } from '../lab/pair.ts';
import { removeWorkFolder, workFolder } from '../lab/process.ts';
import { installQemu } from '../lab/qemu.ts';
import { installServices, SERVICES, type ServiceName } from '../lab/services/image.ts';
import { ColoError, messageOf } from '../src/error.ts';
import { type Bench, spread } from './bench.ts';
import { type Counts, countsOf } from './hops/counts.ts';
import { HOPS, hopsOf, momentsOfNode, momentsOfVm, NEXT, TRACE_EVENTS } from './hops/moments.ts';
import { guestArguments, protect } from './service/columns.ts';
import { Counted } from './service/counted.ts';
import { Load } from './service/load.ts';
import { wholeNumber } from './service/options.ts';
import { machineFor, untilReplies } from './service/ready.ts';
import { type Around, clientsOf, rowOf } from './service/rows.ts';

const USAGE = `usage: npm run bench -- hops [options]

One Redis client (the row redis-incr of the bench "service") through a pair: how long each hop of a request and its reply
takes, and what each process does for a request. About a minute; it needs two processors to itself.

  --seconds N          for each of two runs (default 5)

Times in microseconds. Sleeps: of all threads; each needs a wake-up. Reads, writes, bytes: of system calls that Linux counts
(read, write and their kind; QEMU uses others). Turns: of a node's event loop.
`;

const ROW = 'redis-incr';
/** As in the bench "service": V8 compiles most of a node's code in its first half minute. */
const WARM_UP_MS = 25_000;
const CAPTURE_BYTES_MAX = 1 << 28;
const WRITTEN_MS_MAX = 5000;
const POLL_MS = 10;

type Process = 'node a' | 'node b' | 'VM a' | 'VM b';

export const hopsBench: Bench = async (args, print) => {
  const ms = readSeconds(args);
  if (ms === null) {
    process.stdout.write(USAGE);
    return null;
  }
  const { hops, counts } = await measure(ms);
  print(`one ${ROW} client; median of ${hops.get(NEXT)?.length ?? 0} round trips, microseconds`);
  const figures: Record<string, unknown> = {};
  for (const [name, each] of hops) {
    const { p50, p90 } = spread(each.map((one) => 1000 * one));
    figures[name] = { p50, p90 };
    print(`${name.padEnd(46)}${p50.toFixed(0).padStart(8)}${p90.toFixed(0).padStart(8)}`);
  }
  print('for each request:');
  print(`${''.padEnd(10)}${HEADS.map((head) => head.padStart(12)).join('')}`);
  for (const [name, one] of Object.entries(counts)) print(`${name.padEnd(10)}${cells(one).join('')}`);
  const isWhole = [...HOPS.map(({ name }) => name), NEXT].every((name) => (hops.get(name)?.length ?? 0) > 0);
  return { ok: isWhole, hops: figures, counts };
};

const HEADS = ['CPU us', 'sleeps', 'turns', 'reads', 'writes', 'bytes'];
type PerRequest = Counts & { readonly turns: number | null };

function cells({ processorMs, sleeps, turns, reads, writes, bytes }: PerRequest): string[] {
  const texts = [
    (1000 * processorMs).toFixed(0),
    sleeps.toFixed(2),
    turns === null ? '' : turns.toFixed(2),
    reads.toFixed(2),
    writes.toFixed(2),
    bytes.toFixed(0),
  ];
  return texts.map((text) => text.padStart(12));
}

type Measured = { readonly hops: Map<string, number[]>; readonly counts: Record<Process, PerRequest> };

async function measure(ms: number): Promise<Measured> {
  const image = await installServices();
  const install = await installQemu();
  const directory = workFolder();
  const around: Around = { ssh: image.ssh, counted: new Counted() };
  const uplinks = { uplinks: 2, ipv6: 'none', delivery: 'learns' } as const;
  const network = await startNetwork({ services: SERVICES, install, dir: directory, ...uplinks });
  const forwards = network.forwards.v4;
  const target = (service: ServiceName): Target => ({ host: forwards.host, port: forwards[service] });
  const trace = TRACE_EVENTS.flatMap((event) => ['-trace', event]);
  const vmArgs = [
    ...guestArguments(install, image, machineFor([ROW], 1)),
    ...[...trace, '-D', join(directory, '%d.trace'), '-msg', 'timestamp=on'],
  ];
  const untilReady = () => untilReplies([ROW], target, around);
  try {
    const pair = await withInstruments(directory, () =>
      protect({ install, directory, network, vmArgs, untilReady }),
    );
    const [a, b] = [pair.node('a'), pair.node('b')];
    const [{ service, clients, open }] = clientsOf(rowOf(ROW));
    const load = await Load.start(clients, (index) => open(target(service), index, around));
    try {
      await load.run(WARM_UP_MS);
      const counts = await countedRun(load, ms, [a, b], directory);
      const hops = await timedRun(load, ms, [a, b], directory);
      return { hops, counts };
    } finally {
      load.close();
      await pair.stop();
    }
  } finally {
    await network.stop();
    removeWorkFolder(directory);
  }
}

/** The nodes get in-node.ts; no process that is started later does. */
async function withInstruments<T>(directory: string, start: () => Promise<T>): Promise<T> {
  const { NODE_OPTIONS: before } = process.env;
  const file = pathToFileURL(join(import.meta.dirname, 'hops/in-node.ts')).href;
  process.env.NODE_OPTIONS = `${before ?? ''} --import=${file}`;
  process.env.COLO_HOPS = directory;
  try {
    return await start();
  } finally {
    if (before === undefined) delete process.env.NODE_OPTIONS;
    else process.env.NODE_OPTIONS = before;
  }
}

type Nodes = readonly [LabNode, LabNode];

async function countedRun(
  load: Load,
  ms: number,
  nodes: Nodes,
  directory: string,
): Promise<Measured['counts']> {
  const vms = await Promise.all(nodes.map(async (node) => (await node.status()).vm.pid ?? 0));
  const pids: Record<Process, number> = {
    ...{ 'node a': nodes[0].pid, 'node b': nodes[1].pid },
    ...{ 'VM a': vms[0], 'VM b': vms[1] },
  };
  const look = async (): Promise<Record<string, PerRequest>> => {
    const turns = await turnsOf(nodes, directory);
    return Object.fromEntries(
      Object.entries(pids).map(([name, pid]) => [name, { ...countsOf(pid), turns: turns.get(pid) ?? null }]),
    );
  };
  const before = await look();
  const { requests, firstError } = await load.run(ms);
  if (firstError !== null) throw new ColoError('COLO_BENCH_PEER', firstError);
  const after = await look();
  const per = (one: number, other: number) => (one - other) / requests;
  return Object.fromEntries(
    Object.keys(pids).map((name) => {
      const [one, other] = [after[name], before[name]];
      const counts: PerRequest = {
        processorMs: per(one.processorMs, other.processorMs),
        sleeps: per(one.sleeps, other.sleeps),
        turns: one.turns === null ? null : per(one.turns, other.turns ?? 0),
        reads: per(one.reads, other.reads),
        writes: per(one.writes, other.writes),
        bytes: per(one.bytes, other.bytes),
      };
      return [name, counts];
    }),
  ) as Measured['counts'];
}

/** Returns how often each node's event loop has turned. */
async function turnsOf(nodes: Nodes, directory: string): Promise<Map<number, number>> {
  const turns = new Map<number, number>();
  for (const { pid } of nodes) {
    const path = join(directory, `${pid}.turns`);
    rmSync(path, { force: true });
    process.kill(pid, 'SIGUSR2');
    for (const endMs = performance.now() + WRITTEN_MS_MAX; !turns.has(pid); await sleep(POLL_MS)) {
      const text = readIfThere(path);
      if (text !== '') turns.set(pid, Number(text));
      else if (performance.now() > endMs) throw new ColoError('COLO_BENCH_PEER', 'a node wrote no counts');
    }
  }
  return turns;
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

async function timedRun(load: Load, ms: number, nodes: Nodes, directory: string): Promise<Measured['hops']> {
  const path = (node: LabNode) => join(directory, `${node.name}.pcapng`);
  for (const node of nodes)
    await node.ask('POST', '/capture', { path: path(node), bytesMax: CAPTURE_BYTES_MAX });
  await load.run(ms);
  const vms = await Promise.all(nodes.map(async (node) => (await node.status()).vm.pid ?? 0));
  for (const node of nodes) await node.ask('DELETE', '/capture');
  const ended = (node: LabNode) => node.events().some(({ type }) => type === 'capture.ended');
  for (const endMs = performance.now() + WRITTEN_MS_MAX; !nodes.every(ended); await sleep(POLL_MS))
    if (performance.now() > endMs) throw new ColoError('COLO_BENCH_PEER', 'a capture did not end');
  const traces = readdirSync(directory).filter((name) => name.endsWith('.trace'));
  if (traces.length < nodes.length) throw new ColoError('COLO_BENCH_PEER', 'a QEMU wrote no trace');
  const traced = (pid: number) => readFileSync(join(directory, `${pid}.trace`), 'utf8');
  return hopsOf([
    ...(await momentsOfNode('a', path(nodes[0]))),
    ...(await momentsOfNode('b', path(nodes[1]))),
    ...momentsOfVm('va', traced(vms[0])),
    ...momentsOfVm('vb', traced(vms[1])),
  ]);
}

/** Returns milliseconds, or null if only help is wanted. Throws COLO_USAGE. */
function readSeconds(args: string[]): number | null {
  try {
    const { values } = parseArgs({
      args,
      options: { seconds: { type: 'string', default: '5' }, help: { type: 'boolean', short: 'h' } },
    });
    return values.help === true ? null : 1000 * wholeNumber('seconds', values.seconds, 60);
  } catch (error) {
    throw new ColoError('COLO_USAGE', messageOf(error), { cause: error });
  }
}
