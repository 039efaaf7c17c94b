/**
 * A network without root: one QEMU without a machine serves as a hub, and one helper stands between the hub and all uplink
 * sockets (uplink-helper.ts), so that a node that does not read cannot stop the hub for the others. One of two programs
 * connects the hub to this host:
 * - passt forwards ports of 127.0.0.1 and ::1. It takes the sender of the last frame for the guest, so nothing else
 *   with a MAC address of its own may be on the hub, not even QEMU's user networking.
 * - QEMU's user networking forwards ports of 127.0.0.1 only (its hostfwd has no IPv6 guests), and runs everywhere.
 */
import type { ChildProcess } from 'node:child_process';
import { createSocket } from 'node:dgram';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../src/error.ts';
import { raiseBacklogs } from './backlog.ts';
import { progress } from './cache.ts';
import { startGuestOnly } from './guest-only.ts';
import { areListenedOn } from './listening.ts';
import { startChild, stopChild } from './process.ts';
import { installPasst, type Program } from './program.ts';
import { endWithParent, HOST_FROM_GUEST, NIC, PORTS } from './vm.ts';

/** A port of the guest. */
export type Service<Name extends string> = {
  readonly name: Name;
  readonly kind: 'tcp' | 'udp';
  readonly port: number;
};
/** Ports of this host that lead to the guest's services. */
export type Forwards<Name extends string = GuestService> = { readonly host: string } & Readonly<
  Record<Name, number>
>;
export type Network<Name extends string = GuestService> = {
  /** Unix sockets with QEMU's stream framing. Each accepts one client at a time. */
  readonly uplinks: string[];
  readonly forwards: { readonly v4: Forwards<Name>; readonly v6?: Forwards<Name> };
  stop(): Promise<void>;
};
export type NetworkOptions<Name extends string = GuestService> = {
  readonly services: readonly Service<Name>[];
  readonly install: Program & { readonly version: string };
  /** A short path, because it holds unix sockets. */
  readonly dir: string;
  readonly uplinks: number;
  /** Where passt cannot run, a network with IPv6 `wanted` has none, and stderr has a line about it. */
  readonly ipv6: 'none' | 'wanted' | 'required';
  /**
   * For a client that puts frames of its own on the hub. User networking receives them too, takes them for the guest's,
   * and would forward them into the host's network. If closed, QEMU's user networking sends only replies to forwarded
   * ports, and passt receives only the guest's frames.
   */
  readonly closed?: boolean;
  /** Default: `floods`. */
  readonly delivery?: Delivery;
};

/**
 * Which uplinks receive a frame. `floods`: all, as on a bridge whose ports do not learn; the secondary's uplink receives what
 * clients send to the VM. `learns`: the one where its destination was last seen as a source, as on any other bridge or
 * switch; all, if that is a group or was not seen.
 */
export type Delivery = 'floods' | 'learns';

/** What the guest of guest/ serves. */
export const GUEST_SERVICES = [
  { name: 'http', kind: 'tcp', port: PORTS.http },
  { name: 'echo', kind: 'tcp', port: PORTS.echo },
  { name: 'echoUdp', kind: 'udp', port: PORTS.echo },
  { name: 'counter', kind: 'tcp', port: PORTS.counter },
  { name: 'countedUdp', kind: 'udp', port: PORTS.counted },
  { name: 'connectOut', kind: 'tcp', port: PORTS.connectOut },
] as const;
export type GuestService = (typeof GUEST_SERVICES)[number]['name'];

const HELPER = join(import.meta.dirname, 'uplink-helper.ts');
/** Another program may take a port after we have chosen it and before we use it. */
const ATTEMPTS_MAX = 3;
const START_MS_MAX = 10_000;
const LISTEN_MS_MAX = 2000;
/** How long the hub waits until it connects to passt again. */
const RETRY_MS = 20;

export async function startNetwork<Name extends string>(
  options: NetworkOptions<Name>,
): Promise<Network<Name>> {
  if (options.ipv6 === 'none') return retrying(() => startWithUserNetworking(options));
  const passt = await installPasst();
  try {
    return await retrying(() => startWithPasst(options, passt));
  } catch (error) {
    // A container may forbid the namespaces that passt confines itself to.
    if (options.ipv6 === 'required' || !(error instanceof ColoError)) throw error;
    progress(`no IPv6 in this network: ${error.message}`);
    return retrying(() => startWithUserNetworking(options));
  }
}

