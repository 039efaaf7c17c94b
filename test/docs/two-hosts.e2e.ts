/**
 * docs/two-hosts.md, command by command, on two hosts and a third machine in network namespaces; then all of one host dies at once,
 * and comes back. Needs root. What cannot run in a namespace has a stand-in, listed at the end of the output (ground.ts).
 */
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { parse } from 'yaml';
import { machineMs } from '../../lab/bed/clock.ts';
import { ADDRESSES, BedNetwork, HOSTS } from '../../lab/bed/network.ts';
import { installTools } from '../../lab/bed/tools.ts';
import { cacheFolder } from '../../lab/cache.ts';
import { installEtcd } from '../../lab/etcd.ts';
import { installGuest } from '../../lab/guest/image.ts';
import { installQemu } from '../../lab/qemu.ts';
import { vmArguments } from '../../lab/vm.ts';
import { NEEDS_ROOT } from '../namespaces.ts';
import { CACHE, checkoutGround } from './ground.ts';
import { type Block, etcdReplies, Guide, guideBlocks } from './guide.ts';
import type { GuideHost } from './guide-host.ts';
import { openPorts } from './port-scan.ts';
import { readDoc, tableRows } from './tables.ts';

const SEED = 7;

/** The ports of docs/security.md that a machine of the guide has open to other machines. */
function portsOfThePage(): number[] {
  const [, section] = readDoc('docs/security.md').split('\n## Ports\n');
  const rows = tableRows(section.split('\n## ')[0]);
  return rows
    .filter(([, , open]) => open === 'other machines')
    .flatMap(([port]) => port.split(', ').map(Number))
    .sort((one, other) => one - other);
}

/** What a machine must print, and what to wait for before a block is run. */
function check(title: string, stdout: string): void {
  if (title === 'c' && stdout.includes('health')) assert.equal(stdout.match(/is healthy/g)?.length, 3);
  assert.doesNotMatch(stdout, /^PROBLEM/m);
}

/** The VM of the page needs KVM and a kernel of the reader's: the lab's guest is in its place, its files where the page has them. */
async function putVm({ machines }: Guide): Promise<void> {
  const [qemu, image] = [await installQemu(), await installGuest()];
  const files = { kernel: '/var/lib/colo/vmlinuz', initrd: '/var/lib/colo/initrd' };
  for (const name of HOSTS) {
    const machine = machines[name];
    for (const file of ['kernel', 'initrd'] as const) copyFileSync(image[file], machine.path(files[file]));
    const path = machine.path(`etc/colo/${name}.yaml`);
    const config = parse(readFileSync(path, 'utf8')) as { vm: { args: string[] } };
    for (const file of Object.values(files)) assert.ok(config.vm.args.includes(file));
    config.vm.args = vmArguments(qemu, files).map((word) => word.replaceAll(cacheFolder(), CACHE));
    writeFileSync(path, JSON.stringify(config));
  }
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
  const [one, other] = [guideBlocks('from a checkout'), guideBlocks('from the package')];
  const blocks = new Set([...one, ...other].map(({ text }) => text));
  assert.equal(fences / 2, blocks.size + 1, 'all but the drawing');
  for (const { machines } of [...one, ...other]) for (const name of machines) assert.match(name, /^[abc]$/);
});

if (NEEDS_ROOT !== false) console.log(`NOT COVERED: docs/two-hosts.md was not run: ${NEEDS_ROOT}`);

test('the page, from bare hosts to a failover and back', {
  skip: NEEDS_ROOT,
  timeout: 540_000,
}, async (t) => {
  const ground = checkoutGround(await installQemu(), await installEtcd());
  const guide = new Guide(BedNetwork.make((await installTools()).nft), ground);
  t.after(() => guide.close());
  await guide.open();
  for (const [name, what] of Object.entries(ground.standIns)) t.diagnostic(`stand-in for ${name}: ${what}`);
  t.diagnostic("in place of the page's kvm and kernel: the lab's guest; the uplink helper runs as root");
  const { machines, clients } = guide;
  const left = guideBlocks(ground.way);
  const next = async (): Promise<string> =>
    runBlock(t, guide, left.shift() ?? assert.fail('the page has ended'));
  while (!left[0].text.includes('daemon-reload')) {
    if (left[0].text.includes('etcdctl')) await etcdReplies(machines.c, left[0].text);
    await next();
  }
  await putVm(guide);
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

/** The only address that a host has on the clients' network. */
async function linkLocal(machine: GuideHost): Promise<string> {
  const { stdout } = await machine.run('ip -6 -o addr show dev br0 scope link');
  const address = /inet6 (fe80[^/]*)/.exec(stdout)?.[1] ?? assert.fail(stdout);
  return `${address}%lan0`;
}
