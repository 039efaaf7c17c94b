/**
 * What stands between the clients and the guest's services, in each column of the table. All have the same guest, on
 * the same arguments of QEMU, behind the same hub and helper of uplinks (lab/network.ts). The helper learns, as a bridge
 * does: otherwise only the columns with two nodes would pay for a second one that receives all that clients send.
 */
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Target } from '../../lab/clients/net.ts';
import { startNetwork } from '../../lab/network.ts';
import { LabPair, type PairOptions } from '../../lab/pair.ts';
import { removeWorkFolder, startChild, stopChild, workFolder } from '../../lab/process.ts';
import { installQemu, type QemuInstall } from '../../lab/qemu.ts';
import { installServices, SERVICES, type ServiceName, type ServicesImage } from '../../lab/services/image.ts';
import { NIC, nicArguments, vmArguments } from '../../lab/vm.ts';
import type { CheckpointReport } from '../../src/checkpoint/report.ts';
import { ColoError } from '../../src/error.ts';
import {
  type Bed,
  type Column,
  type Counts,
  noRules,
  type Programs,
  READY_MS_MAX,
  type Side,
} from './side.ts';
import { startStockPair } from './stock.ts';

/** The link of a pair. */
export type PairLink = Pick<PairOptions, 'link' | 'dials'>;

export type Machine = {
  readonly processors: number;
  /** whether the guest makes a cluster of PostgreSQL, which takes it 20 s */
  readonly postgres: boolean;
};

/** A pair takes three times this, which a small machine has; the guest's files are 140 MB of it. */
const MEMORY_MB = 512;
/** The node's own default; stock gets the same. */
const INTERVAL_MS = 5000;

/** Throws COLO_USAGE unless this is a checkout that is set up. */
export function checkCheckout(checkout: string): void {
  if (existsSync(resolve(checkout, 'src/cli/main.ts')) && existsSync(resolve(checkout, 'node_modules')))
    return;
  throw new ColoError(
    'COLO_USAGE',
    `--before: ${checkout} is no checkout that is set up; run "npm run setup" in one`,
  );
}

/** Starts a column's programs; resolves when its guest replies and, where it should be, is protected. */
export async function startSide(
  column: Column,
  machine: Machine,
  before: string | null,
  isReady: (side: Pick<Side, 'target'>) => Promise<void>,
  link: PairLink = {},
): Promise<Side> {
  const image = await installServices();
  const install = await installQemu();
  const directory = workFolder();
  const uplinks = column === 'before' || column === 'ours' ? 2 : 1;
  const network = await startNetwork({
    services: SERVICES,
    install,
    dir: directory,
    uplinks,
    ipv6: 'none',
    delivery: 'learns',
  });
  const forwards = network.forwards.v4;
  const target = (service: ServiceName): Target => ({ host: forwards.host, port: forwards[service] });
  const bed: Bed = {
    ...{ install, directory, network },
    vmArgs: guestArguments(install, image, machine),
    untilReady: () => isReady({ target }),
  };
  let programs: Programs | null = null;
  const stop = async (): Promise<void> => {
    await programs?.stop();
    await network.stop();
    removeWorkFolder(directory);
  };
  try {
    programs = await startPrograms(column, bed, before, link);
    return { ...programs, target, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Returns QEMU's arguments for the guest with services, without its NIC. */
export function guestArguments(install: QemuInstall, image: ServicesImage, machine: Machine): string[] {
  return vmArguments(install, image, {
    memoryMb: MEMORY_MB,
    processors: machine.processors,
    words: machine.postgres ? ['colo.postgres'] : [],
  });
}

function startPrograms(column: Column, bed: Bed, before: string | null, link: PairLink): Promise<Programs> {
  if (column === 'unprotected') return startAlone(bed);
  if (column === 'stock') return startStockPair(bed, INTERVAL_MS);
  return startPair(bed, column === 'before' && before !== null ? resolve(before) : undefined, link);
}

async function startAlone({ install, network, vmArgs, untilReady }: Bed): Promise<Programs> {
  const netdev = `stream,id=net0,server=off,addr.type=unix,addr.path=${network.uplinks[0]}`;
  const vm = startChild([...install.command, ...vmArgs, '-netdev', netdev, ...nicArguments('net0')], {
    env: { ...process.env, ...install.env },
    stdio: ['ignore', 'ignore', 'inherit'],
    // As the nodes of a pair: Linux schedules a session as a group.
    detached: true,
  });
  const stop = () => stopChild(vm);
  try {
    await untilReady();
  } catch (error) {
    await stop();
    throw error;
  }
  const counts = async (): Promise<Counts> => {
    return { divergences: 0, checkpoints: [], portions: false, processes: { VM: vm.pid ?? 0 } };
  };
  return { counts, useRules: noRules, stop };
}

/** Starts the nodes a, as the primary, and b. */
export async function protect(
  { install, directory, network, vmArgs, untilReady }: Bed,
  checkout?: string,
  link: PairLink = {},
): Promise<LabPair> {
  const pair = await LabPair.prepare({
    directory,
    uplinks: { a: network.uplinks[0], b: network.uplinks[1] },
    qemu: install,
    vmArgs,
    mac: NIC.mac,
    addresses: [NIC.v4],
    config: { checkpoint: { intervalMsMax: INTERVAL_MS } },
    ...link,
    ...(checkout === undefined ? {} : { checkout }),
  });
  const [a, b] = [pair.node('a'), pair.node('b')];
  try {
    a.start();
    await a.until('alone', ({ phase, vm }) => phase === 'alone' && vm.running, READY_MS_MAX);
    await untilReady();
    b.start();
    await a.until('protected', ({ phase }) => phase === 'protected', READY_MS_MAX);
    return pair;
  } catch (error) {
    await pair.stop();
    throw error;
  }
}

async function startPair(bed: Bed, checkout: string | undefined, link: PairLink): Promise<Programs> {
  const pair = await protect(bed, checkout, link);
  const [a, b] = [pair.node('a'), pair.node('b')];
  const counts = async (): Promise<Counts> => {
    const [primary, secondary] = [await a.status(), await b.status()];
    if (primary.phase !== 'protected')
      throw new ColoError('COLO_BENCH_PEER', `the pair is ${primary.phase}, no longer protected`);
    const reports = a.events().filter(({ type }) => type === 'checkpoint.committed');
    return {
      divergences: primary.divergences.count,
      portions: primary.secondary?.portions.state === 'on',
      checkpoints: reports.map((report) => {
        const { reason, class: one, pauseMs } = report as unknown as CheckpointReport;
        return { reason: one === undefined ? reason : `${reason} ${one}`, pauseMs };
      }),
      processes: {
        ...{ 'node a': a.pid, 'node b': b.pid },
        ...{ 'VM a': primary.vm.pid ?? 0, 'VM b': secondary.vm.pid ?? 0 },
      },
    };
  };
  // A build from before input went in portions has no rules either.
  const useRules = checkout === undefined ? (rules: readonly unknown[]) => pair.useRules(rules) : noRules;
  return { counts, useRules, stop: () => pair.stop() };
}
