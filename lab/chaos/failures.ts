/**
 * What chaos does to a bed: one failure at a time, of one host, of the network or of the arbiter. Never of both hosts at once, which
 * would end the VM.
 *
 * A failure says what it chose (`what`, the same for the same seed), and `strike` resolves when it is over: what was cut is mended and
 * what was stopped runs again. What was killed is started again by its unit, or, a member of etcd, by the bed.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../../src/error.ts';
import type { Bed, Host } from '../bed/bed.ts';
import { type Cut, HOSTS, type HostName, MEMBERS } from '../bed/network.ts';
import type { Random } from '../clients/random.ts';
import type { EtcdProcess } from '../etcd.ts';

export type Scene = { readonly bed: Bed; readonly primary: HostName; readonly random: Random };

export type Chosen = {
  readonly what: string;
  /** of the host that is struck, where the two differ for clients */
  readonly role?: 'primary' | 'secondary';
  readonly strike: () => Promise<void>;
};

export type Failure = {
  /** a row of the table, or two: of the primary and of the secondary */
  readonly name: string;
  /** what the bed must have */
  readonly needs: 'nothing' | 'etcd';
  /** whether the guest's memory is to outlive it */
  readonly guest: 'lives' | 'reboots';
  readonly choose: (scene: Scene) => Chosen;
};

/** How long a process stands, and an etcd member is away. */
const STOP_MS = 5000;
const MEMBER_AWAY_MS = 2000;
/** Shorter than, around and longer than what a node waits for its peer. */
const CUT_MS = [300, 1000, 3000, 6000] as const;
/** An hour forward, a day and a bit forward, three hours back. */
const CLOCK_STEPS = ['+1h', '+26h', '-3h'] as const;
/** Until a node has read its clock some times. */
const CLOCK_MS = 3000;

export const FAILURES: readonly Failure[] = [
  ofOneHost('kill node', async ({ node }) => node.signal('SIGKILL')),
  ofOneHost('kill QEMU', async ({ node }) => kill(await vmOf(node))),
  ofOneHost('kill host', async ({ name, node, uplink }, { etcd }) => {
    const member = etcd?.members[HOSTS.indexOf(name)];
    node.signal('SIGKILL');
    uplink.kill();
    await member?.kill();
    await sleep(MEMBER_AWAY_MS);
    member?.start();
  }),
  ofOneHost('stop node', ({ node }) => stopped(node.pid)),
  ofOneHost('stop QEMU', async ({ node }) => stopped(await vmOf(node))),
  ofOneHost('uplink down', async ({ uplink }) => {
    uplink.setCable('down');
    await sleep(STOP_MS);
    uplink.setCable('up');
  }),
  ofOneHost('kill uplink helper', async ({ uplink }) => uplink.kill()),
  {
    ...{ name: 'cut link', needs: 'nothing', guest: 'lives' },
    choose: ({ bed, random }) => cut(bed, pick(random, CUT_MS), 'both ways', LINK),
  },
  {
    ...{ name: 'cut link one way', needs: 'nothing', guest: 'lives' },
    choose: ({ bed, random }) => {
      const way = pick(random, LINK);
      return cut(bed, pick(random, CUT_MS), `${way.from} to ${way.to}`, [way]);
    },
  },
  {
    ...{ name: 'lossy link', needs: 'nothing', guest: 'lives' },
    choose: ({ bed }) => ({ what: '', strike: () => lossyLink(bed) }),
  },
  {
    ...{ name: 'cut arbiter', needs: 'etcd', guest: 'lives' },
    choose: ({ bed, random }) => {
      const hosts = pick(random, [['a'], ['b'], ['a', 'b']] as const);
      return cut(bed, STOP_MS, `of ${hosts.join(' and ')}`, hosts.flatMap(toArbiter));
    },
  },
  {
    ...{ name: 'cut link and arbiter', needs: 'etcd', guest: 'lives' },
    choose: ({ bed, random }) => {
      const host = pick(random, HOSTS);
      return cut(bed, STOP_MS, `of ${host}`, [...LINK, ...toArbiter(host)]);
    },
  },
  {
    ...{ name: 'kill etcd leader', needs: 'etcd', guest: 'lives' },
    choose: ({ bed }) => ({ what: '', strike: () => killLeader(bed) }),
  },
  {
    ...{ name: 'stop two of etcd', needs: 'etcd', guest: 'lives' },
    choose: ({ bed, random }) => {
      const spared = random.between(0, 2);
      const members = (bed.etcd?.members ?? []).filter((_, place) => place !== spared);
      return { what: `all but ${spared}`, strike: () => stopMembers(members) };
    },
  },
  {
    ...{ name: 'reboot guest', needs: 'nothing', guest: 'reboots' },
    choose: ({ bed }) => ({ what: '', strike: () => bed.clients.rebootGuest() }),
  },
  {
    ...{ name: 'step clock', needs: 'nothing', guest: 'lives' },
    choose: ({ bed, random }) => {
      const host = pick(random, HOSTS);
      const { node } = bed.hosts[host];
      // Its clock stays where the last step has put it, and would not step if it were put there again.
      const shift = pick(
        random,
        CLOCK_STEPS.filter((step) => step !== node.clock),
      );
      const strike = async (): Promise<void> => {
        node.setClock(shift);
        await sleep(CLOCK_MS);
      };
      return { what: `${host} to ${shift}`, strike };
    },
  },
];

