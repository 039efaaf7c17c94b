/**
 * A bridge that learns and snoops, in a network namespace, with the documented helpers as its ports: for nodes, and for a port by
 * which a test sends and receives frames; and a client's host behind a cable. Needs root and /dev/net/tun.
 */
import { type ChildProcess, execFileSync } from 'node:child_process';
import { existsSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { helperArguments } from '../../lab/bed/uplink.ts';
import { startChild, stopChild } from '../../lab/process.ts';
import type { QemuInstall } from '../../lab/qemu.ts';
import { endWithParent } from '../../lab/vm.ts';
import { eachFrame, WholeFrames } from '../../lab/whole-frames.ts';

/** The client's address: the guest's gateway. */
export const CLIENT = { mac: '02:00:00:00:02:02', v4: '10.0.2.2' } as const;
const START_MS_MAX = 10_000;
let made = 0;

export class Bridge {
  private readonly t: TestContext;
  private readonly install: QemuInstall;
  private readonly folder: string;
  private readonly space = `colo-br${process.pid}x${made++}`;
  private readonly helpers = new Map<string, ChildProcess>();

  constructor(t: TestContext, install: QemuInstall, folder: string) {
    this.t = t;
    this.install = install;
    this.folder = folder;
    execFileSync('ip', ['netns', 'add', this.space]);
    t.after(async () => {
      for (const name of this.helpers.keys()) await this.stopHelper(name);
      execFileSync('ip', ['netns', 'del', this.space]);
    });
    // It asks once for groups, and then not for two minutes.
    const snooping =
      'mcast_snooping 1 mcast_querier 1 mcast_query_response_interval 100 mcast_startup_query_count 1';
    this.run(`ip link add br0 type bridge ${snooping}; ip link set br0 up; ip link set lo up
      ip link add client type veth peer name port; ip link set port master br0 up
      ip link set client address ${CLIENT.mac}; ip addr add ${CLIENT.v4}/24 dev client; ip link set client up`);
  }

  /** Runs a shell's words in the namespace; returns what they print. */
  run(words: string): string {
    const [program, ...args] = this.inSpace(['sh', '-ec', words]);
    return execFileSync(program, args, { stdio: 'pipe', timeout: 20_000, encoding: 'utf8' });
  }

  inSpace(words: readonly string[]): string[] {
    return ['ip', 'netns', 'exec', this.space, ...words];
  }

  socket(name: string): string {
    return join(this.folder, `${name}.sock`);
  }

  /** Starts the helper of a port as docs/operation.md does; the first time it makes its tap. */
  async startHelper(name: string): Promise<void> {
    const tap = `tap-${name}`;
    if (!this.helpers.has(name)) this.run(`ip tuntap add dev ${tap} mode tap; ip link set ${tap} master br0`);
    const args = [...helperArguments(tap, this.socket(name)), ...endWithParent(this.install)];
    const helper = startChild(this.inSpace([...this.install.command, ...args]), {
      env: { ...process.env, ...this.install.env },
      stdio: ['ignore', 'ignore', 'ignore'],
    });
    this.helpers.set(name, helper);
    const endMs = performance.now() + START_MS_MAX;
    while (!existsSync(this.socket(name))) {
      if (performance.now() > endMs) throw new Error(`the helper of port ${name} does not listen`);
      await sleep(20);
    }
    await sleep(1000);
    this.run(`ip link set ${tap} up`);
  }

  /** Stops the helper, which then reads nothing, or has it go on. */
  signalHelper(name: string, signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.helpers.get(name)?.kill(signal);
  }

  /** Kills the helper, unlinks its socket and takes its tap down. */
  async stopHelper(name: string): Promise<void> {
    const helper = this.helpers.get(name);
    if (helper !== undefined) await stopChild(helper);
    rmSync(this.socket(name), { force: true });
    this.run(`ip link set tap-${name} down`);
  }

  /** Opens a port of the bridge by which a test sends and receives frames. */
  async port(name: string): Promise<BridgePort> {
    await this.startHelper(name);
    const socket = connect(this.socket(name));
    this.t.after(() => socket.destroy());
    return new BridgePort(socket);
  }
}

export class BridgePort {
  /** Called with each frame that the bridge sends here. */
  onFrame: (frame: Buffer, atMs: number) => void = () => {};
  private readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket;
    const whole = new WholeFrames((frames) => {
      const atMs = performance.now();
      eachFrame(frames, (frame) => this.onFrame(frame, atMs));
    });
    socket.on('data', (chunk: Buffer) => whole.push(chunk)).on('error', () => {});
  }

  send(frame: Buffer): void {
    const prefix = Buffer.alloc(4);
    prefix.writeUInt32BE(frame.length);
    this.socket.write(Buffer.concat([prefix, frame]));
  }
}
