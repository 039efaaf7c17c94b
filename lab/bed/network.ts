/**
 * The bed's network: one namespace for each machine, and one for the switches.
 *
 *     client ---+                              +--- e1
 *               |  lan (a bridge that learns)  |
 *     a: br0 ---+                       core --+--- e2
 *     b: br0 ---+        a ---------------+    +--- e3
 *                        b ---------------+
 *
 * The clients' network is `lan`. Each host has a bridge of its own, `br0`, with the tap of its uplink and the cable to `lan`, as
 * docs/operation.md has it. The link and the arbiter are on `core`.
 *
 * Cuts are in the switch: frames of one address for another are dropped, so that no machine sees an interface go down. Loss
 * likewise drops a share of them. Delay and rate need more: `delay` puts a relay into a cable, and
 * `limitRate` a queue before it.
 *
 * Everything ends with the last process and file in it, also after a SIGKILL of this process.
 */
import { type ChildProcess, execFileSync } from 'node:child_process';
import { closeSync, existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ColoError, messageOf } from '../../src/error.ts';
import { fileOf, type Namespace, newNamespace, setKernel, within } from '../namespace.ts';
import type { Program } from '../program.ts';
import { HOST_FROM_GUEST } from '../vm.ts';
import { startIn } from './child.ts';

const WIRE = fileURLToPath(new URL('./wire-main.ts', import.meta.url));

export const HOSTS = ['a', 'b'] as const;
export type HostName = (typeof HOSTS)[number];
export const MEMBERS = ['e1', 'e2', 'e3'] as const;
export type MemberName = (typeof MEMBERS)[number];
export type MachineName = HostName | MemberName | 'client';

/** On `core`. */
export const ADDRESSES: Readonly<Record<HostName | MemberName, string>> = {
  ...{ a: '10.8.0.1', b: '10.8.0.2' },
  ...{ e1: '10.8.0.11', e2: '10.8.0.12', e3: '10.8.0.13' },
};

/** A TCP connection still gets on with it, with pauses of seconds. */
export const LOSS_PERCENT = 30;

const TABLE = `table bridge bed {
  set cut { type ipv4_addr . ipv4_addr; }
  set lossy { type ipv4_addr . ipv4_addr; }
  chain forward {
    type filter hook forward priority 0;
    ip saddr . ip daddr @cut drop
    ip saddr . ip daddr @lossy numgen random mod 100 < ${LOSS_PERCENT} drop
  }
}
`;

/** Frames of `from` for `to` are dropped. */
export type Cut = { readonly from: HostName | MemberName; readonly to: HostName | MemberName };

export class BedNetwork {
  readonly switches: Namespace = newNamespace();
  private readonly machines = new Map<MachineName, Namespace>();
  private readonly wires: ChildProcess[] = [];
  private readonly nft: Program;

  private constructor(nft: Program) {
    this.nft = nft;
  }

  static make(nft: Program): BedNetwork {
    const network = new BedNetwork(nft);
    try {
      network.build();
    } catch (cause) {
      network.close();
      throw cause;
    }
    return network;
  }

  of(machine: MachineName): Namespace {
    const namespace = this.machines.get(machine);
    if (namespace === undefined) throw new ColoError('COLO_LAB_NETWORK', `the bed has no ${machine}`);
    return namespace;
  }

  /** The interface of the switch where a machine's cable to the clients' network ends. */
  lanPort(machine: HostName | 'client'): string {
    return `lan-${machine}`;
  }

  cut(cuts: readonly Cut[]): void {
    this.change('add', 'cut', cuts);
  }

  mend(cuts: readonly Cut[]): void {
    this.change('delete', 'cut', cuts);
  }

  /** From now on LOSS_PERCENT of the frames of `from` for `to` are lost. */
  lose(ways: readonly Cut[]): void {
    this.change('add', 'lossy', ways);
  }

  loseNoMore(ways: readonly Cut[]): void {
    this.change('delete', 'lossy', ways);
  }

  /** Sets what a host sends on `core` to at most this rate. */
  limitRate(host: HostName, megabits: number): void {
    const shape = `root tbf rate ${megabits}mbit burst 64kb latency 100ms`;
    const words = ['qdisc', 'replace', 'dev', 'core0', ...shape.split(' ')];
    within(this.of(host), () => execFileSync('tc', words, { stdio: 'pipe' }));
  }

