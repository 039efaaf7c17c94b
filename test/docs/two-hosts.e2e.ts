/**
 * docs/two-hosts.md, command by command, on two hosts and a third machine in network namespaces; then all of one host dies at once,
 * and comes back. Needs root. What cannot run in a namespace has a stand-in, listed at the end of the output (guide-host.ts).
 */
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parse } from 'yaml';
import { Clients } from '../../lab/bed/clients.ts';
import { machineMs } from '../../lab/bed/clock.ts';
import { ADDRESSES, BedNetwork, HOSTS, type HostName, ip } from '../../lab/bed/network.ts';
import { installTools } from '../../lab/bed/tools.ts';
import { cacheFolder } from '../../lab/cache.ts';
import { installEtcd } from '../../lab/etcd.ts';
import { installGuest } from '../../lab/guest/image.ts';
import { removeWorkFolder, workFolder } from '../../lab/process.ts';
import { installQemu } from '../../lab/qemu.ts';
import { vmArguments } from '../../lab/vm.ts';
import type { NodeStatus } from '../../src/observe/status.ts';
import { NEEDS_ROOT } from '../namespaces.ts';
import { CACHE, GuideHost, type GuideName, STAND_INS } from './guide-host.ts';
import { openPorts } from './port-scan.ts';
import { readDoc, tableRows } from './tables.ts';

const PROTECTED_MS_MAX = 90_000;
const POLL_MS = 500;
const SEED = 7;

type Block = { readonly title: string; readonly machines: readonly GuideName[]; readonly text: string };

/** Returns the blocks of commands: the first line of each says where it is run, and after what. */
function blocksOf(page: string): Block[] {
  return [...page.matchAll(/```\n# on ([^`\n]*)\n([^`]*)```/g)].map(([, title, text]) => {
    const [machines] = title.split(/, (?=after|to )/);
    return { title, machines: machines.split(', ') as GuideName[], text };
  });
}

/** The ports of docs/security.md that a machine of the guide has open to other machines. */
function portsOfThePage(): number[] {
  const [, section] = readDoc('docs/security.md').split('\n## Ports\n');
  const rows = tableRows(section.split('\n## ')[0]);
  return rows
    .filter(([, , open]) => open === 'other machines')
    .flatMap(([port]) => port.split(', ').map(Number))
    .sort((one, other) => one - other);
}

class Guide {
  readonly folder = workFolder();
  readonly network: BedNetwork;
  readonly machines: Readonly<Record<GuideName, GuideHost>>;
  readonly clients: Clients;

  constructor(network: BedNetwork) {
    this.network = network;
    const machine = (name: GuideName): GuideHost =>
      new GuideHost({
        ...{ name, network, folder: `${this.folder}/${name}` },
        peers: (address) => this.machines[address === ADDRESSES.a ? 'a' : 'b'],
      });
    this.machines = { a: machine('a'), b: machine('b'), c: machine('c') };
    this.clients = new Clients(network.of('client'));
  }

  async open(): Promise<void> {
    const [qemu, etcd] = [await installQemu(), await installEtcd()];
    for (const machine of Object.values(this.machines)) await machine.open(qemu, etcd);
    // The page makes it.
    for (const name of HOSTS) ip(this.network.of(name), ['link del br0', 'link set lan0 down']);
  }

  /** The VM of the page needs KVM and a kernel of the reader's: the lab's guest is in its place, its files where the page has them. */
  async putVm(): Promise<void> {
    const [qemu, image] = [await installQemu(), await installGuest()];
    const files = { kernel: '/var/lib/colo/vmlinuz', initrd: '/var/lib/colo/initrd' };
    for (const name of HOSTS) {
      const machine = this.machines[name];
      for (const file of ['kernel', 'initrd'] as const) copyFileSync(image[file], machine.path(files[file]));
      const path = machine.path(`etc/colo/${name}.yaml`);
      const config = parse(readFileSync(path, 'utf8')) as { vm: { args: string[] } };
      for (const file of Object.values(files)) assert.ok(config.vm.args.includes(file));
      config.vm.args = vmArguments(qemu, files).map((word) => word.replaceAll(cacheFolder(), CACHE));
      writeFileSync(path, JSON.stringify(config));
    }
  }

  async status(name: HostName): Promise<NodeStatus | null> {
    const done = await this.machines[name].run(`colo status --json -c /etc/colo/${name}.yaml`);
    return done.status === 0 ? (JSON.parse(done.stdout) as NodeStatus) : null;
  }

  async until(name: HostName, role: 'primary' | 'secondary', phase: string): Promise<void> {
    for (const endMs = performance.now() + PROTECTED_MS_MAX; ; await sleep(POLL_MS)) {
      const status = await this.status(name);
      if (status?.role === role && status.phase === phase) return;
      assert.ok(
        performance.now() < endMs,
        `${name} is ${status?.role} ${status?.phase}, not ${role} ${phase}`,
      );
    }
  }

