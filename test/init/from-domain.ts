/** From a libvirt domain to a protected pair: `colo init`, and then the very commands that it prints, on the machines of the guide. */
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { parse } from 'yaml';
import { machineMs } from '../../lab/bed/clock.ts';
import { HOSTS } from '../../lab/bed/network.ts';
import { cacheFolder } from '../../lab/cache.ts';
import { installGuest } from '../../lab/guest/image.ts';
import { installQemu } from '../../lab/qemu.ts';
import { NIC, vmArguments } from '../../lab/vm.ts';
import { CACHE, type Ground } from '../docs/ground.ts';
import { etcdReplies, type Guide, guideBlocks } from '../docs/guide.ts';
import type { GuideName } from '../docs/guide-host.ts';

const FILES = { kernel: '/var/lib/colo/vmlinuz', initrd: '/var/lib/colo/initrd' };
const INIT = [
  'colo init --libvirt /root/domain.xml --nodes a b --hosts 10.8.0.1 10.8.0.2',
  '--etcd http://10.8.0.1:2379 http://10.8.0.2:2379 http://10.8.0.11:2379',
  `--vm-addresses ${NIC.v4} --out /root/pair --json`,
].join(' ');
const SEED = 7;
/** Of clients, before and after the failure. */
const SERVED_MS = 3000;

/** The lab's guest as a domain: on q35, its NIC behind a root port. */
function domain(append: string): string {
  const text = append.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
  return `<domain type='qemu'>
  <name>web</name>
  <memory unit='MiB'>256</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>${FILES.kernel}</kernel>
    <initrd>${FILES.initrd}</initrd>
    <cmdline>${text}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <cpu mode='custom'><model>qemu64</model></cpu>
  <devices>
    <controller type='pci' index='0' model='pcie-root'/>
    <controller type='pci' index='1' model='pcie-root-port'>
      <target chassis='1' port='0x8'/>
      <address type='pci' domain='0x0000' bus='0x00' slot='0x01' function='0x0'/>
    </controller>
    <interface type='network'>
      <mac address='${NIC.mac}'/>
      <source network='default'/>
      <model type='virtio'/>
      <address type='pci' domain='0x0000' bus='0x01' slot='0x00' function='0x0'/>
    </interface>
    <serial type='pty'><target type='isa-serial' port='0'/></serial>
    <memballoon model='virtio'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
</domain>
`;
}

type Report = { next: { node: GuideName | null; commands: string[] }[]; needed: string[] };

/**
 * Goes the whole way on machines that are open and bare, kills one of the hosts, and goes on at the other. `say` hears of each command. Throws
 * unless clients were served throughout.
 */
export async function fromDomainToFailover(
  guide: Guide,
  { way, standIns }: Ground,
  say: (line: string) => void,
): Promise<void> {
  const [qemu, image] = [await installQemu(), await installGuest()];
  for (const [name, what] of Object.entries(standIns)) say(`stand-in for ${name}: ${what}`);
  const { machines, clients } = guide;
  const run = async (name: GuideName, command: string): Promise<string> => {
    const { status, stdout, stderr } = await machines[name].run(command);
    assert.equal(status, 0, `on ${name}: ${command}\n${stdout}${stderr}`);
    if (command.includes('doctor')) assert.doesNotMatch(stdout, /^PROBLEM/m);
    return stdout;
  };
  for (const { text, machines: names, title } of guideBlocks(way)) {
    if (text.includes('colo init')) break;
    if (text.includes('etcdctl')) await etcdReplies(machines.c, text);
    await Promise.all(names.map((name) => run(name, text)));
    say(`on ${title}: ${text.split('\n')[0]} ...`);
  }

  const args = vmArguments(qemu, FILES);
  writeFileSync(machines.c.path('/root/domain.xml'), domain(args[args.indexOf('-append') + 1]));
  const report = JSON.parse(await run('c', INIT)) as Report;
  say(`on c: ${INIT}`);
  assert.deepEqual(report.needed, Object.values(FILES));
  for (const name of HOSTS)
    for (const file of ['kernel', 'initrd'] as const)
      copyFileSync(image[file], machines[name].path(FILES[file]));

  for (const { node, commands } of report.next) {
    for (const command of commands) {
      // On a busy machine etcd may be electing a leader just then, and the doctor says so.
      if (command.includes('doctor')) await etcdReplies(machines[node ?? 'c'], command);
      await run(node ?? 'c', command);
      say(`on ${node ?? 'c'}: ${command}`);
    }
    // Without KVM, COLO needs the lab's remedy (docs/qemu.md): nothing else of what was written is changed.
    if (node === null)
      for (const name of HOSTS) addRemedy(machines[name].path(`etc/colo/${name}.yaml`), qemu.remedy);
  }
  await guide.until('a', 'primary', 'protected');
  await guide.until('b', 'secondary', 'protected');
  await clients.untilReady();
  await clients.start(SEED);
  await sleep(SERVED_MS);
  const fromMs = machineMs();
  const killed = await machines.a.kill();
  await guide.until('b', 'primary', 'alone');
  await sleep(SERVED_MS);
  const blackoutMs = await clients.blackoutMs(fromMs - 100, machineMs());
  const { acknowledged, lost, broken, texts } = await clients.finish();
  assert.deepEqual([lost, broken], [0, 0], texts.join('\n'));
  assert.ok(acknowledged > 0);
  say(
    `killed ${killed.length} processes of a: clients waited for ${blackoutMs.toFixed(0)} ms, ${acknowledged} replies, none lost, none broken`,
  );
}

function addRemedy(path: string, remedy: readonly string[]): void {
  const config = parse(readFileSync(path, 'utf8')) as { vm: { args: string[] } };
  config.vm.args.push(...remedy.map((word) => word.replaceAll(cacheFolder(), CACHE)));
  writeFileSync(path, JSON.stringify(config));
}
