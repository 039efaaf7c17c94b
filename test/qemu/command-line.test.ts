import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  buildCommandLine,
  type CommandLineOptions,
  checkUnixPath,
  frameBytesMinOf,
} from '../../src/qemu/command-line.ts';

function options(more: Partial<CommandLineOptions> = {}): CommandLineOptions {
  return {
    command: ['ld.so', '--library-path', 'lib', 'qemu-system-x86_64'],
    args: ['-machine', 'q35', '-m', '64'],
    name: 'web',
    nic: { mac: '52:54:00:12:34:56' },
    vmPort: '/run/colo/port',
    qmp: '/run/colo/qmp',
    incoming: false,
    exitWithParent: false,
    ...more,
  };
}
const after = (argv: readonly string[], option: string): string | undefined => argv[argv.indexOf(option) + 1];

test('a primary has the user machine, the NIC of the node and QMP', () => {
  assert.deepEqual(buildCommandLine(options()), [
    ...['ld.so', '--library-path', 'lib', 'qemu-system-x86_64', '-machine', 'q35', '-m', '64'],
    ...['-name', 'guest=web'],
    ...['-netdev', 'stream,id=colo0,server=on,addr.type=unix,addr.path=/run/colo/port'],
    '-device',
    'virtio-net-pci,netdev=colo0,mac=52:54:00:12:34:56,romfile=,guest_announce=off',
    ...['-qmp', 'unix:/run/colo/qmp,server=on,wait=off'],
    '-no-shutdown',
  ]);
});

test('a secondary waits for state, and ends with its node if QEMU has that option', () => {
  const argv = buildCommandLine(options({ incoming: true, exitWithParent: true }));
  assert.deepEqual(argv.slice(-4), ['-incoming', 'defer', '-run-with', 'exit-with-parent=on']);
});

test('a NIC that is not virtio has no guest_announce, and the options of the user come last', () => {
  const nic = { device: 'e1000', mac: '52:54:00:12:34:56', options: 'romfile=x.rom' };
  const argv = buildCommandLine(options({ nic }));
  assert.equal(after(argv, '-device'), 'e1000,netdev=colo0,mac=52:54:00:12:34:56,romfile=,romfile=x.rom');
});

test('a NIC that is on no PCI bus has no option ROM', () => {
  const line = (device: string) =>
    after(buildCommandLine(options({ nic: { device, mac: '52:54:00:12:34:56' } })), '-device');
  const own = 'netdev=colo0,mac=52:54:00:12:34:56';
  assert.equal(line('virtio-net-device'), `virtio-net-device,${own},guest_announce=off`);
  assert.equal(line('usb-net'), `usb-net,${own}`);
  assert.equal(line('rtl8139'), `rtl8139,${own},romfile=`);
});

test('frames have a minimum size for every NIC but virtio', () => {
  assert.equal(frameBytesMinOf({}), 0);
  for (const device of ['virtio-net-pci', 'virtio-net-device', 'virtio-net-pci-non-transitional'])
    assert.equal(frameBytesMinOf({ device }), 0, device);
  for (const device of ['rtl8139', 'e1000', 'e1000e', 'igb', 'ne2k_pci', 'pcnet', 'vmxnet3'])
    assert.equal(frameBytesMinOf({ device }), 60, device);
});

test('a comma is doubled wherever QEMU splits at it', () => {
  const argv = buildCommandLine(options({ name: 'a,b', vmPort: '/r/a,b,,c', qmp: '/r/q,' }));
  assert.equal(after(argv, '-name'), 'guest=a,,b');
  assert.match(after(argv, '-netdev') ?? '', /addr\.path=\/r\/a,,b,,,,c$/);
  assert.equal(after(argv, '-qmp'), 'unix:/r/q,,,server=on,wait=off');
});

test('a name that the user gives is not replaced', () => {
  const argv = buildCommandLine(options({ args: ['-name', 'mine'] }));
  assert.equal(argv.filter((arg) => arg === '-name').length, 1);
});

for (const arg of [
  ...['-netdev', '--netdev', '-nic', '-net', '-incoming', '-qmp', '-qmp-pretty', '-daemonize', '-preconfig'],
  ...['e1000,netdev=colo0', 'user,id=colo0', 'null-co,id=colo0,size=1'],
]) {
  test(`${arg} is refused`, () => {
    const error = { code: 'COLO_CONFIG_QEMU_ARGS', message: new RegExp(`vm.args holds ${arg}`) };
    assert.throws(() => buildCommandLine(options({ args: ['-m', '64', arg, 'x'] })), error);
  });
}

test('an argument that only resembles a refused one passes', () => {
  const args = ['-monitor', 'none', '-append', 'netdev nic', '-device', 'virtio-rng-pci,id=colo01'];
  buildCommandLine(options({ args }));
});

test('a path that does not fit into sockaddr_un is refused before QEMU truncates it', () => {
  checkUnixPath('x'.repeat(107));
  for (const path of ['x'.repeat(108), 'é'.repeat(54), '', 'a\0b']) {
    assert.throws(() => checkUnixPath(path), { code: 'COLO_CONFIG_SOCKET_PATH' });
    assert.throws(() => buildCommandLine(options({ vmPort: path })), { code: 'COLO_CONFIG_SOCKET_PATH' });
  }
});