  async close(): Promise<void> {
    await this.clients.stop();
    for (const machine of Object.values(this.machines)) await machine.close();
    this.network.close();
    removeWorkFolder(this.folder);
  }
}

/** What a machine must print, and what to wait for before a block is run. */
function check(title: string, stdout: string): void {
  if (title === 'c' && stdout.includes('health')) assert.equal(stdout.match(/is healthy/g)?.length, 3);
  assert.doesNotMatch(stdout, /PROBLEM/);
}

async function runBlock(t: TestContext, guide: Guide, block: Block): Promise<string> {
  const done = await Promise.all(
    block.machines.map(async (name) => {
      const { status, stdout, stderr } = await guide.machines[name].run(block.text);
      assert.equal(status, 0, `on ${name}: ${block.text}\n${stdout}${stderr}`);
      check(block.title, stdout + stderr);
      return stdout;
    }),
  );
  t.diagnostic(`ran on ${block.title}: ${block.text.split('\n')[0]} ...`);
  return done.join('');
}

test('the blocks of the page say where they are run, and none is anything else', () => {
  const page = readDoc('docs/two-hosts.md');
  const fences = page.match(/^```$/gm)?.length ?? 0;
  assert.equal(fences / 2, blocksOf(page).length + 1, 'all but the drawing');
  for (const { machines } of blocksOf(page)) for (const name of machines) assert.match(name, /^[abc]$/);
});

if (NEEDS_ROOT !== false) console.log(`NOT COVERED: docs/two-hosts.md was not run: ${NEEDS_ROOT}`);

test('the page, from bare hosts to a failover and back', {
  skip: NEEDS_ROOT,
  timeout: 540_000,
}, async (t) => {
  const guide = new Guide(BedNetwork.make((await installTools()).nft));
  t.after(() => guide.close());
  await guide.open();
  for (const [name, what] of Object.entries(STAND_INS)) t.diagnostic(`stand-in for ${name}: ${what}`);
  t.diagnostic("in place of the page's kvm and kernel: the lab's guest; the uplink helper runs as root");
  const { machines, clients } = guide;
  const left = blocksOf(readDoc('docs/two-hosts.md'));
  const next = async (): Promise<string> =>
    runBlock(t, guide, left.shift() ?? assert.fail('the page has ended'));
  while (!left[0].text.includes('daemon-reload')) {
    if (left[0].text.includes('etcdctl')) await etcdReplies(machines.c, left[0].text);
    await next();
  }
  await guide.putVm();
  await next();
  await next();
  await guide.until('a', 'primary', 'alone');
  await clients.untilReady();
  await next();
  await guide.until('a', 'primary', 'protected');
  await guide.until('b', 'secondary', 'protected');
  await clients.start(SEED);
  await sleep(3000);

  await t.test('nothing is open but what docs/security.md names', async () => {
    const wanted = portsOfThePage();
    for (const name of HOSTS) {
      assert.deepEqual(await openPorts(guide.network.of('e2'), ADDRESSES[name]), wanted);
      assert.deepEqual(await openPorts(guide.network.of('client'), await linkLocal(machines[name])), []);
    }
  });

  const fromMs = machineMs();
  const killed = await machines.a.kill();
  t.diagnostic(`killed ${killed.length} processes of a at once: node, QEMU, uplink helper, etcd`);
  assert.ok(killed.length >= 4);
  await guide.until('b', 'primary', 'alone');
  const seen = await next();
  assert.match(seen, /primary, alone[\s\S]*failover\.done/);
  await sleep(3000);
  t.diagnostic(`clients waited for ${(await clients.blackoutMs(fromMs - 100, machineMs())).toFixed(0)} ms`);

  await machines.a.boot();
  await guide.until('a', 'secondary', 'protected');
  assert.match(await next(), /secondary, protected/);
  await next();
  await guide.until('a', 'primary', 'protected');
  assert.deepEqual(left, [], 'every block was run');
  const { acknowledged, lost, broken, texts } = await clients.finish();
  assert.deepEqual([lost, broken], [0, 0], texts.join('\n'));
  assert.ok(acknowledged > 0);
});

/** The members were started at once, and have to elect a leader first. */
async function etcdReplies(machine: GuideHost, block: string): Promise<void> {
  for (let tries = 0; tries < 50 && (await machine.run(block)).status !== 0; tries += 1) await sleep(POLL_MS);
}

/** The only address that a host has on the clients' network. */
async function linkLocal(machine: GuideHost): Promise<string> {
  const { stdout } = await machine.run('ip -6 -o addr show dev br0 scope link');
  const address = /inet6 (fe80[^/]*)/.exec(stdout)?.[1] ?? assert.fail(stdout);
  return `${address}%lan0`;
}
