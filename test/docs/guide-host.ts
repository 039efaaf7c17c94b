/**
 * A machine of docs/two-hosts.md: a network namespace of the bed with a file system of its own (ground.ts), so that the page's commands
 * run as they stand and change nothing of this machine.
 *
 * What cannot run in a namespace has a stand-in in /usr/local/bin, which asks the test to do its work: see Ground.standIns.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
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
import type { Namespace } from '../../lab/namespace.ts';
import { type RunResult, run, stopChild } from '../../lab/process.ts';
import type { Ground } from './ground.ts';

export type GuideName = HostName | 'c';

const POLL_MS = 20;
/** Of a block, without what its stand-ins do. */
const RUN_MS_MAX = 60_000;
/** As systemd has it. */
const PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';
/** TimeoutStopSec of the unit. */
const STOP_MS_MAX = 10_000;
const ENV = { PATH, HOME: '/root' };

export type Peers = (address: string) => GuideHost;

export class GuideHost {
  readonly name: GuideName;
  private readonly folder: string;
  private readonly namespace: Namespace;
  private readonly peers: Peers;
  private readonly ground: Ground;
  private keeper: ChildProcess | null = null;
  private readonly services = new Map<string, ChildProcess>();
  private readonly enabled: string[] = [];

  constructor(options: {
    name: GuideName;
    folder: string;
    network: BedNetwork;
    peers: Peers;
    ground: Ground;
  }) {
    this.name = options.name;
    this.folder = options.folder;
    this.namespace = options.network.of(options.name === 'c' ? 'e1' : options.name);
    this.peers = options.peers;
    this.ground = options.ground;
  }

  /** A path of this machine, as the test sees it. */
  path(path: string): string {
    return join(`/proc/${this.keeper?.pid}/root`, path);
  }

  async open(): Promise<void> {
    mkdirSync(this.folder);
    const { script, root } = this.ground.lay(this.folder);
    const stay = `exec chroot ${root} sh -c 'echo ready; exec sleep infinity'`;
    const lines = [...script, `hostname ${this.name}`, stay];
    const words = ['unshare', '--mount', '--uts', 'sh', '-ec', lines.join('\n')];
    const keeper = startIn(this.namespace, words, { stdio: ['ignore', 'pipe', 'inherit'], cwd: '/' });
    this.keeper = keeper;
    await new Promise<void>((resolve, reject) => {
      keeper.stdout?.once('data', () => resolve());
      keeper.once('exit', () => reject(new Error(`the machine ${this.name} does not start`)));
    });
  }

  /** Runs a block of the page as root. */
  async run(block: string): Promise<RunResult> {
    const done = run([...this.enter(), 'sh', '-ec', block], { cwd: '/', env: ENV });
    const ended = done.then(() => 'ended' as const);
    for (let endMs = performance.now() + RUN_MS_MAX; ; ) {
      if ((await Promise.race([ended, sleep(POLL_MS)])) === 'ended') return done;
      const askedMs = performance.now();
      await this.answer();
      endMs += performance.now() - askedMs;
      if (performance.now() > endMs) throw new Error(`on ${this.name}, without an end:\n${block}`);
    }
  }

