/**
 * A real etcd, as an arbiter for tests: Debian's packages in the cache, one member or several, on loopback or wherever a test puts
 * them. A member can be paused, killed and started again with its data.
 */
import type { ChildProcess } from 'node:child_process';
import { createWriteStream, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../src/error.ts';
import { freePort } from './free-port.ts';
import { type RunResult, run, startChild, stopChild } from './process.ts';
import { throughLoader, unpackPackages } from './program.ts';

const READY_MS_MAX = 20_000;
const POLL_MS = 20;

export type EtcdPrograms = { readonly etcd: readonly string[]; readonly etcdctl: readonly string[] };

/** Where a member runs. `within`: the words before its command, as of `ip netns exec`. */
export type EtcdPlace = { readonly host: string; readonly within: readonly string[] };

export type EtcdTls = { readonly ca: string; readonly certificate: string; readonly key: string };

export type LabEtcdOptions = {
  readonly directory: string;
  /** One per member; the members are on loopback if it is a number. */
  readonly members: number | readonly EtcdPlace[];
  /** For clients, who have to show a certificate of the same authority. */
  readonly tls?: EtcdTls;
  /** More of etcd's command line. */
  readonly args?: readonly string[];
  /** A cluster that has stopped, whose addresses this one gets. */
  readonly at?: LabEtcd;
  /** Distinguishes clusters whose members have the same addresses. */
  readonly token?: string;
};

/** Fetches etcd 3.4, Debian 12's, on first use. */
export async function installEtcd(): Promise<EtcdPrograms> {
  const folder = await unpackPackages({
    what: 'etcd',
    name: 'etcd',
    megabytes: 150,
    suite: 'bookworm',
    packages: ['etcd-server', 'etcd-client'],
  });
  const program = (name: string): string[] => throughLoader(folder, join(folder, 'usr/bin', name));
  return { etcd: program('etcd'), etcdctl: program('etcdctl') };
}

export class EtcdProcess {
  readonly name: string;
  readonly clientUrl: string;
  readonly peerUrl: string;
  private readonly command: readonly string[];
  private readonly logFile: string;
  private child: ChildProcess | null = null;

  constructor(options: {
    name: string;
    clientUrl: string;
    peerUrl: string;
    command: readonly string[];
    logFile: string;
  }) {
    this.name = options.name;
    this.clientUrl = options.clientUrl;
    this.peerUrl = options.peerUrl;
    this.command = options.command;
    this.logFile = options.logFile;
  }

  start(): void {
    const log = createWriteStream(this.logFile, { flags: 'a' });
    const child = startChild(this.command, { stdio: ['ignore', 'pipe', 'pipe'] });
    child.stdout?.pipe(log, { end: false });
    child.stderr?.pipe(log, { end: false });
    this.child = child;
  }

  get isRunning(): boolean {
    return this.child !== null && this.child.exitCode === null && this.child.signalCode === null;
  }

  /** Resolves when none of its threads runs any more. */
  async pause(): Promise<void> {
    const { child } = this;
    if (child?.pid === undefined) return;
    child.kill('SIGSTOP');
    while (this.isRunning && !areStopped(child.pid)) await sleep(1);
  }

  resume(): void {
    this.child?.kill('SIGCONT');
  }

  async kill(): Promise<void> {
    if (this.child !== null) await stopChild(this.child);
    this.child = null;
  }

  logEnd(): string {
    return readFileSync(this.logFile, 'utf8').split('\n').slice(-5).join('\n');
  }
}

export class LabEtcd {
  readonly members: readonly EtcdProcess[];
  private readonly programs: EtcdPrograms;
  private readonly within: readonly string[];
  private readonly tls: EtcdTls | null;

  private constructor(
    members: readonly EtcdProcess[],
    programs: EtcdPrograms,
    within: readonly string[],
    tls: EtcdTls | null,
  ) {
    this.members = members;
    this.programs = programs;
    this.within = within;
    this.tls = tls;
  }

  /** Starts all members, and resolves when the cluster replies. Throws COLO_LAB if it does not. */
  static async start(options: LabEtcdOptions): Promise<LabEtcd> {
    const programs = await installEtcd();
    const { tls = null, args = [], token = 'colo-lab' } = options;
    const places =
      typeof options.members === 'number'
        ? Array.from({ length: options.members }, (): EtcdPlace => ({ host: '127.0.0.1', within: [] }))
        : options.members;
    const planned = await Promise.all(
      places.map(async ({ host, within }, place) => {
        const name = `m${place}`;
        const scheme = tls === null ? 'http' : 'https';
        return {
          name,
          within,
          peer: options.at?.members[place].peerUrl ?? `http://${host}:${await freePort()}`,
          client: options.at?.members[place].clientUrl ?? `${scheme}://${host}:${await freePort()}`,
        };
      }),
    );
    const cluster = planned.map(({ name, peer }) => `${name}=${peer}`).join(',');
    const members = planned.map(({ name, within, peer, client }) => {
      const folder = join(options.directory, name);
      mkdirSync(folder, { recursive: true });
      const command = [
        ...within,
        ...programs.etcd,
        ...['--name', name, '--data-dir', join(folder, 'data')],
        ...['--listen-client-urls', client, '--advertise-client-urls', client],
        ...['--listen-peer-urls', peer, '--initial-advertise-peer-urls', peer],
        ...['--initial-cluster', cluster, '--initial-cluster-token', token],
        ...['--logger', 'zap', '--log-level', 'warn'],
        ...(tls === null
          ? []
          : [
              '--client-cert-auth',
              '--trusted-ca-file',
              tls.ca,
              '--cert-file',
              tls.certificate,
              '--key-file',
              tls.key,
            ]),
        ...args,
      ];
      return new EtcdProcess({
        name,
        clientUrl: client,
        peerUrl: peer,
        command,
        logFile: join(folder, 'etcd.log'),
      });
    });
    const lab = new LabEtcd(members, programs, planned[0].within, tls);
    for (const member of members) member.start();
    try {
      await lab.ready();
    } catch (cause) {
      await lab.stop();
      throw cause;
    }
    return lab;
  }

  get endpoints(): string[] {
    return this.members.map(({ clientUrl }) => clientUrl);
  }

  /** Resolves when a majority replies to what needs one. */
  async ready(): Promise<void> {
    const endMs = performance.now() + READY_MS_MAX;
    while (performance.now() < endMs) {
      const done = await this.run(['--command-timeout', '1s', 'get', 'ready']);
      if (done.status === 0) return;
      await sleep(POLL_MS);
    }
    const ends = this.members.map((member) => `${member.name}: ${member.logEnd()}`);
    throw new ColoError('COLO_LAB', `etcd does not reply; the end of its logs:\n${ends.join('\n')}`);
  }

  /** Runs etcdctl against all members; returns what it printed. Throws COLO_LAB if it fails. */
  async ctl(...args: readonly string[]): Promise<string> {
    const done = await this.run(args);
    if (done.status !== 0) throw new ColoError('COLO_LAB', `etcdctl ${args.join(' ')}: ${done.stderr}`);
    return done.stdout;
  }

  /** Returns the member that leads. */
  async leader(): Promise<EtcdProcess> {
    const text = await this.ctl('endpoint', 'status', '--write-out', 'json');
    const rows = JSON.parse(text) as {
      Endpoint: string;
      Status: { leader: number; header: { member_id: number } };
    }[];
    const row = rows.find(({ Status }) => Status.leader === Status.header.member_id);
    const leader = this.members.find(({ clientUrl }) => clientUrl === row?.Endpoint);
    if (leader === undefined) throw new ColoError('COLO_LAB', 'etcd has no leader');
    return leader;
  }

  /** Makes a member the leader. */
  async lead({ name, clientUrl }: EtcdProcess): Promise<void> {
    if ((await this.leader()).name === name) return;
    // Its number in hexadecimal: in JSON it is larger than a double.
    const rows = (await this.ctl('member', 'list')).split('\n').map((row) => row.split(', '));
    const [id] = rows.find((row) => row.includes(clientUrl)) ?? [];
    if (id === undefined) throw new ColoError('COLO_LAB', `etcd has no member ${name}`);
    await this.ctl('move-leader', id);
  }

  async stop(): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()));
  }

  private run(args: readonly string[]): Promise<RunResult> {
    const { tls } = this;
    const files = tls === null ? [] : ['--cacert', tls.ca, '--cert', tls.certificate, '--key', tls.key];
    const endpoints = ['--endpoints', this.endpoints.join(',')];
    return run([...this.within, ...this.programs.etcdctl, ...endpoints, ...files, ...args], {
      env: { ...process.env, ETCDCTL_API: '3' },
    });
  }
}

function areStopped(pid: number): boolean {
  const folder = `/proc/${pid}/task`;
  const states = readdirSync(folder).map((task) => {
    const stat = readFileSync(join(folder, task, 'stat'), 'utf8');
    // The second field is the program's name, which may contain blanks and parentheses.
    return stat[stat.lastIndexOf(')') + 2];
  });
  return states.every((state) => state === 'T');
}