const LINK: readonly Cut[] = [
  { from: 'a', to: 'b' },
  { from: 'b', to: 'a' },
];

const toArbiter = (host: HostName): Cut[] =>
  MEMBERS.flatMap((member) => [
    { from: host, to: member },
    { from: member, to: host },
  ]);

/** The host is the primary or the secondary. */
function ofOneHost(name: string, strikeOn: (host: Host, bed: Bed) => Promise<void>): Failure {
  return {
    ...{ name, needs: 'nothing', guest: 'lives' },
    choose: ({ bed, primary, random }) => {
      const host = pick(random, HOSTS);
      const role = host === primary ? 'primary' : 'secondary';
      return { what: `of the ${role} ${host}`, role, strike: () => strikeOn(bed.hosts[host], bed) };
    },
  };
}

function cut(bed: Bed, ms: number, where: string, cuts: readonly Cut[]): Chosen {
  const strike = async (): Promise<void> => {
    bed.network.cut(cuts);
    await sleep(ms);
    bed.network.mend(cuts);
  };
  return { what: `${where} for ${ms} ms`, strike };
}

async function lossyLink({ network }: Bed): Promise<void> {
  network.lose(LINK);
  await sleep(STOP_MS);
  network.loseNoMore(LINK);
}

async function vmOf(node: Host['node']): Promise<number> {
  const { pid } = (await node.status()).vm;
  if (pid === null) throw new ColoError('COLO_LAB_NODE', `node ${node.name} has no VM`);
  return pid;
}

function kill(pid: number): void {
  process.kill(pid, 'SIGKILL');
}

async function stopped(pid: number): Promise<void> {
  process.kill(pid, 'SIGSTOP');
  await sleep(STOP_MS);
  try {
    process.kill(pid, 'SIGCONT');
  } catch {
    // Its node has ended it meanwhile.
  }
}

async function killLeader({ etcd }: Bed): Promise<void> {
  const leader = await etcd?.leader();
  await leader?.kill();
  await sleep(MEMBER_AWAY_MS);
  leader?.start();
}

async function stopMembers(members: readonly EtcdProcess[]): Promise<void> {
  await Promise.all(members.map((member) => member.pause()));
  await sleep(STOP_MS);
  for (const member of members) member.resume();
}

export function pick<T>(random: Random, from: readonly T[]): T {
  return from[random.between(0, from.length - 1)];
}

/** Returns the failures in a random order, and again in another one, so that a long run has each of them. */
export class Bag {
  private readonly random: Random;
  private readonly all: readonly Failure[];
  private left: Failure[] = [];

  constructor(random: Random, all: readonly Failure[]) {
    this.random = random;
    this.all = all;
  }

  next(): Failure {
    if (this.left.length === 0) this.left = [...this.all];
    const [failure] = this.left.splice(this.random.between(0, this.left.length - 1), 1);
    return failure;
  }
}
