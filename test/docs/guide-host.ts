/**
 * A machine of docs/two-hosts.md: a network namespace of the bed with folders of its own in the places that the page writes to
 * (/etc, /run, /var/lib, /opt, /root, /usr/local/bin), so that the page's commands run as they stand and change nothing of this machine.
 *
 * What cannot run in a namespace has a stand-in in /usr/local/bin, which asks the test to do its work: see STAND_INS.
 */
import type { ChildProcess } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startIn } from '../../lab/bed/child.ts';
import type { BedNetwork, HostName } from '../../lab/bed/network.ts';
import { cacheFolder } from '../../lab/cache.ts';
import type { EtcdPrograms } from '../../lab/etcd.ts';
import type { Namespace } from '../../lab/namespace.ts';
import { type RunResult, run, stopChild } from '../../lab/process.ts';
import type { QemuInstall } from '../../lab/qemu.ts';
import { ROOT } from './tables.ts';
import { type Unit, unitOf } from './unit-file.ts';

export type GuideName = HostName | 'c';

/** Commands of the page that do not run, and what is done in their place. */
export const STAND_INS: Readonly<Record<string, string>> = {
  'apt-get': "the lab's QEMU and etcd are in /usr/local/bin; the group kvm is made",
  npm: 'this checkout, which is set up, is in /opt/colo-proxy',
  scp: 'the file is copied',
  systemctl: "the unit's own commands are run; etcd with the variables of /etc/default/etcd",
};

const FOLDERS = ['run', 'var/lib', 'opt', 'root', 'usr/local/bin'];
const POLL_MS = 20;
const RUN_MS_MAX = 60_000;
/** Where the lab's cache is on a machine of the guide: readable by its user colo. */
export const CACHE = '/opt/colo-cache';

export type Peers = (address: string) => GuideHost;

export class GuideHost {
  readonly name: GuideName;
  private readonly folder: string;
  private readonly namespace: Namespace;
  private readonly peers: Peers;
  private keeper: ChildProcess | null = null;
  private readonly services = new Map<string, ChildProcess>();
  private readonly enabled: string[] = [];

  constructor(options: { name: GuideName; folder: string; network: BedNetwork; peers: Peers }) {
    this.name = options.name;
    this.folder = options.folder;
    this.namespace = options.network.of(options.name === 'c' ? 'e1' : options.name);
    this.peers = options.peers;
  }

  /** A path of this machine, as the test sees it. */
  path(path: string): string {
    return join(this.folder, path);
  }

  async open(qemu: QemuInstall, { etcd, etcdctl }: EtcdPrograms): Promise<void> {
    for (const folder of FOLDERS) mkdirSync(this.path(folder), { recursive: true });
    for (const folder of ['opt/colo-proxy', 'opt/colo-cache', 'run/asked'])
      mkdirSync(this.path(folder), { recursive: true });
    this.program('qemu-system-x86_64', shellOf(qemu.command, qemu.env));
    this.program('etcd', shellOf(etcd));
    this.program('etcdctl', shellOf(etcdctl));
    for (const name of Object.keys(STAND_INS)) this.program(name, ASK.replace('NAME', name));
    const binds = [...FOLDERS, 'etc'].map((folder) => `mount --bind ${this.path(folder)} /${folder}`);
    const script = [
      `cp -a /etc ${this.path('etc')}`,
      `mount --bind ${ROOT} ${this.path('opt/colo-proxy')}`,
      `mount --bind ${cacheFolder()} ${this.path('opt/colo-cache')}`,
      ...binds.map((bind) => bind.replace('--bind', '--rbind')),
      `hostname ${this.name}`,
      'echo ready',
      'exec sleep infinity',
    ];
    const words = ['unshare', '--mount', '--uts', 'sh', '-ec', script.join('\n')];
    const keeper = startIn(this.namespace, words, { stdio: ['ignore', 'pipe', 'inherit'] });
    this.keeper = keeper;
    await new Promise<void>((resolve, reject) => {
      keeper.stdout?.once('data', () => resolve());
      keeper.once('exit', () => reject(new Error(`the machine ${this.name} does not start`)));
    });
  }

  /** Runs a block of the page as root. */
  async run(block: string): Promise<RunResult> {
    const done = run([...this.enter(), 'sh', '-ec', block], {
      cwd: '/',
      env: { PATH: '/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', HOME: '/root' },
    });
    const ended = done.then(() => 'ended' as const);
    for (const endMs = performance.now() + RUN_MS_MAX; ; ) {
      if ((await Promise.race([ended, sleep(POLL_MS)])) === 'ended') return done;
      await this.answer();
      if (performance.now() > endMs) throw new Error(`on ${this.name}, without an end:\n${block}`);
    }
  }

