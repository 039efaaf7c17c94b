/** The files of a pair: what is written is what a node's own loader reads. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { differingKeys, parseNodeConfig } from '../../src/config/node-config.ts';
import { nextSteps } from '../../src/init/next-steps.ts';
import { type Pair, type PlannedFile, pairFiles } from '../../src/init/pair.ts';
import { plainMachine } from '../../src/init/plain-machine.ts';
import { readUnits } from '../../src/init/units.ts';

const MAC = '52:54:00:C0:10:01';
const { machine } = plainMachine({
  memoryMb: 512,
  processors: 1,
  cpu: 'Haswell,vmx=off',
  mac: MAC,
  kernel: '/var/lib/colo/vm linuz',
  initrd: '/var/lib/colo/initrd',
  append: 'root=/dev/vda quiet: "yes" #1 \u00e9',
  image: '/var/lib/colo/a,b.img',
});
const PAIR: Pair = {
  name: 'web',
  sides: [
    { node: 'web-a', host: '10.8.0.1' },
    { node: 'web-b', host: 'fd00::2' },
  ],
  port: 7000,
  etcd: ['http://10.8.0.1:2379', 'http://10.8.0.2:2379', 'http://10.8.0.11:2379'],
  bridge: 'br0',
  vmAddresses: ['10.0.2.15', 'fd00::15'],
  machine: { ...machine, mac: MAC },
};
const textOf = (files: readonly PlannedFile[], path: string): string =>
  files.find((file) => file.path === path)?.text ??
  assert.fail(`${path} is not among ${files.map((file) => file.path).join(', ')}`);

test('both nodes read what is written, and differ in nothing but what is their own', () => {
  const files = pairFiles(PAIR, readUnits());
  const [a, b] = ['web-a', 'web-b'].map((node) =>
    parseNodeConfig(textOf(files, `${node}/etc/colo/${node}.yaml`), `/etc/colo/${node}.yaml`),
  );
  assert.deepEqual(a.vm.args, machine.args);
  assert.equal(a.vm.mac, MAC.toLowerCase());
  assert.deepEqual(a.vm.addresses, PAIR.vmAddresses);
  assert.deepEqual(a.vm.nic, { device: 'virtio-net-pci', options: 'rx_queue_size=1024' });
  assert.deepEqual(a.link.listen, { kind: 'tcp', mode: 'listen', host: '10.8.0.1', port: 7000 });
  assert.deepEqual(a.link.peer, { kind: 'tcp', mode: 'connect', host: 'fd00::2', port: 7000 });
  assert.equal(a.link.tls?.key, '/etc/colo/web-a/node.key');
  assert.deepEqual(a.arbiter.kind === 'etcd' && a.arbiter.etcd.endpoints, PAIR.etcd);
  assert.deepEqual(differingKeys(a, b).toSorted(), [
    'eventLog',
    'link.listen',
    'link.peer',
    'link.tls.ca',
    'link.tls.certificate',
    'link.tls.key',
    'node',
    'runDirectory',
    'uplink.socket',
  ]);
});

test('the units are those of the project, and another bridge is a drop-in', () => {
  const units = readUnits();
  const files = pairFiles(PAIR, units);
  for (const { name, text } of units.files)
    assert.equal(textOf(files, `web-b/etc/systemd/system/${name}`), text);
  assert.ok(!files.some(({ path }) => path.includes('.service.d')));
  const dropIn = textOf(
    pairFiles({ ...PAIR, bridge: 'lan' }, units),
    'web-a/etc/systemd/system/colo-uplink@web-a.service.d/bridge.conf',
  );
  assert.match(dropIn, /^ExecStartPre=$/m);
  assert.match(dropIn, /^ExecStartPre=\+\/usr\/sbin\/ip link set colo-%i down master lan$/m);
  assert.match(dropIn, /^ExecStartPre=-\+\/usr\/sbin\/ip tuntap add dev colo-%i /m);
  assert.doesNotMatch(dropIn, /br0/);
});

test('a Debian package has its own units, and only the drop-in is written beside them', () => {
  const files = pairFiles({ ...PAIR, bridge: 'lan' }, { ...readUnits(), from: 'package' });
  assert.deepEqual(
    files.map(({ path }) => path).filter((path) => path.includes('systemd')),
    ['web-a', 'web-b'].map((node) => `${node}/etc/systemd/system/colo-uplink@${node}.service.d/bridge.conf`),
  );
});

test('what a node would refuse is refused before anything is written', () => {
  assert.throws(() => pairFiles({ ...PAIR, etcd: ['http://10.8.0.1'] }, readUnits()), {
    code: 'COLO_CONFIG_ENDPOINT',
  });
});

test('scp takes no folder for a host or an option', () => {
  const [{ commands }] = nextSteps(PAIR, 'web:1');
  assert.ok(commands.includes('scp -r ./web:1/web-a/etc root@10.8.0.1:/'), commands[0]);
  assert.match(nextSteps(PAIR, '-web')[0].commands[0], /^scp -r \.\/-web\/web-a/);
  assert.match(nextSteps(PAIR, '/a:b')[0].commands[0], /^scp -r \/a:b\/web-a/);
});

test('a VM of a few options may not block migration either', () => {
  const { findings } = plainMachine({
    ...{ memoryMb: 512, processors: 1, cpu: 'Haswell,+invtsc', mac: MAC },
    ...{ kernel: '/k', initrd: null, append: null, image: null },
  });
  assert.deepEqual(
    findings.refusals.map(({ kind }) => kind),
    ['cpu-blocks'],
  );
});

test('the next steps name each host, and a folder with spaces is quoted', () => {
  const steps = nextSteps(PAIR, "my 'web'");
  const all = steps.flatMap(({ commands }) => commands);
  assert.ok(all.includes(`scp -r 'my '\\''web'\\''/web-a/etc' root@10.8.0.1:/`), all[0]);
  assert.ok(
    all.some((command) => command.endsWith('root@[fd00::2]:/')),
    'IPv6 in brackets',
  );
  for (const node of ['web-a', 'web-b'])
    for (const command of [
      `systemctl enable --now colo-uplink@${node}`,
      `systemctl enable --now colo@${node}`,
    ])
      assert.ok(all.includes(command), command);
  // A second VM with its addresses would be on the network.
  assert.match(
    steps.find(({ commands }) => commands[0].endsWith('colo@web-a'))?.why ?? '',
    /runs nowhere else/,
  );
  assert.ok(all.indexOf('systemctl enable --now colo@web-a') > all.lastIndexOf('systemctl daemon-reload'));
});
