/**
 * The whole lab in one object: network, guest, and a pair that is ready to start. A stage that was opened must be
 * closed; then no process and no file of it is left.
 */
import { ColoError } from '../src/error.ts';
import type { Target } from './clients/net.ts';
import { untilGuestReplies } from './clients/ready.ts';
import { DISK_WORD, makeDisk } from './disk.ts';
import { installGuest } from './guest/image.ts';
import { GUEST_SERVICES, type Network, startNetwork } from './network.ts';
import { type LabNode, LabPair, type PairOptions } from './pair.ts';
import { removeWorkFolder, workFolder } from './process.ts';
import { installQemu, type QemuInstall } from './qemu.ts';
import { NIC, vmArguments } from './vm.ts';

export type StageOptions = {
  /** The IP version of the clients; v6 needs passt. */
  ip: 'v4' | 'v6';
  /** Uplinks besides the two nodes', for clients that inject frames; with any, the network is closed. */
  extraUplinks?: number;
  /** The link: see PairOptions. */
  link?: PairOptions['link'];
  dials?: PairOptions['dials'];
  /** Gives the guest a disk of this size, with an empty file system on node a's image. */
  diskBytes?: number;
  /** Further sections of the nodes' configuration. */
  config?: Readonly<Record<string, unknown>>;
};

export type Targets = Readonly<
  Record<'http' | 'echo' | 'echoUdp' | 'counter' | 'countedUdp' | 'connectOut', Target>
>;

const GUEST_REPLIES_MS_MAX = 60_000;
const BOOT_MS_MAX = 60_000;
const PROTECT_MS_MAX = 60_000;

export class Stage {
  readonly install: QemuInstall;
  readonly network: Network;
  readonly pair: LabPair;
  readonly targets: Targets;
  readonly directory: string;

  private constructor(
    install: QemuInstall,
    network: Network,
    pair: LabPair,
    targets: Targets,
    directory: string,
  ) {
    this.install = install;
    this.network = network;
    this.pair = pair;
    this.targets = targets;
    this.directory = directory;
  }

  static async open(options: StageOptions): Promise<Stage> {
    const install = await installQemu();
    const image = await installGuest();
    const directory = workFolder();
    let network: Network | null = null;
    try {
      const extra = options.extraUplinks ?? 0;
      network = await startNetwork({
        services: GUEST_SERVICES,
        install,
        dir: directory,
        uplinks: 2 + extra,
        ipv6: options.ip === 'v6' ? 'required' : 'none',
        closed: extra > 0,
      });
      const targets = targetsOf(network, options.ip);
      const pair = await LabPair.prepare({
        directory,
        uplinks: { a: network.uplinks[0], b: network.uplinks[1] },
        qemu: install,
        vmArgs: vmArguments(install, image, options.diskBytes === undefined ? {} : { words: [DISK_WORD] }),
        ...(options.diskBytes === undefined ? {} : { disks: true }),
        mac: NIC.mac,
        addresses: [NIC.v4, NIC.v6],
        ...(options.link === undefined ? {} : { link: options.link }),
        ...(options.dials === undefined ? {} : { dials: options.dials }),
        ...(options.config === undefined ? {} : { config: options.config }),
      });
      if (options.diskBytes !== undefined) await makeDisk(pair.node('a').image, options.diskBytes);
      return new Stage(install, network, pair, targets, directory);
    } catch (cause) {
      await network?.stop();
      removeWorkFolder(directory);
      throw cause;
    }
  }

  node(name: 'a' | 'b'): LabNode {
    return this.pair.node(name);
  }

  /** Starts `node` as the first one and waits until its guest replies. */
  async boot(node: LabNode, signal?: AbortSignal): Promise<void> {
    node.start();
    await node.until('alone', (status) => status.phase === 'alone' && status.vm.running, BOOT_MS_MAX, signal);
    await untilGuestReplies(this.targets.echo, GUEST_REPLIES_MS_MAX, signal);
  }

  /** Starts `secondary` beside `primary` and waits until the pair is protected. */
  async protect(primary: LabNode, secondary: LabNode, signal?: AbortSignal): Promise<void> {
    secondary.start();
    await primary.until(
      'protected',
      (status) => status.role === 'primary' && status.phase === 'protected',
      PROTECT_MS_MAX,
      signal,
    );
  }

  async close(): Promise<void> {
    await this.pair.stop();
    await this.network.stop();
    removeWorkFolder(this.directory);
  }
}

function targetsOf(network: Network, ip: 'v4' | 'v6'): Targets {
  const forwards = network.forwards[ip];
  if (forwards === undefined) throw new ColoError('COLO_LAB_NETWORK', `the lab's network has no ${ip}`);
  const at = (port: number): Target => ({ host: forwards.host, port });
  return {
    http: at(forwards.http),
    echo: at(forwards.echo),
    echoUdp: at(forwards.echoUdp),
    counter: at(forwards.counter),
    countedUdp: at(forwards.countedUdp),
    connectOut: at(forwards.connectOut),
  };
}