  /** Kills every process of the machine at once, as when its power fails. What is in /run is gone. */
  async kill(): Promise<number[]> {
    const own = spaceOf(this.keeper?.pid ?? 0);
    if (own === null) throw new Error(`the machine ${this.name} has ended by itself`);
    // All are listed first: QEMU ends with its node.
    const doomed = readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => pid !== this.keeper?.pid && pid !== process.pid && spaceOf(pid) === own);
    for (const pid of doomed) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch {
        // It has ended with its parent.
      }
    }
    for (const child of this.services.values()) await stopChild(child);
    this.services.clear();
    await run([...this.enter(), 'rm', '-rf', '/run/colo']);
    return doomed;
  }

  /** As when the machine boots: the enabled units are started. */
  async boot(): Promise<void> {
    for (const unit of this.enabled) await this.startUnit(unit);
  }

  async close(): Promise<void> {
    if (this.keeper === null) return;
    if (this.keeper.exitCode === null && this.keeper.signalCode === null) await this.kill();
    for (const service of this.services.values()) await stopChild(service);
    await stopChild(this.keeper);
  }

  private enter(): string[] {
    const target = ['--target', String(this.keeper?.pid), '--mount', '--net', '--uts'];
    return ['setpriv', '--pdeathsig', 'KILL', 'nsenter', ...target];
  }

  private program(name: string, text: string): void {
    const path = this.path(join('usr/local/bin', name));
    writeFileSync(path, text);
    chmodSync(path, 0o755);
  }

  /** Does what the stand-ins ask for. */
  private async answer(): Promise<void> {
    const asked = this.path('run/asked');
    if (!existsSync(asked)) return;
    for (const file of readdirSync(asked).filter((name) => name.endsWith('.ask'))) {
      const [folder, name, ...args] = readFileSync(join(asked, file), 'utf8').trimEnd().split('\n');
      renameSync(join(asked, file), join(asked, `${file}ed`));
      await this.standIn(name, args, folder);
      writeFileSync(join(asked, file.replace('.ask', '.done')), '');
    }
  }

  private async standIn(name: string, args: readonly string[], folder: string): Promise<void> {
    const words = args.filter((arg) => !arg.startsWith('-'));
    if (name === 'apt-get') await run([...this.enter(), 'groupadd', '--force', '--system', 'kvm']);
    if (name === 'scp') {
      const [address, to] = (words.pop() ?? '').replace('root@', '').split(':');
      const files = words.map((file) => this.path(join(folder, file)));
      const done = await run(['cp', '-r', '--no-preserve=ownership', ...files, this.peers(address).path(to)]);
      if (done.status !== 0) throw new Error(done.stderr);
    }
    if (name !== 'systemctl') return;
    const [verb, unit] = words;
    if (verb === 'enable') this.enabled.push(unit);
    if (verb === 'restart' || args.includes('--now')) await this.startUnit(unit);
  }

  private async startUnit(name: string): Promise<void> {
    const unit = name === 'etcd' ? this.etcdUnit() : unitOf(name);
    await stopChildOf(this.services.get(name));
    for (const words of unit.before) await this.must(words, words.startsWith('-'));
    const folder = unit.runtimeDirectory;
    if (folder !== null)
      await this.must(`install -d -m 0755 /run/colo; install -d -o ${unit.user} -m 0700 /run/${folder}`);
    // A helper that opens a tap stays root: /dev/net/tun of this machine may be root's alone.
    const helper = name.startsWith('colo-uplink@');
    const user = unit.user === 'root' || helper ? [] : USER(unit.user);
    // The node, as colo, connects to the helper's socket.
    const start = helper ? `umask 0; exec ${unit.start}` : `exec ${unit.start}`;
    const words = ['setpriv', ...user, '--pdeathsig', 'KILL', 'sh', '-c', start];
    const log = this.path(`var/lib/${name}.log`);
    const redirected = ['sh', '-c', 'exec "$@" >>"$0" 2>&1', `/var/lib/${name}.log`, ...words];
    writeFileSync(log, '', { flag: 'a' });
    const child = startIn(this.namespace, [...this.enter(), ...redirected], {
      stdio: 'ignore',
      detached: true,
      cwd: '/',
    });
    this.services.set(name, child);
    for (const after of unit.after) await this.must(after);
    if (name.startsWith('colo@')) await this.untilReady(name);
  }

  /** As Type=notify: systemctl waits until the node says that it is ready. */
  private async untilReady(unit: string): Promise<void> {
    const status = [...this.enter(), '/usr/local/bin/colo', 'status', '-c', `/etc/colo/${this.name}.yaml`];
    for (const endMs = performance.now() + RUN_MS_MAX; (await run(status)).status !== 0; await sleep(POLL_MS))
      if (performance.now() > endMs) throw new Error(readFileSync(this.path(`var/lib/${unit}.log`), 'utf8'));
  }

  private async must(words: string, mayFail = false): Promise<void> {
    const command = words.replace(/^[-+]+/, '');
    const done = await run([...this.enter(), 'sh', '-ec', command], {
      cwd: '/',
      env: { PATH: '/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin' },
    });
    if (done.status !== 0 && !mayFail) throw new Error(`on ${this.name}: ${command}: ${done.stderr}`);
  }

  /** Debian's unit of etcd, in short. */
  private etcdUnit(): Unit {
    const start = 'env $(cat /etc/default/etcd) etcd';
    return { user: 'root', runtimeDirectory: null, before: [], start, after: [] };
  }
}

async function stopChildOf(child: ChildProcess | undefined): Promise<void> {
  if (child !== undefined) await stopChild(child);
}

const USER = (user: string): string[] => ['--reuid', user, '--regid', user, '--init-groups'];

/** It writes its folder, its name and its arguments, a line each, and waits until that is done. */
const ASK = `#!/bin/sh
printf '%s\\n' "$PWD" NAME "$@" > /run/asked/$$.new
mv /run/asked/$$.new /run/asked/$$.ask
until [ -e /run/asked/$$.done ]; do sleep 0.02; done
rm /run/asked/$$.done
`;

/** A script for a program of the cache. */
function shellOf(command: readonly string[], env: Readonly<Record<string, string>> = {}): string {
  const here = (text: string): string => `'${text.replaceAll(cacheFolder(), CACHE)}'`;
  const variables = Object.entries(env).map(([name, value]) => `${name}=${here(value)}`);
  return `#!/bin/sh\n${variables.map((line) => `export ${line}\n`).join('')}exec ${command.map(here).join(' ')} "$@"\n`;
}

function spaceOf(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return null;
  }
}