async function retrying<T>(start: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await start();
    } catch (error) {
      if (attempt === ATTEMPTS_MAX) throw error;
    }
  }
}

async function startWithUserNetworking<Name extends string>(
  options: NetworkOptions<Name>,
): Promise<Network<Name>> {
  const v4 = await chooseForwards('127.0.0.1', options.services);
  const forwards = options.services.map(({ name, kind, port }) => {
    return `hostfwd=${kind}:${v4.host}:${v4[name]}-${NIC.v4}:${port}`;
  });
  const restrict = options.closed === true ? 'on' : 'off';
  const netdev = `user,restrict=${restrict},ipv6=off,host=${HOST_FROM_GUEST.v4},net=10.0.2.0/24,${forwards.join(',')}`;
  return assemble(options, [hub(options, netdev), helper(options)], { v4 });
}

async function startWithPasst<Name extends string>(
  options: NetworkOptions<Name>,
  passt: Program,
): Promise<Network<Name>> {
  const v4 = await chooseForwards('127.0.0.1', options.services);
  const v6 = await chooseForwards('::1', options.services);
  const socket = join(options.dir, 'passt');
  rmSync(socket, { force: true });
  // passt serves one client, the hub, and ends with it, so it cannot outlive us. It sends frames from the moment that the
  // hub connects, and QEMU 11.1.3 crashes if one reaches a port of the hub that is not set up yet. So passt comes after
  // the hub, which tries again until it is there.
  const args = ['--foreground', '--quiet', '--one-off', '--socket', socket, '--mtu', '1500'];
  args.push('--address', NIC.v4, '--netmask', '24', '--gateway', HOST_FROM_GUEST.v4);
  args.push('--address', NIC.v6, '--gateway', HOST_FROM_GUEST.v6, '--no-dhcp', '--no-dhcpv6', '--no-ra');
  for (const forwards of [v4, v6]) {
    for (const { name, kind, port } of options.services) {
      const option = kind === 'tcp' ? '--tcp-ports' : '--udp-ports';
      args.push(option, `${forwards.host}/${forwards[name]}:${port}`);
    }
  }
  const filtered = options.closed === true ? `${socket}-guest` : null;
  const filter = filtered === null ? null : await startGuestOnly(filtered, socket);
  const netdev = `stream,server=off,addr.type=unix,addr.path=${filtered ?? socket},reconnect-ms=${RETRY_MS}`;
  const passtStart = { what: 'passt', program: passt, args, sockets: [socket] };
  try {
    const starts = [hub(options, netdev), passtStart, helper(options)];
    const network = await assemble(options, starts, { v4, v6 });
    const stop = async (): Promise<void> => {
      await filter?.close();
      await network.stop();
    };
    return { ...network, stop };
  } catch (error) {
    await filter?.close();
    throw error;
  }
}

type Start = { what: string; program: Program; args: string[]; sockets: string[] };

