/** `vm.disks` in a node's YAML file: what it becomes, and what is refused with its place. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseNodeConfig } from '../../src/config/node-config.ts';
import { ColoError } from '../../src/error.ts';

const GOOD = `node: a
pair: web
link: { listen: "unix-listen:a.link", peer: "tcp:[::1]:7001" }
uplink: unix:/run/hub.sock
arbiter: { directory: arbiter }
runDirectory: run
vm:
  args: [-m, '512', -cdrom, /iso/cd.iso]
  mac: 52:54:00:AB:34:56
  addresses: []
  disks:
    - { id: root, image: images/root.qcow2, format: qcow2 }
    - id: data
      image: /data/data.raw
      format: raw
`;

function parse(text: string) {
  return parseNodeConfig(text, '/etc/colo/a.yaml');
}
/** Returns the line of the error, "CODE LINE:COLUMN: text". */
function complaint(text: string): string {
  try {
    parse(text);
  } catch (error) {
    assert.ok(error instanceof ColoError, String(error));
    return `${error.code} ${error.message.replace('/etc/colo/a.yaml:', '')}`;
  }
  return 'accepted';
}

test('disks get defaults and absolute paths, and their overlays lie beside the image', () => {
  assert.deepEqual(parse(GOOD).vm.disks, [
    {
      id: 'root',
      image: '/etc/colo/images/root.qcow2',
      format: 'qcow2',
      device: 'virtio-blk-pci',
      cache: 'writeback',
      overlayDirectory: '/etc/colo/images',
    },
    {
      id: 'data',
      image: '/data/data.raw',
      format: 'raw',
      device: 'virtio-blk-pci',
      cache: 'writeback',
      overlayDirectory: '/data',
    },
  ]);
  const more =
    '      cache: none\n      overlayDirectory: scratch\n      device: virtio-blk-pci,bootindex=0\n';
  const [, data] = parse(GOOD + more).vm.disks;
  assert.equal(data.cache, 'none');
  assert.equal(data.overlayDirectory, '/etc/colo/scratch');
  assert.equal(data.device, 'virtio-blk-pci,bootindex=0');
});

test('a VM without disks has none', () => {
  assert.deepEqual(parse(GOOD.slice(0, GOOD.indexOf('  disks:'))).vm.disks, []);
});

const REFUSED: [what: string, from: string, to: string, line: string][] = [
  [
    'an id that no channel can have',
    'id: data',
    'id: Data',
    'COLO_CONFIG_VALUE 13:11: vm.disks.1.id: "Data": use 1 to 31 lower-case letters, digits, "_" or "-"',
  ],
  [
    'two disks of one id',
    'id: data',
    'id: root',
    'COLO_CONFIG_CONFLICT 13:11: two disks have the id "root"; give each its own',
  ],
  [
    'two disks on one image, written differently',
    '/data/data.raw',
    'images/../images/root.qcow2',
    'COLO_CONFIG_CONFLICT 14:14: the disks "root" and "data" have one image; give each its own',
  ],
  [
    'a format that is not replicated',
    'format: raw',
    'format: vmdk',
    'COLO_CONFIG_VALUE 15:15: vm.disks.1.format: "vmdk" is not allowed; choose raw or qcow2',
  ],
  [
    'a disk without a format, which is never guessed',
    '      format: raw\n',
    '',
    'COLO_CONFIG_MISSING_KEY 13:7: key "vm.disks.1.format" is missing; add it',
  ],
  [
    'an unknown key',
    'format: raw',
    'format: raw\n      readonly: true',
    'COLO_CONFIG_UNKNOWN_KEY 16:7: unknown key "readonly" in vm.disks.1; known here: id, image, format, device, cache, overlayDirectory',
  ],
  [
    'a cache mode that loses flushed data',
    'format: raw',
    'format: raw\n      cache: unsafe',
    'COLO_CONFIG_VALUE 16:14: vm.disks.1.cache: "unsafe" is not allowed; choose writeback or none',
  ],
  [
    'a device that is connected to another image',
    'format: raw',
    'format: raw\n      device: virtio-blk-pci,drive=x',
    'COLO_CONFIG_QEMU_ARGS 16:15: vm.disks.1.device holds drive=x: the node connects the disk to its image. Remove it',
  ],
  [
    'a device that hides write errors',
    'format: raw',
    'format: raw\n      device: virtio-blk-pci,werror=ignore',
    'COLO_CONFIG_QEMU_ARGS 16:15: vm.disks.1.device holds werror=ignore: the guest would take a lost write for a written one. Remove it',
  ],
  [
    'a device in JSON',
    'format: raw',
    `format: raw\n      device: '{"driver":"virtio-blk-pci"}'`,
    'COLO_CONFIG_QEMU_ARGS 16:15: vm.disks.1.device holds {"driver":"virtio-blk-pci"}: write a QEMU device and its properties, as in virtio-blk-pci,bootindex=0',
  ],
  [
    'an argument with the name of a block node of the node',
    '/iso/cd.iso',
    '/iso/cd.iso, -device, "virtio-blk-pci,drive=colo-disk0"',
    'COLO_CONFIG_QEMU_ARGS 8:51: vm.args holds virtio-blk-pci,drive=colo-disk0: the name colo-disk0 belongs to the node, for vm.disks. Choose another one',
  ],
  [
    'a second writer of an image',
    '/iso/cd.iso',
    '/iso/cd.iso, -drive, "if=virtio,format=raw,file=/data/data.raw"',
    'COLO_CONFIG_QEMU_ARGS 8:50: vm.args holds if=virtio,format=raw,file=/data/data.raw: the image of disk data belongs to the node, and two writers destroy it. Remove it',
  ],
  [
    'a second writer of an image whose path is relative in the file',
    '/iso/cd.iso',
    '/iso/cd.iso, -hda, /etc/colo/images/root.qcow2',
    'COLO_CONFIG_QEMU_ARGS 8:48: vm.args holds /etc/colo/images/root.qcow2: the image of disk root belongs to the node, and two writers destroy it. Remove it',
  ],
];

for (const [what, from, to, line] of REFUSED)
  test(`${what} is refused with its place`, () => {
    assert.ok(GOOD.includes(from));
    assert.equal(complaint(GOOD.replace(from, to)), line);
  });