  /** Returns the numbers of all processes of the machine. */
  left(): number[] {
    const own = spaceOf(this.keeper?.pid ?? 0);
    if (own === null) throw new Error(`the machine ${this.name} has ended by itself`);
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => pid !== this.keeper?.pid && pid !== process.pid && spaceOf(pid) === own);
  }

  /** Kills every process of the machine at once, as when its power fails. What is in /run is gone. */
  async kill(): Promise<number[]> {
    // All are listed first: QEMU ends with its node.
    const doomed = this.left();
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
    return [...this.enterFiles(), '--net'];
  }

  /** On the machine's files, in this machine's network. */
  private enterFiles(): string[] {
    const target = ['--target', String(this.keeper?.pid), '--mount', '--uts', '--root', '--wd'];
    return ['setpriv', '--pdeathsig', 'KILL', 'nsenter', ...target];
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
    if (name === 'apt-get') await this.succeeds([...this.enterFiles(), ...this.ground.aptGet(args)]);
    if (name === 'scp') {
      const [address, to] = (words.pop() ?? '').replace('root@', '').split(':');
      const files = words.map((file) => this.path(join(folder, file)));
      await this.succeeds(['cp', '-r', '--no-preserve=ownership', ...files, this.peers(address).path(to)]);
    }
    if (name !== 'systemctl') return;
    const [verb, ...units] = words;
    if (verb === 'enable') this.enabled.push(units[0]);
    if (verb === 'restart' || args.includes('--now')) await this.startUnit(units[0]);
    if (verb === 'stop') for (const unit of units) await this.stopUnits(unit.replace(/\*?\.service$/, ''));
  }

  private async startUnit(name: string): Promise<void> {
    const unit = this.ground.unit(name, this.name, (path) => readFileSync(this.path(path), 'utf8'));
    await this.stopUnits(name);
    for (const words of unit.before) await this.must(words, words.startsWith('-'));
    const folder = unit.runtimeDirectory;
    if (folder !== null)
      await this.must(`install -d -m 0755 /run/colo; install -d -o ${unit.user} -m 0700 /run/${folder}`);
    const user = unit.user === 'root' || unit.asRoot ? [] : USER(unit.user);
    const words = ['setpriv', ...user, '--pdeathsig', 'KILL', 'sh', '-c', unit.start];
    const log = `/var/lib/${name}.log`;
    writeFileSync(this.path(log), '', { flag: 'a' });
    const redirected = ['sh', '-c', 'exec "$@" >>"$0" 2>&1', log, ...words];
    const child = startIn(this.namespace, [...this.enter(), ...redirected], {
      stdio: 'ignore',
      detached: true,
      cwd: '/',
      env: ENV,
    });
    this.services.set(name, child);
    for (const after of unit.after) await this.must(after);
    if (name.startsWith('colo@')) await this.untilReady(name);
  }

  /** In order, as systemd does with those whose names begin so. */
  private async stopUnits(start: string): Promise<void> {
    for (const [name, child] of [...this.services].filter(([name]) => name.startsWith(start))) {
      const isGone = child.exitCode !== null || child.signalCode !== null;
      if (!isGone && child.kill('SIGTERM'))
        await once(child, 'exit', { signal: AbortSignal.timeout(STOP_MS_MAX) });
      this.services.delete(name);
    }
  }

  /** As Type=notify: systemctl waits until the node says that it is ready. */
  private async untilReady(unit: string): Promise<void> {
    const status = [...this.enter(), 'sh', '-c', `colo status -c /etc/colo/${this.name}.yaml`];
    const look = (): Promise<RunResult> => run(status, { cwd: '/', env: ENV });
    for (const endMs = performance.now() + RUN_MS_MAX; (await look()).status !== 0; await sleep(POLL_MS))
      if (performance.now() > endMs) throw new Error(readFileSync(this.path(`/var/lib/${unit}.log`), 'utf8'));
  }

  private async must(words: string, mayFail = false): Promise<void> {
    const command = [...this.enter(), 'sh', '-ec', words.replace(/^[-+]+/, '')];
    if (mayFail) await run(command, { cwd: '/', env: ENV });
    else await this.succeeds(command);
  }

  private async succeeds(words: readonly string[]): Promise<void> {
    const { status, stdout, stderr } = await run(words, { cwd: '/', env: ENV });
    if (status !== 0) throw new Error(`on ${this.name}: ${words.join(' ')}: ${stdout}${stderr}`);
  }
}

const USER = (user: string): string[] => ['--reuid', user, '--regid', user, '--init-groups'];

function spaceOf(pid: number): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return null;
  }
}
