/**
 * What `colo init` makes of a description, before a real QEMU and the real doctor: QEMU starts the machine, with its devices in their
 * slots, and the doctor finds nothing wrong with the files as they were written.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { freePort } from '../../lab/free-port.ts';
import { installGuest } from '../../lab/guest/image.ts';
import { installQemu } from '../../lab/qemu.ts';
import { examine } from '../../src/cli/doctor.ts';
import { certificatesIn } from '../../src/cli/init-certificates.ts';
import { parseNodeConfig } from '../../src/config/node-config.ts';
import { machineOfDomain } from '../../src/init/libvirt.ts';
import type { Machine } from '../../src/init/machine.ts';
import { certificateFiles, type Pair, pairFiles } from '../../src/init/pair.ts';
import { machineOfCommand } from '../../src/init/qemu-command.ts';
import { readUnits } from '../../src/init/units.ts';
import { writeAll } from '../../src/init/write.ts';
import { buildCommandLine } from '../../src/qemu/command-line.ts';
import { emptyMember, fakeEtcd } from '../pair/etcd/fake-etcd.ts';
import { tempFolder } from '../temp-folder.ts';

const qemu = await installQemu();
const guest = await installGuest();
const GOLDEN = join(import.meta.dirname, 'golden');
const NOTHING = { cpu: null, mac: null };
const QEMU_MS_MAX = 60_000;

/** The description with its files in `folder`, where they are made. */
function described(name: string, folder: string): Machine {
  const text = readFileSync(join(GOLDEN, name), 'utf8').replaceAll(
    /\/(var\/lib\/colo|srv|boot)\//g,
    `${folder}/`,
  );
  const { machine, findings } = name.endsWith('.xml')
    ? machineOfDomain(text, name, NOTHING)
    : machineOfCommand(text, name, NOTHING);
  assert.deepEqual(findings.refusals, []);
  for (const file of machine.files) {
    mkdirSync(dirname(file), { recursive: true });
    if (/vmlinuz/.test(file)) copyFileSync(guest.kernel, file);
    else writeFileSync(file, Buffer.alloc(1024 * 1024));
  }
  // This machine may have no KVM.
  const args = machine.args.map((arg) => (arg === 'kvm' ? 'tcg' : arg.replace('accel=kvm', 'accel=tcg')));
  return {
    ...machine,
    args: args.filter((arg, i) => !/kvm-pit/.test(arg) && !/kvm-pit/.test(args[i + 1] ?? '')),
  };
}

/** Returns what QEMU says of its devices: it starts. */
function startQemu(machine: Machine, folder: string): string {
  const argv = buildCommandLine({
    command: qemu.command,
    args: machine.args,
    name: 'init',
    nic: { ...machine.nic, mac: machine.mac ?? '' },
    vmPort: join(folder, 'vm.sock'),
    qmp: join(folder, 'qmp.sock'),
    incoming: false,
    exitWithParent: true,
  });
  const ask = { execute: 'human-monitor-command', arguments: { 'command-line': 'info qtree' } };
  const words = [{ execute: 'qmp_capabilities' }, ask, { execute: 'quit' }].map(
    (one) => `${JSON.stringify(one)}\n`,
  );
  const [program, ...args] = [...argv, '-S', '-qmp', 'stdio'];
  const ran = spawnSync(program, args, {
    input: words.join(''),
    encoding: 'utf8',
    env: { ...process.env, ...qemu.env },
    timeout: QEMU_MS_MAX,
  });
  assert.equal(ran.status, 0, ran.stderr);
  return ran.stdout;
}

async function writtenPair(t: TestContext, machine: Machine, out: string): Promise<Pair> {
  const pair: Pair = {
    name: 'web',
    sides: [
      { node: 'web-a', host: '127.0.0.1' },
      { node: 'web-b', host: '127.0.0.2' },
    ],
    port: await freePort(),
    etcd: await Promise.all([0, 1, 2].map(() => fakeEtcd(t, emptyMember('255')))),
    bridge: 'br0',
    vmAddresses: [],
    machine: { ...machine, mac: machine.mac ?? '' },
  };
  const certificates = await certificatesIn(out, pair, Date.now());
  await writeAll(out, [...pairFiles(pair, readUnits()), ...certificateFiles(pair, certificates)]);
  return pair;
}

const BEHIND_PORT = /bus: pci\.1\\r\\n +type PCIE\\r\\n +dev: virtio-net-pci/;
for (const [name, nic] of [
  ['domain.xml', BEHIND_PORT],
  ['command.sh', BEHIND_PORT],
  ['devices.xml', /bus: pci\.5\\r\\n +type PCI\\r\\n +dev: e1000/],
] as const)
  test(`${name}: QEMU starts what is written, and the doctor finds nothing wrong`, {
    timeout: 120_000,
  }, async (t) => {
    const folder = tempFolder(t);
    const machine = described(name, folder);
    const tree = startQemu(machine, folder);
    // The NIC behind the port where it was.
    assert.match(tree, nic);
    const out = join(folder, 'out');
    const pair = await writtenPair(t, machine, out);
    const kvm = join(folder, 'kvm');
    writeFileSync(kvm, '');
    for (const { node } of pair.sides) {
      const file = join(out, `${node}/etc/colo/${node}.yaml`);
      const text = readFileSync(file, 'utf8').replaceAll(/\/(run|var\/lib)\/colo\//g, `${folder}/`);
      const config = parseNodeConfig(text, file);
      const uplink = createServer();
      mkdirSync(join(folder, `${node}-uplink`));
      await new Promise<void>((resolve) =>
        uplink.listen(join(folder, `${node}-uplink/uplink.sock`), resolve),
      );
      const vm = { ...config.vm, command: qemu.command, env: qemu.env };
      const checks = await examine({ ...config, vm }, kvm);
      uplink.close();
      // Not what this machine is like: its emulation, and its bridges.
      const own = checks.filter(({ name: of, advice }) => advice !== '' && of !== 'bridge filter');
      assert.deepEqual(own, []);
    }
  });
