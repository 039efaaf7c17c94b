import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseNodeConfig } from '../../src/config/node-config.ts';
import { argumentProblem, commandProblem, nicOptionsProblem } from '../../src/qemu/user-arguments.ts';

const NIC = 'virtio-net-pci';

test('options of the NIC that contradict the node are refused, however they are written', () => {
  for (const options of [
    'mq=on',
    'mq',
    'mq=true',
    'rx_queue_size=1024,mq=on',
    'mac=52:54:00:00:00:01',
    'romfile=a,,b,mac=52:54:00:00:00:01',
    'netdev=other',
    'guest_announce=on',
    'guest_announce',
    'failover=on',
    'driver=e1000',
    ' mq = on',
  ])
    assert.ok(nicOptionsProblem(options) !== null, options);
});

test('other options of the NIC pass, and those that say again what the node says', () => {
  for (const options of [
    '',
    'rx_queue_size=1024',
    'romfile=',
    'romfile=x,,mq=on.rom',
    'mq=off,guest_announce=off,failover=no',
    'bus=pci.1,addr=0x5',
    'host_mtu=1500',
    'mqx=on',
  ])
    assert.equal(nicOptionsProblem(options), null, options);
});

test('arguments that take something away from the node are refused, with their place', () => {
  for (const [args, index] of [
    [['-m', '64', '-S'], 2],
    [['--nic', 'user'], 0],
    [['-loadvm', 'x'], 0],
    [['-readconfig', 'vm.cfg'], 0],
    [['-run-with', 'exit-with-parent=off'], 1],
    [['-run-with', 'chroot=/x,exit-with-parent=no'], 1],
    [['-global', 'virtio-net-pci.mq=on'], 1],
    [['-global', 'virtio-net-device.guest_announce=on'], 1],
    [['-global', 'driver=virtio-net-pci,property=mac,value=52:54:00:00:00:01'], 1],
    [['-global', 'migration.multifd=on'], 1],
    [['-set', 'device.colo0.mq=on'], 1],
    [['-object', 'filter-dump,id=f,netdev=colo0,file=x'], 1],
    [['-device', '{"driver":"e1000","netdev":"colo0"}'], 1],
    [['-device', '{"driver": "e1000", "id" : "colo0"}'], 1],
  ] as [string[], number][])
    assert.equal(argumentProblem(args, NIC)?.index, index, args.join(' '));
});

test('arguments that only resemble them pass', () => {
  for (const args of [
    ['-append', 'net nic -netdevx'],
    ['-s', '-serial', 'null'],
    ['-global', 'virtio-blk-pci.mq=on'],
    ['-global', 'e1000.mac=52:54:00:00:00:01'],
    ['-global', 'virtio-net-pci.mq=off'],
    ['-run-with', 'exit-with-parent=on'],
    ['-set', 'device.disk0.serial=1'],
  ])
    assert.equal(argumentProblem(args, NIC), null, args.join(' '));
});

test('of vm.command only what QEMU gets counts', () => {
  assert.equal(commandProblem(['unshare', '--net', '/usr/bin/qemu-system-x86_64'], NIC), null);
  assert.equal(commandProblem(['sudo', '-S', 'qemu-system-x86_64', '-nic', 'user'], NIC)?.index, 3);
  assert.equal(commandProblem(['/opt/vm.sh', '-nic', 'user'], NIC), null);
});

test('the configuration is refused at the place of the option', () => {
  const text = (args: string, nic: string) => `node: a
pair: web
link: {listen: "unix-listen:a.link", peer: "unix:b.link"}
uplink: unix:hub.sock
arbiter: {directory: arbiter}
vm:
  args: ${args}
  mac: "52:54:00:12:34:56"
  addresses: []
  nic:
    options: ${nic}
runDirectory: run
`;
  const code = 'COLO_CONFIG_QEMU_ARGS';
  assert.throws(() => parseNodeConfig(text('[-m, "64", -nic, user]', 'romfile='), '/a.yaml'), {
    code,
    message: /^\/a\.yaml:7:20: vm\.args holds -nic: the node adds the VM's only NIC/,
  });
  assert.throws(() => parseNodeConfig(text('[]', 'rx_queue_size=256,mq=on'), '/a.yaml'), {
    code,
    message: /^\/a\.yaml:11:14: vm\.nic\.options holds mq=on: the node has one queue per VM/,
  });
});