  /** Replaces a host's cable to `core` by one that delays each frame, in both directions. */
  async delay(host: HostName, ms: number): Promise<void> {
    const machine = this.of(host);
    ip(this.switches, [`link del core-${host}`]);
    const words = [WIRE, fileOf(machine), 'core0', `core-${host}`, String(ms)];
    const command = [process.execPath, '--disable-warning=ExperimentalWarning', ...words];
    const wire = startIn(this.switches, command, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.wires.push(wire);
    await new Promise<void>((resolve, reject) => {
      wire.stdout?.once('data', () => resolve());
      wire.once('exit', () => reject(new ColoError('COLO_LAB_NETWORK', 'the cable that delays has ended')));
    });
    ip(this.switches, [`link set core-${host} master core up`]);
    ip(machine, [`addr add ${ADDRESSES[host]}/24 dev core0`, 'link set core0 up']);
  }

  /** Namespaces end with the last process in them. */
  close(): void {
    for (const wire of this.wires) wire.kill('SIGKILL');
    for (const { fd } of [this.switches, ...this.machines.values()]) closeSync(fd);
    this.machines.clear();
  }

  private build(): void {
    ip(this.switches, ['link add lan type bridge', 'link add core type bridge']);
    ip(this.switches, ['link set lan up', 'link set core up']);
    bridgeWithoutIptables(this.switches);
    within(this.switches, () => this.run('-f', TABLE));
    for (const name of [...HOSTS, ...MEMBERS, 'client'] as const) {
      const machine = newNamespace();
      this.machines.set(name, machine);
      ip(machine, ['link set lo up']);
      if (name in ADDRESSES) {
        this.plug(name, 'core', machine);
        ip(machine, [`addr add ${ADDRESSES[name as HostName]}/24 dev core0`]);
      }
      if (!MEMBERS.includes(name as MemberName)) this.plug(name, 'lan', machine);
    }
    for (const name of HOSTS) {
      bridgeWithoutIptables(this.of(name));
      ip(this.of(name), ['link add br0 type bridge', 'link set lan0 master br0', 'link set br0 up']);
    }
    const { v4, v6 } = HOST_FROM_GUEST;
    ip(this.of('client'), [`addr add ${v4}/24 dev lan0`, `addr add ${v6}/64 dev lan0 nodad`]);
  }

  /** Lays a cable from a bridge of the switch to a machine. */
  private plug(name: MachineName, bridge: 'lan' | 'core', machine: Namespace): void {
    const port = `${bridge}-${name}`;
    ip(this.switches, [
      `link add ${port} type veth peer name ${bridge}0 netns ${fileOf(machine)}`,
      `link set ${port} master ${bridge} up`,
    ]);
    // The switch has no stack of its own.
    within(this.switches, () => setKernel(`net/ipv6/conf/${port}/disable_ipv6`, '1'));
    ip(machine, [`link set ${bridge}0 up`]);
  }

  private change(verb: 'add' | 'delete', set: 'cut' | 'lossy', cuts: readonly Cut[]): void {
    const pairs = cuts.map(({ from, to }) => `${ADDRESSES[from]} . ${ADDRESSES[to]}`);
    within(this.switches, () =>
      this.run('-f', `${verb} element bridge bed ${set} { ${pairs.join(', ')} }\n`),
    );
  }

  private run(option: string, input: string): void {
    const [program, ...args] = [...this.nft.command, option, '-'];
    try {
      execFileSync(program, args, { input, stdio: ['pipe', 'pipe', 'pipe'] });
    } catch (cause) {
      const said = String((cause as { stderr?: unknown }).stderr ?? messageOf(cause));
      throw new ColoError('COLO_LAB_NETWORK', `nft refused: ${said}`, { cause });
    }
  }
}

/** As `colo doctor` advises, where the kernel has that. */
function bridgeWithoutIptables(namespace: Namespace): void {
  if (!existsSync('/proc/sys/net/bridge')) return;
  within(namespace, () => {
    for (const tables of ['ip', 'ip6', 'arp']) setKernel(`net/bridge/bridge-nf-call-${tables}tables`, '0');
  });
}

/** Runs lines of ip(8) in a namespace. */
export function ip(namespace: Namespace, lines: readonly string[]): void {
  try {
    within(namespace, () =>
      execFileSync('ip', ['-batch', '-'], {
        input: `${lines.join('\n')}\n`,
        stdio: ['pipe', 'pipe', 'pipe'],
      }),
    );
  } catch (cause) {
    const said = String((cause as { stderr?: unknown }).stderr ?? messageOf(cause));
    throw new ColoError('COLO_LAB_NETWORK', `ip refused one of "${lines.join('; ')}": ${said}`, { cause });
  }
}