async function assemble<Name extends string>(
  options: NetworkOptions<Name>,
  starts: readonly Start[],
  forwards: Network<Name>['forwards'],
): Promise<Network<Name>> {
  const children: ChildProcess[] = [];
  const stop = async (): Promise<void> => {
    for (const child of children.toReversed()) await stopChild(child);
  };
  try {
    for (const { what, program, args, sockets } of starts) {
      const env = { ...process.env, ...program.env };
      // The uplinks' helper ends when its standard input does. The others do not read it.
      const child = startChild([...program.command, ...args], { env, stdio: ['pipe', 'ignore', 'pipe'] });
      children.push(child);
      await untilThere(child, sockets, what);
    }
    const listeners = options.services.filter(({ kind }) => kind === 'tcp');
    const ports = Object.values(forwards).flatMap((each) => listeners.map(({ name }) => each[name]));
    await untilListening(children, ports);
    for (const { pid } of children) if (pid !== undefined) raiseBacklogs(pid);
    return { uplinks: uplinkPaths(options), forwards, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

function uplinkPaths(options: Pick<NetworkOptions, 'dir' | 'uplinks'>): string[] {
  return Array.from({ length: options.uplinks }, (_, i) => join(options.dir, `uplink${i}`));
}

/** Where the helper connects to the hub. */
function hubPath({ dir }: Pick<NetworkOptions, 'dir'>): string {
  return join(dir, 'hub');
}

function helper(options: Pick<NetworkOptions, 'dir' | 'uplinks' | 'delivery'>): Start {
  const program = { command: [process.execPath, '--disable-warning=ExperimentalWarning'], env: {} };
  const uplinks = uplinkPaths(options);
  for (const path of uplinks) rmSync(path, { force: true });
  const args = [HELPER, options.delivery ?? 'floods', hubPath(options), ...uplinks];
  return { what: 'the helper of the uplinks', program, args, sockets: uplinks };
}

function hub(options: Pick<NetworkOptions, 'dir' | 'install'>, outside: string): Start {
  const args = ['-machine', 'none', '-nodefaults', '-no-user-config', '-display', 'none'];
  args.push(...endWithParent(options.install));
  const attach = (id: string, netdev: string): void => {
    const [type, ...rest] = netdev.split(',');
    args.push('-netdev', [type, `id=${id}`, ...rest].join(','));
    args.push('-netdev', `hubport,id=${id}-port,hubid=0,netdev=${id}`);
  };
  attach('outside', outside);
  const path = hubPath(options);
  // A socket that an earlier attempt left would look as if the hub were there.
  rmSync(path, { force: true });
  attach('uplinks', `stream,server=on,addr.type=unix,addr.path=${path}`);
  return { what: 'the hub (QEMU)', program: options.install, args, sockets: [path] };
}

async function untilThere(child: ChildProcess, sockets: readonly string[], what: string): Promise<void> {
  let said = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    if (said.length < 4096) said += text;
  });
  const end = performance.now() + START_MS_MAX;
  while (!areListenedOn(sockets)) {
    const ended = child.exitCode ?? child.signalCode;
    if (ended !== null || performance.now() > end) {
      const how =
        ended === null ? `it does not listen after ${START_MS_MAX / 1000} s` : `it ended with ${ended}`;
      const last = said.trim().split('\n').at(-1) || 'nothing';
      throw new ColoError('COLO_LAB_NETWORK', `${what} did not start: ${how}; it printed last: ${last}`);
    }
    await sleep(10);
  }
}

/**
 * Throws COLO_LAB_NETWORK unless every port is listened on. passt reports no error for a port that another program has
 * taken. The kernel's table shows it without a connection that the guest would notice.
 */
async function untilListening(children: readonly ChildProcess[], wanted: readonly number[]): Promise<void> {
  const end = performance.now() + LISTEN_MS_MAX;
  for (;;) {
    const listening = new Set([...listeningPorts('/proc/net/tcp'), ...listeningPorts('/proc/net/tcp6')]);
    const missing = wanted.filter((port) => !listening.has(port));
    if (missing.length === 0) return;
    const ended = children.some((child) => child.exitCode !== null || child.signalCode !== null);
    if (ended || performance.now() > end) {
      throw new ColoError(
        'COLO_LAB_NETWORK',
        `the lab's network does not listen on port ${missing.join(', ')}`,
      );
    }
    await sleep(10);
  }
}

/** Returns the local ports in state LISTEN (0A) of one of the kernel's tables. */
function listeningPorts(table: string): number[] {
  if (!existsSync(table)) return [];
  const rows = readFileSync(table, 'latin1').split('\n').slice(1);
  const fields = rows.map((row) => row.trim().split(/\s+/)).filter((row) => row[3] === '0A');
  return fields.map((row) => Number.parseInt(row[1].split(':')[1], 16));
}

async function chooseForwards<Name extends string>(
  host: string,
  services: readonly Service<Name>[],
): Promise<Forwards<Name>> {
  const probes = await Promise.all(
    services.map(({ kind }) => (kind === 'tcp' ? openTcp(host) : openUdp(host))),
  );
  for (const probe of probes) probe.close();
  const ports = Object.fromEntries(services.map(({ name }, i) => [name, probes[i].port]));
  return { host, ...ports } as Forwards<Name>;
}

type Probe = { readonly port: number; close(): void };

function openTcp(host: string): Promise<Probe> {
  const server = createServer();
  return new Promise((resolve, reject) => {
    server.on('error', reject).listen(0, host, () => {
      const address = server.address();
      const port = address !== null && typeof address === 'object' ? address.port : 0;
      resolve({ port, close: () => server.close() });
    });
  });
}

function openUdp(host: string): Promise<Probe> {
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
  return new Promise((resolve, reject) => {
    socket.on('error', reject).bind(0, host, () => {
      resolve({ port: socket.address().port, close: () => socket.close() });
    });
  });
}
