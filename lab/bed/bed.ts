/**
 * Two hosts, a client and an arbiter, in network namespaces on bridges that learn: everything that a pair needs around it, and all
 * that may fail. A bed that was opened must be closed; then no process, namespace or file of it is left.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeCertificates } from '../../src/cli/certs.ts';
import { ColoError } from '../../src/error.ts';
import type { NodeStatus } from '../../src/observe/status.ts';
import { whenAborted } from '../clients/net.ts';
import { DISK_WORD, makeDisk } from '../disk.ts';
import { LabEtcd } from '../etcd.ts';
import { type GuestImage, installGuest } from '../guest/image.ts';
import { fileOf } from '../namespace.ts';
import { removeWorkFolder, workFolder } from '../process.ts';
import { installQemu, type QemuInstall } from '../qemu.ts';
import { NIC, vmArguments } from '../vm.ts';
import { wordsIn } from './child.ts';
import { Clients } from './clients.ts';
import { ADDRESSES, BedNetwork, HOSTS, type HostName, type MachineName, MEMBERS } from './network.ts';
import { Recorder } from './recorder.ts';
import { installTools } from './tools.ts';
import { UnitNode } from './unit.ts';
import { tapOf, Uplink } from './uplink.ts';

export type BedArbiter = 'directory' | 'etcd';

export type BedOptions = {
  readonly arbiter: BedArbiter;
  /** of the guest's disk; it has none if not given */
  readonly diskBytes?: number;
  /** more of the nodes' configuration, by section */
  readonly config?: Readonly<Record<string, unknown>>;
  /** more of the command line of etcd's members */
  readonly etcdArgs?: readonly string[];
};

export type Host = { readonly name: HostName; readonly uplink: Uplink; readonly node: UnitNode };

const PAIR = 'bed';
const LINK_PORT = 7000;
const POLL_MS = 20;
const BOOT_MS_MAX = 90_000;

export class Bed {
  readonly directory: string;
  readonly network: BedNetwork;
  readonly hosts: Readonly<Record<HostName, Host>>;
  readonly etcd: LabEtcd | null;
  readonly recorder: Recorder;
  readonly clients: Clients;

  private constructor(parts: Pick<Bed, 'directory' | 'network' | 'hosts' | 'etcd' | 'recorder' | 'clients'>) {
    this.directory = parts.directory;
    this.network = parts.network;
    this.hosts = parts.hosts;
    this.etcd = parts.etcd;
    this.recorder = parts.recorder;
    this.clients = parts.clients;
  }

  /** Builds the network, starts arbiter, uplinks and the clients' process; no node yet. */
  static async open(options: BedOptions): Promise<Bed> {
    const [qemu, image, tools] = [await installQemu(), await installGuest(), await installTools()];
    const directory = workFolder();
    const network = BedNetwork.make(tools.nft);
    let etcd: LabEtcd | null = null;
    let recorder: Recorder | null = null;
    const made: Uplink[] = [];
    try {
      await makeCertificates(
        { pair: PAIR, nodes: [...HOSTS], out: certificatesIn(directory), days: 730 },
        Date.now(),
      );
      if (options.arbiter === 'etcd') etcd = await startEtcd(network, directory, options.etcdArgs);
      recorder = await Recorder.start(network, tools.tcpdump, directory);
      const hosts: Partial<Record<HostName, Host>> = {};
      for (const name of HOSTS) {
        const socket = join(directory, `${name}.uplink`);
        const uplink = new Uplink({ host: name, namespace: network.of(name), socket, qemu });
        made.push(uplink);
        await uplink.start();
        const configFile = join(directory, `${name}.yaml`);
        const config = configOf(name, { ...options, directory, qemu, image, socket, etcd });
        // JSON is YAML.
        writeFileSync(configFile, JSON.stringify(config, null, 2));
        const node = new UnitNode({
          ...{ name, configFile, runDirectory: join(directory, name) },
          ...{ namespace: network.of(name), faketime: tools.faketime },
        });
        hosts[name] = { name, uplink, node };
      }
      if (options.diskBytes !== undefined) await makeDisk(imageOf('a', directory), options.diskBytes);
      const clients = new Clients(network.of('client'), options.diskBytes === undefined ? 'no-disk' : 'disk');
      return new Bed({ directory, network, hosts: hosts as Record<HostName, Host>, etcd, recorder, clients });
    } catch (cause) {
      for (const uplink of made) await uplink.stop();
      await recorder?.stop();
      await etcd?.stop();
      network.close();
      removeWorkFolder(directory);
      throw cause;
    }
  }

  /** Starts a and then b. Resolves when the guest replies and the pair is protected. The signal also ends the clients, at any time. */
  async bring(signal?: AbortSignal): Promise<void> {
    const { a, b } = this.hosts;
    // What they were asked may take a minute and a half, and is rejected then.
    if (signal !== undefined) whenAborted(signal, () => void this.clients.stop());
    a.node.start();
    await this.until(
      'alone',
      BOOT_MS_MAX,
      ({ a: status }) => status?.phase === 'alone' && status.vm.running,
      signal,
    );
    await this.clients.untilReady();
    b.node.start();
    await this.until('protected', BOOT_MS_MAX, isProtected, signal);
  }

