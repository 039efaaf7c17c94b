/** The machines of docs/two-hosts.md with their networks, their clients and what the page takes for granted. */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { Clients } from '../../lab/bed/clients.ts';
import { ADDRESSES, type BedNetwork, HOSTS, type HostName, ip } from '../../lab/bed/network.ts';
import { removeWorkFolder, workFolder } from '../../lab/process.ts';
import type { NodeStatus } from '../../src/observe/status.ts';
import type { Ground } from './ground.ts';
import { GuideHost, type GuideName } from './guide-host.ts';
import { readDoc } from './tables.ts';

const PROTECTED_MS_MAX = 90_000;
const POLL_MS = 500;

export type Block = {
  readonly title: string;
  readonly machines: readonly GuideName[];
  readonly text: string;
};

/**
 * Returns the page's blocks of commands, without those for another way than `way`: the first line of each says where it is run, and after
 * what.
 */
export function guideBlocks(way: Ground['way']): Block[] {
  const page = readDoc('docs/two-hosts.md');
  const blocks = [...page.matchAll(/```\n# on ([^`\n]*)\n([^`]*)```/g)].map(([, title, text]) => {
    const [machines] = title.split(/, (?=after|to |from )/);
    return { title, machines: machines.split(', ') as GuideName[], text };
  });
  return blocks.filter(({ title }) => !title.includes(', from ') || title.endsWith(`, ${way}`));
}

export class Guide {
  readonly folder = workFolder();
  readonly network: BedNetwork;
  readonly machines: Readonly<Record<GuideName, GuideHost>>;
  readonly clients: Clients;

  constructor(network: BedNetwork, ground: Ground) {
    this.network = network;
    const machine = (name: GuideName): GuideHost =>
      new GuideHost({
        ...{ name, network, ground, folder: `${this.folder}/${name}` },
        peers: (address) => this.machines[address === ADDRESSES.a ? 'a' : 'b'],
      });
    this.machines = { a: machine('a'), b: machine('b'), c: machine('c') };
    this.clients = new Clients(network.of('client'));
  }

  async open(): Promise<void> {
    for (const machine of Object.values(this.machines)) await machine.open();
    // The page makes it.
    for (const name of HOSTS) ip(this.network.of(name), ['link del br0', 'link set lan0 down']);
  }

  async status(name: HostName): Promise<NodeStatus | null> {
    const done = await this.machines[name].run(`colo status --json -c /etc/colo/${name}.yaml`);
    return done.status === 0 ? (JSON.parse(done.stdout) as NodeStatus) : null;
  }

  async until(name: HostName, role: 'primary' | 'secondary', phase: string): Promise<void> {
    for (const endMs = performance.now() + PROTECTED_MS_MAX; ; await sleep(POLL_MS)) {
      const status = await this.status(name);
      if (status?.role === role && status.phase === phase) return;
      assert.ok(
        performance.now() < endMs,
        `${name} is ${status?.role} ${status?.phase}, not ${role} ${phase}`,
      );
    }
  }

  async close(): Promise<void> {
    await this.clients.stop();
    for (const machine of Object.values(this.machines)) await machine.close();
    this.network.close();
    removeWorkFolder(this.folder);
  }
}

/** The members were started at once, and have to elect a leader first. */
export async function etcdReplies(machine: GuideHost, block: string): Promise<void> {
  for (let tries = 0; tries < 50 && (await machine.run(block)).status !== 0; tries += 1) await sleep(POLL_MS);
}
