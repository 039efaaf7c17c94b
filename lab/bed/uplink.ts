/**
 * The uplink of a host, by the commands of docs/operation.md and as its unit runs them: a tap on the host's bridge, and a QEMU
 * without a machine that joins the tap to a socket. The unit says Restart=always, so a helper that ends is started again.
 */
import type { ChildProcess } from 'node:child_process';
import { rmSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../../src/error.ts';
import { areListenedOn } from '../listening.ts';
import { type Namespace, within } from '../namespace.ts';
import { stopChild } from '../process.ts';
import type { QemuInstall } from '../qemu.ts';
import { startIn } from './child.ts';
import { ip } from './network.ts';

const LISTENS_MS_MAX = 10_000;
/** As in the unit: QEMU must listen before it receives the first frame. */
const BEFORE_UP_MS = 1000;
/** systemd's default. */
const RESTART_MS = 100;

/** As on the page. */
export const tapOf = (host: string): string => `colo-${host}`;

/** Returns the rest of the command line of a QEMU that joins a tap to a socket. */
export function helperArguments(tap: string, socket: string): string[] {
  return [
    ...['-machine', 'none', '-nodefaults', '-display', 'none'],
    ...['-netdev', `tap,id=lan,ifname=${tap},script=no,downscript=no`],
    ...['-netdev', 'hubport,id=lan-port,hubid=0,netdev=lan'],
    ...['-netdev', `stream,id=node,server=on,addr.type=unix,addr.path=${socket}`],
    ...['-netdev', 'hubport,id=node-port,hubid=0,netdev=node'],
  ];
}

export class Uplink {
  readonly socket: string;
  private readonly tap: string;
  private readonly namespace: Namespace;
  private readonly qemu: Pick<QemuInstall, 'command' | 'env'>;
  private helper: ChildProcess | null = null;
  private wanted = false;
  /** what the helper has printed last, for an error */
  private said = '';

  constructor(options: {
    host: string;
    namespace: Namespace;
    socket: string;
    qemu: Pick<QemuInstall, 'command' | 'env'>;
  }) {
    this.tap = tapOf(options.host);
    this.namespace = options.namespace;
    this.socket = options.socket;
    this.qemu = options.qemu;
  }

  /** Throws COLO_LAB_NETWORK if the helper does not listen. */
  async start(): Promise<void> {
    ip(this.namespace, [`tuntap add dev ${this.tap} mode tap`]);
    await this.restart();
  }

  /** Starts the helper after `stop`. */
  async restart(): Promise<void> {
    this.wanted = true;
    await this.startHelper();
  }

  /** Kills the helper, which its unit starts again. */
  kill(): void {
    this.helper?.kill('SIGKILL');
  }

  /** Pulls the host's cable to the clients' network, or puts it back. */
  setCable(state: 'up' | 'down'): void {
    ip(this.namespace, [`link set lan0 ${state}`]);
  }

  async stop(): Promise<void> {
    this.wanted = false;
    if (this.helper !== null) await stopChild(this.helper);
  }

  private async startHelper(): Promise<void> {
    ip(this.namespace, [`link set ${this.tap} down master br0`]);
    rmSync(this.socket, { force: true });
    const command = [...this.qemu.command, ...helperArguments(this.tap, this.socket)];
    const helper = startIn(this.namespace, command, {
      env: { ...process.env, ...this.qemu.env },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.helper = helper;
    helper.stderr?.setEncoding('utf8').on('data', (text: string) => {
      this.said = text;
    });
    helper.once('exit', () => void this.ended());
    for (const endMs = performance.now() + LISTENS_MS_MAX; ; await sleep(50)) {
      if (within(this.namespace, () => areListenedOn([this.socket]))) break;
      if (performance.now() > endMs || helper.exitCode !== null || helper.signalCode !== null)
        throw new ColoError(
          'COLO_LAB_NETWORK',
          `the uplink ${this.tap} does not listen: ${this.said.trim()}`,
        );
    }
    await sleep(BEFORE_UP_MS);
    if (this.wanted) ip(this.namespace, [`link set ${this.tap} up`]);
  }

  private async ended(): Promise<void> {
    if (!this.wanted) return;
    await sleep(RESTART_MS);
    if (this.wanted) await this.startHelper().catch(() => undefined);
  }
}
