/**
 * A pair on one machine, for the demo and the end-to-end tests: two node processes, each with its own VM, that share
 * only the link and the arbiter's directory, as on two hosts.
 */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { createWriteStream, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { makeCertificates } from '../src/cli/certs.ts';
import { ColoError } from '../src/error.ts';
import type { NodeEvent, NodeStatus } from '../src/observe/status.ts';
import { freePort } from './free-port.ts';
import { startChild, stopChild } from './process.ts';
import type { QemuInstall } from './qemu.ts';

/** The checkout. */
export const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PAIR = 'demo';
/** In a node's run directory. */
const IMAGE = 'data.raw';
const POLL_MS = 10;
/** Shorter than a checkpoint. */
const CHECKPOINT_AGAIN_MS = 2;
const REQUEST_MS_MAX = 30_000;

export type PairOptions = {
  directory: string;
  /** one uplink socket per node */
  uplinks: Readonly<Record<string, string>>;
  qemu: Pick<QemuInstall, 'command' | 'env' | 'remedy'>;
  vmArgs: readonly string[];
  mac: string;
  addresses: readonly string[];
  /** the checkout whose nodes run; this one if not given */
  checkout?: string;
  /** plain if not given */
  link?: LinkKind;
  /** Returns the port at which `node` dials its peer, which listens at `port`: that of a relay, for instance. */
  dials?: (node: string, port: number) => Promise<number>;
  /** what is said of the uplink beside its socket */
  uplink?: Readonly<Record<string, unknown>>;
  /** gives the VM one disk */
  disks?: boolean;
  /** more of the configuration, by section */
  config?: Readonly<Record<string, unknown>>;
};

/** Without encryption on loopback, or inside TLS with certificates that the lab makes. */
export type LinkKind = 'plain' | 'tls';

const CERTIFICATE_DAYS = 30;

/** An older checkout knows the endpoint alone. */
function uplinkOf(path: string, more: PairOptions['uplink']): unknown {
  const socket = `unix:${path}`;
  return more === undefined ? socket : { socket, ...more };
}

/** One node process, and the files that it leaves when it has ended. */
export class LabNode {
  readonly name: string;
  readonly configFile: string;
  readonly runDirectory: string;
  private readonly logFile: string;
  private readonly checkout: string;
  private child: ChildProcess | null = null;

  constructor(name: string, configFile: string, runDirectory: string, checkout = ROOT) {
    this.checkout = checkout;
    this.name = name;
    this.configFile = configFile;
    this.runDirectory = runDirectory;
    this.logFile = join(runDirectory, 'node.log');
  }

  /** Of a pair with a disk. */
  get image(): string {
    return join(this.runDirectory, IMAGE);
  }

  get isRunning(): boolean {
    return this.child !== null && this.child.exitCode === null && this.child.signalCode === null;
  }

  /** The number of the running process. */
  get pid(): number {
    if (this.child?.pid === undefined) throw new ColoError('COLO_LAB_NODE', `node ${this.name} does not run`);
    return this.child.pid;
  }

  start(): void {
    mkdirSync(this.runDirectory, { recursive: true });
    const log = createWriteStream(this.logFile, { flags: 'a' });
    const argv = [join(this.checkout, 'bin/colo'), 'node', '-c', this.configFile];
    // A session of its own, as a service has: its QEMU shares it (qemu/process.ts).
    const child = this.launch(argv, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    child.stdout?.pipe(log, { end: false });
    child.stderr?.pipe(log, { end: false });
    this.child = child;
  }

  /** Kills node and VM at once, as when the host dies. Returns when, by performance.now(). */
  async kill(): Promise<number> {
    const { child, pid } = this;
    const vm = (await this.status()).vm.pid;
    const gone = new Promise((resolve) => child?.once('exit', resolve));
    const killMs = performance.now();
    process.kill(pid, 'SIGKILL');
    if (vm !== null) {
      try {
        process.kill(vm, 'SIGKILL');
      } catch {
        // It ended with its parent.
      }
    }
    await gone;
    this.child = null;
    return killMs;
  }

  async stop(): Promise<void> {
    if (this.child !== null) await stopChild(this.child);
    this.child = null;
  }

  status(): Promise<NodeStatus> {
    return this.ask('GET', '/status') as Promise<NodeStatus>;
  }

  /** Sends one request to the control API; rejects with the node's own error. */
  ask(method: string, path: string, body?: unknown): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const socketPath = join(this.runDirectory, 'control.sock');
      const call = request(
        {
          socketPath,
          method,
          path,
          timeout: REQUEST_MS_MAX,
          headers: { 'content-type': 'application/json' },
        },
        (response) => {
          let text = '';
          response.setEncoding('utf8').on('data', (chunk: string) => {
            text += chunk;
          });
          response.on('end', () => {
            const value = JSON.parse(text) as { code?: `COLO_${string}`; message?: string };
            if ((response.statusCode ?? 500) < 300) resolve(value);
            else reject(new ColoError(value.code ?? 'COLO_LAB', value.message ?? text));
          });
        },
      );
      call.on('error', reject);
      call.on('timeout', () => call.destroy(new Error('no reply')));
      call.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** Has the node take these rules over, which its file has from then on; resolves when they are in force. */
  async useRules(rules: readonly unknown[]): Promise<void> {
    const config = JSON.parse(readFileSync(this.configFile, 'utf8')) as object;
    writeFileSync(this.configFile, JSON.stringify({ ...config, rules }, null, 2));
    await this.ask('POST', '/reload');
  }

  /** Takes a checkpoint; if another is under way, after that one. */
  async checkpoint(): Promise<void> {
    for (;;) {
      try {
        await this.ask('POST', '/checkpoint');
        return;
      } catch (cause) {
        if ((cause as ColoError).code !== 'COLO_CHECKPOINT_RUNNING') throw cause;
        await sleep(CHECKPOINT_AGAIN_MS);
      }
    }
  }

  events(): NodeEvent[] {
    const file = join(this.runDirectory, 'events.ndjson');
    if (!existsSync(file)) return [];
    const lines = readFileSync(file, 'utf8').split('\n');
    return lines.filter((line) => line.endsWith('}')).map((line) => JSON.parse(line) as NodeEvent);
  }

  /** Returns everything that the process has printed. */
  log(): string {
    return existsSync(this.logFile) ? readFileSync(this.logFile, 'utf8') : '';
  }

  /** Waits until the status is as wanted. Throws COLO_LAB_NODE if the node ends first, or after `msMax`. */
  async until(
    what: string,
    holds: (status: NodeStatus) => boolean,
    msMax: number,
    signal?: AbortSignal,
  ): Promise<NodeStatus> {
    const endMs = performance.now() + msMax;
    let last: NodeStatus | null = null;
    while (performance.now() < endMs) {
      signal?.throwIfAborted();
      if (!this.isRunning) throw this.failed(`node ${this.name} ended before ${what}`);
      try {
        last = await this.status();
        if (holds(last)) return last;
      } catch {
        // The node does not listen yet.
      }
      await sleep(POLL_MS);
    }
    throw this.failed(
      `node ${this.name} did not reach ${what} in ${msMax} ms; it is ${last?.role} ${last?.phase}`,
    );
  }

  /** Where the process runs is for a subclass to say. */
  protected launch(argv: readonly string[], options: SpawnOptions): ChildProcess {
    return startChild(argv, options);
  }

  private failed(message: string): ColoError {
    const log = this.log().split('\n').slice(-15).join('\n');
    return new ColoError('COLO_LAB_NODE', `${message}; the end of its log:\n${log}`);
  }
}

export class LabPair {
  readonly nodes: Readonly<Record<string, LabNode>>;

  private constructor(nodes: Readonly<Record<string, LabNode>>) {
    this.nodes = nodes;
  }

  /** Writes the configurations; starts nothing. Throws COLO_LAB for a VM that would execute stale code (stale-code/). */
  static async prepare(options: PairOptions): Promise<LabPair> {
    const { remedy } = options.qemu;
    if (!remedy.every((arg) => options.vmArgs.includes(arg)))
      throw new ColoError(
        'COLO_LAB',
        `a pair under TCG without its remedy: add ${remedy.join(' ')} to vmArgs`,
      );
    const names = Object.keys(options.uplinks);
    const ports = new Map<string, number>();
    for (const name of names) ports.set(name, await freePort());
    const { link = 'plain', dials = async (_node: string, port: number) => port } = options;
    const certs = join(options.directory, 'certs');
    if (link === 'tls')
      await makeCertificates({ pair: PAIR, nodes: names, out: certs, days: CERTIFICATE_DAYS }, Date.now());
    const tlsOf = (name: string) => ({
      ca: join(certs, 'ca.crt'),
      certificate: join(certs, `${name}.crt`),
      key: join(certs, `${name}.key`),
    });
    const nodes: Record<string, LabNode> = {};
    for (const name of names) {
      const peer = names.find((other) => other !== name) ?? name;
      const runDirectory = join(options.directory, name);
      const configFile = join(options.directory, `${name}.yaml`);
      const config = {
        node: name,
        pair: PAIR,
        link: {
          listen: `tcp-listen:127.0.0.1:${ports.get(name)}`,
          peer: `tcp:127.0.0.1:${await dials(name, ports.get(peer) as number)}`,
          ...(link === 'tls' ? { tls: tlsOf(name) } : {}),
        },
        uplink: uplinkOf(options.uplinks[name], options.uplink),
        arbiter: { directory: join(options.directory, 'arbiter') },
        runDirectory,
        vm: {
          command: options.qemu.command,
          env: options.qemu.env,
          args: options.vmArgs,
          mac: options.mac,
          addresses: options.addresses,
          nic: { options: 'rx_queue_size=1024' },
          ...(options.disks === true
            ? { disks: [{ id: 'data', image: join(runDirectory, IMAGE), format: 'raw' }] }
            : {}),
        },
        ...options.config,
      };
      // JSON is YAML.
      writeFileSync(configFile, JSON.stringify(config, null, 2));
      mkdirSync(runDirectory, { recursive: true });
      nodes[name] = new LabNode(name, configFile, runDirectory, options.checkout);
    }
    return new LabPair(nodes);
  }

  node(name: string): LabNode {
    return this.nodes[name];
  }

  async useRules(rules: readonly unknown[]): Promise<void> {
    for (const node of Object.values(this.nodes)) await node.useRules(rules);
  }

  async stop(): Promise<void> {
    await Promise.all(Object.values(this.nodes).map((node) => node.stop()));
  }
}
