/** Kills hosts of a bed, one after the other, and says how long clients waited and on what. */
import { setTimeout as sleep } from 'node:timers/promises';
import { Bed, isProtected, primaryOf } from '../../lab/bed/bed.ts';
import { machineMs } from '../../lab/bed/clock.ts';
import { ADDRESSES, type Cut, HOSTS, type HostName } from '../../lab/bed/network.ts';
import type { EtcdProcess, LabEtcd } from '../../lab/etcd.ts';
import { ColoError } from '../../src/error.ts';
import type { NodeEvent } from '../../src/observe/status.ts';

export const STRIKES = ['kill', 'kill, led', 'cut'] as const;
export type Strike = (typeof STRIKES)[number];

/** All but protectedMs add up to blackoutMs, if the client that waited longest began to wait at the death. */
export type DeathFigures = {
  readonly blackoutMs: number;
  readonly detectMs: number;
  readonly arbiterMs: number;
  readonly promoteMs: number;
  readonly firstFrameMs: number;
  readonly restMs: number;
  readonly protectedMs: number;
};

export type Death = DeathFigures & { readonly strike: Strike };

export type HostsRun = {
  readonly deaths: readonly Death[];
  /** replies that were checked */
  readonly acknowledged: number;
  readonly lost: number;
  readonly broken: number;
  readonly texts: readonly string[];
};

/** As docs/operation.md advises on a local network. */
const ETCD_ARGS = ['--heartbeat-interval=10', '--election-timeout=100'];
/** Clients work for so long before each death: the pair has taken several checkpoints. */
const WORK_MS = 3000;
/** The host is away for so long: longer than a promotion. */
const AWAY_MS = 3000;
/** A client that waits at the death may have begun to a bit earlier. */
const EARLIER_MS = 100;
const PROTECTED_MS_MAX = 60_000;
const SEED = 1;

export async function killHosts(options: {
  readonly runs: number;
  readonly heartbeatMs: number;
  readonly leaseMs: number;
  readonly said: (death: Death) => void;
}): Promise<HostsRun> {
  const { runs, heartbeatMs, leaseMs, said } = options;
  const heartbeat = { intervalMs: heartbeatMs, leaseMs };
  const bed = await Bed.open({ arbiter: 'etcd', config: { heartbeat }, etcdArgs: ETCD_ARGS });
  try {
    await bed.bring();
    await bed.clients.start(SEED);
    const deaths: Death[] = [];
    for (let run = 0; run < runs; run += 1)
      for (const strike of STRIKES) {
        const death = { strike, ...(await die(bed, strike)) };
        said(death);
        deaths.push(death);
      }
    return { deaths, ...(await bed.clients.finish()) };
  } finally {
    await bed.close();
  }
}

async function die(bed: Bed, strike: Strike): Promise<DeathFigures> {
  const primary = primaryOf(await bed.until('protected', PROTECTED_MS_MAX, isProtected));
  if (primary === null || bed.etcd === null) throw new ColoError('COLO_LAB', 'the bed has no pair');
  const survivor = primary === 'a' ? 'b' : 'a';
  const member = memberOf(bed.etcd, primary);
  await bed.etcd.lead(strike === 'kill, led' ? member : bed.etcd.members[HOSTS.length]);
  await sleep(WORK_MS);
  await bed.recorder.frames();
  // A pair that has parted meanwhile has one copy of the VM, and its death would say nothing of a failover.
  if (primaryOf(await bed.statuses()) !== primary)
    throw new ColoError(
      'COLO_LAB',
      `the pair was not protected by ${survivor} any more when ${primary} was to die`,
    );
  const wallMs = Date.now();
  const fromMs = machineMs();
  const back = strike === 'cut' ? cut(bed, primary) : await kill(bed, primary, member);
  await bed.until('promoted', PROTECTED_MS_MAX, (statuses) => statuses[survivor]?.phase === 'alone');
  await sleep(AWAY_MS);
  const blackoutMs = await bed.clients.blackoutMs(fromMs - EARLIER_MS, machineMs());
  const spoken = (await bed.recorder.frames()).find(({ host, atMs }) => host === survivor && atMs >= wallMs);
  await back();
  await bed.until('protected', PROTECTED_MS_MAX, isProtected);
  const parts = partsOf(bed.hosts[survivor].node.events(), wallMs, spoken?.atMs ?? Number.NaN);
  const known = parts.detectMs + parts.arbiterMs + parts.promoteMs + parts.firstFrameMs;
  return { blackoutMs, ...parts, restMs: blackoutMs - known, protectedMs: machineMs() - fromMs };
}

const memberOf = (etcd: LabEtcd, host: HostName): EtcdProcess => etcd.members[HOSTS.indexOf(host)];

/** Returns what brings the host back. Its units would start node and uplink helper again at once: they are stopped. */
async function kill(bed: Bed, host: HostName, member: EtcdProcess): Promise<() => Promise<void>> {
  const { node, uplink } = bed.hosts[host];
  const ends = [member.kill(), uplink.stop(), node.stop()];
  await Promise.all(ends);
  return async () => {
    member.start();
    await uplink.restart();
    node.start();
  };
}

/** Pulls all cables. The node that is cut off loses its right to speak, and is a candidate when the cables are back. */
function cut(bed: Bed, host: HostName): () => Promise<void> {
  const others = Object.keys(ADDRESSES).filter((name) => name !== host) as Cut['from'][];
  const cuts = others.flatMap((name): Cut[] => [
    { from: host, to: name },
    { from: name, to: host },
  ]);
  bed.network.cut(cuts);
  bed.hosts[host].uplink.setCable('down');
  return async () => {
    bed.network.mend(cuts);
    bed.hosts[host].uplink.setCable('up');
  };
}

/** Reads from the survivor's events when it did what; times of the events are of the machine's wall clock. */
function partsOf(events: readonly NodeEvent[], wallMs: number, spokenMs: number) {
  const first = (type: string, to?: string): number => {
    const found = events.find(
      (event) =>
        Date.parse(event.at) >= wallMs && event.type === type && (to === undefined || event.to === to),
    );
    return found === undefined ? Number.NaN : Date.parse(found.at);
  };
  const claimMs = first('pair.state', 'claiming');
  const wonMs = first('pair.state', 'promoting');
  const promotedMs = first('failover.done');
  return {
    detectMs: claimMs - wallMs,
    arbiterMs: wonMs - claimMs,
    promoteMs: promotedMs - wonMs,
    firstFrameMs: spokenMs - promotedMs,
  };
}