  /** Waits until the nodes' statuses are as wanted; null is of a node that does not reply. Throws COLO_LAB_NODE. */
  async until(
    what: string,
    msMax: number,
    holds: (statuses: Statuses) => boolean,
    signal?: AbortSignal,
  ): Promise<Statuses> {
    const endMs = performance.now() + msMax;
    for (;;) {
      signal?.throwIfAborted();
      const statuses = await this.statuses();
      if (holds(statuses)) return statuses;
      const down = HOSTS.flatMap((name) => this.hosts[name].node.down ?? []);
      if (down.length === 0 && performance.now() < endMs) {
        await sleep(POLL_MS);
        continue;
      }
      const states = HOSTS.map(
        (name) => `${name} is ${statuses[name]?.role ?? 'no role'} ${statuses[name]?.phase ?? 'away'}`,
      );
      const why = down.length > 0 ? down.join('; ') : `not ${what} after ${msMax} ms`;
      throw new ColoError('COLO_LAB_NODE', `${why}; ${states.join(', ')}`);
    }
  }

  async statuses(): Promise<Statuses> {
    const [a, b] = await Promise.all(HOSTS.map((name) => this.hosts[name].node.status().catch(() => null)));
    return { a, b };
  }

  /** Returns how to enter each machine, and what to do there. */
  describe(): string {
    const { etcd } = this;
    const enter = (name: MachineName): string => `nsenter --net=${fileOf(this.network.of(name))}`;
    const hosts = HOSTS.map(
      (name) => `${enter(name)}   # host ${name}: bin/colo status -c ${this.directory}/${name}.yaml`,
    );
    const client = `${enter('client')}   # client: the guest is ${NIC.v4} and ${NIC.v6}`;
    const members = MEMBERS.map(
      (name, place) => `${enter(name)}   # etcd: ${etcd?.endpoints[place] ?? 'none'}`,
    );
    return [...hosts, client, ...members].join('\n');
  }

  async close(): Promise<void> {
    await this.clients.stop();
    for (const name of HOSTS) await this.hosts[name].node.stop();
    for (const name of HOSTS) await this.hosts[name].uplink.stop();
    await this.recorder.stop();
    await this.etcd?.stop();
    this.network.close();
    removeWorkFolder(this.directory);
  }
}

/** Three members, each on a machine of its own. */
function startEtcd(network: BedNetwork, directory: string, args: readonly string[] = []): Promise<LabEtcd> {
  const members = MEMBERS.map((name) => ({ host: ADDRESSES[name], within: wordsIn(network.of(name)) }));
  return LabEtcd.start({ directory, members, args });
}

export type Statuses = Readonly<Record<HostName, NodeStatus | null>>;

export function isProtected(statuses: Statuses): boolean {
  return primaryOf(statuses) !== null;
}

/** Returns the primary of a protected pair, or null. */
export function primaryOf({ a, b }: Statuses): HostName | null {
  if (a?.phase !== 'protected' || b?.phase !== 'protected') return null;
  if (a.role === 'primary' && b.role === 'secondary') return 'a';
  return b.role === 'primary' && a.role === 'secondary' ? 'b' : null;
}

/** Returns where the image of a host's disk is. */
export const imageOf = (host: HostName, directory: string): string => join(directory, `${host}.raw`);
const certificatesIn = (directory: string): string => join(directory, 'certs');

type Around = BedOptions & {
  readonly directory: string;
  readonly qemu: QemuInstall;
  readonly image: GuestImage;
  readonly socket: string;
  readonly etcd: LabEtcd | null;
};

function configOf(
  name: HostName,
  { directory, qemu, image, socket, etcd, config, diskBytes }: Around,
): unknown {
  const peer = name === 'a' ? 'b' : 'a';
  const arbiterDirectory = join(directory, 'arbiter');
  const certificates = certificatesIn(directory);
  mkdirSync(arbiterDirectory, { recursive: true });
  return {
    node: name,
    pair: PAIR,
    link: {
      tls: {
        ca: join(certificates, 'ca.crt'),
        certificate: join(certificates, `${name}.crt`),
        key: join(certificates, `${name}.key`),
      },
      listen: `tcp-listen:${ADDRESSES[name]}:${LINK_PORT}`,
      peer: `tcp:${ADDRESSES[peer]}:${LINK_PORT}`,
    },
    uplink: { socket: `unix:${socket}`, interfaces: [tapOf(name), 'lan0'], failover: true },
    arbiter: etcd === null ? { directory: arbiterDirectory } : { etcd: { endpoints: etcd.endpoints } },
    runDirectory: join(directory, name),
    vm: {
      command: qemu.command,
      // The library of the node's clock is not for its QEMU, which has a loader of its own.
      env: { ...qemu.env, LD_PRELOAD: '' },
      args: vmArguments(qemu, image, diskBytes === undefined ? {} : { words: [DISK_WORD] }),
      ...(diskBytes === undefined
        ? {}
        : { disks: [{ id: 'data', image: imageOf(name, directory), format: 'raw' }] }),
      mac: NIC.mac,
      addresses: [NIC.v4, NIC.v6],
      nic: { options: 'rx_queue_size=1024' },
    },
    ...config,
  };
}
