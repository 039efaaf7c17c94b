import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Disk } from '../../src/disk/disk.ts';
import { diskNodes } from '../../src/disk/nodes.ts';
import { buildCommandLine } from '../../src/qemu/command-line.ts';
import {
  diskArguments,
  diskDeviceProblem,
  ownDiskName,
  secondUserOf,
  writtenDiskOf,
} from '../../src/qemu/disk-arguments.ts';

const RAW: Disk = {
  id: 'data',
  image: '/images/a,b.raw',
  format: 'raw',
  device: 'virtio-blk-pci',
  cache: 'writeback',
  overlayDirectory: '/images',
};
const QCOW2: Disk = {
  ...RAW,
  id: 'root',
  image: '/images/root.qcow2',
  format: 'qcow2',
  device: 'scsi-hd,bootindex=0',
  cache: 'none',
};

test('each disk is a quorum of its image alone, and a device on it', () => {
  const [parent, quorum, device, ...rest] = diskArguments([RAW]).filter((_, place) => place % 2 === 1);
  assert.deepEqual(rest, []);
  assert.deepEqual(JSON.parse(parent), {
    driver: 'raw',
    'node-name': 'colo-parent0',
    file: { driver: 'file', 'node-name': 'colo-parent0-file', filename: '/images/a,b.raw' },
  });
  assert.deepEqual(JSON.parse(quorum), {
    driver: 'quorum',
    'node-name': 'colo-disk0',
    'read-pattern': 'fifo',
    'vote-threshold': 1,
    children: ['colo-parent0'],
  });
  assert.equal(device, 'virtio-blk-pci,drive=colo-disk0,id=colo-device0');
});

test('a second disk has names of its own, its own device, and O_DIRECT on both of its nodes', () => {
  const args = diskArguments([RAW, QCOW2]);
  assert.deepEqual(args.filter((_, place) => place % 2 === 0).slice(3), [
    '-blockdev',
    '-blockdev',
    '-device',
  ]);
  assert.deepEqual(JSON.parse(args[7]), {
    driver: 'qcow2',
    'node-name': 'colo-parent1',
    cache: { direct: true },
    file: {
      driver: 'file',
      'node-name': 'colo-parent1-file',
      filename: '/images/root.qcow2',
      cache: { direct: true },
    },
  });
  assert.equal(args[11], 'scsi-hd,bootindex=0,drive=colo-disk1,id=colo-device1');
});

const LINE = {
  command: ['qemu-system-x86_64'],
  args: ['-m', '64'],
  name: 'web',
  nic: { mac: '52:54:00:12:34:56' },
  vmPort: '/run/colo/port',
  qmp: '/run/colo/qmp',
  exitWithParent: false,
} as const;

test('a VM that waits for state has the same disks as one that boots, after its NIC', () => {
  const boots = buildCommandLine({ ...LINE, incoming: false, disks: [RAW, QCOW2] });
  const waits = buildCommandLine({ ...LINE, incoming: true, disks: [RAW, QCOW2] });
  assert.deepEqual(
    waits.filter((arg) => arg !== '-incoming' && arg !== 'defer'),
    boots,
  );
  assert.ok(boots.indexOf('-netdev') < boots.indexOf('-blockdev'));
  assert.deepEqual(
    buildCommandLine({ ...LINE, incoming: false }),
    buildCommandLine({ ...LINE, incoming: false, disks: [] }),
  );
});

test('a command line with a second user of an image is not built', () => {
  const args = ['-blockdev', '{"driver":"file","node-name":"x","filename":"/images/a,b.raw"}'];
  assert.throws(() => buildCommandLine({ ...LINE, args, incoming: false, disks: [RAW] }), {
    code: 'COLO_CONFIG_QEMU_ARGS',
  });
});

test('every name of the node is known as its own, and QEMU takes each', () => {
  for (const place of [0, 15])
    for (const name of Object.values(diskNodes(place))) {
      assert.equal(ownDiskName(`driver=raw,node-name=${name}`), name);
      assert.equal(ownDiskName(`{"node-name":"${name}","driver":"raw"}`), name);
      assert.ok(name.length <= 31, name);
    }
  for (const other of ['colo-disk', 'colo-disks0', 'colo-disk0-mine', 'colo-disk0x', 'disk0'])
    assert.equal(ownDiskName(`node-name=${other}`), null, other);
});

test('an image is found in every way to write a file', () => {
  const ways = [
    'file=/images/a,,b.raw,format=raw',
    'format=raw,file.filename=/images/a,,b.raw',
    'file=file:/images/a,,b.raw',
    '/images/./a,,b.raw',
    '{"driver":"raw","file":{"driver":"file","filename":"/images/a,b.raw"}}',
    'json:{"driver":"raw","file":{"filename":"/images/../images/a,b.raw"}}',
  ];
  const found = (args: string[], command: string[]) => secondUserOf({ args, command }, [QCOW2, RAW]);
  for (const way of ways) {
    const why = `the image of disk ${RAW.id} belongs to the node, and two writers destroy it. Remove it`;
    const inArgs = { path: ['args', 1], text: `vm.args holds ${way}: ${why}` };
    assert.deepEqual(found(['-drive', way], ['qemu-system-x86_64']), inArgs);
    const inCommand = { path: ['command', 2], text: `vm.command holds ${way}: ${why}` };
    assert.deepEqual(found([], ['/usr/bin/qemu-system-x86_64', '-drive', way]), inCommand);
    assert.equal(found([], ['wrapper', way, 'qemu-system-x86_64']), null, 'that is not QEMU');
  }
  for (const way of ['file=/images/a,,b.raw.old', '{"filename":"/images/ab.raw"}', '{"broken', 'on', '-m'])
    assert.equal(found([way], []), null, way);
});

test('a device may have any property but those that the node sets, or that hide errors', () => {
  for (const good of [
    'virtio-blk-pci',
    'scsi-hd,bus=s.0,bootindex=1',
    'virtio-blk-pci,werror=stop,share-rw=off',
  ])
    assert.equal(diskDeviceProblem(good), null, good);
  for (const bad of [
    '',
    'virtio-blk-pci,id=x',
    'virtio-blk-pci,driver=nvme',
    'virtio-blk-pci,share-rw=on',
    'virtio-blk-pci,share-rw',
    'virtio-blk-pci,rerror=ignore',
  ])
    assert.notEqual(diskDeviceProblem(bad), null, bad);
});

test('a disk of the user to which the guest writes is noticed', () => {
  for (const args of [
    ['-m', '64', '-hda', '/a.img'],
    ['--drive', 'file=/a.img,if=virtio'],
    ['-drive', 'file=/readonly=on.img'],
    ['-sd', '/a.img'],
  ])
    assert.equal(writtenDiskOf(args), args.slice(-2).join(' '));
  for (const args of [
    [],
    ['-cdrom', '/a.iso'],
    ['-drive', 'file=/a.img,readonly=on'],
    ['-drive', 'file=/a.img,read-only=on'],
    ['-drive', 'media=cdrom,file=/a.iso'],
    ['-drive', 'if=pflash,format=raw,readonly=on,file=/code.fd'],
    ['-drive'],
  ])
    assert.equal(writtenDiskOf(args), null, args.join(' '));
});
