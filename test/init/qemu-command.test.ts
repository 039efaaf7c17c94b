/** Command lines of QEMU: what each refusal is for, and what a machine that can be protected becomes. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Described, Given } from '../../src/init/machine.ts';
import { machineOfCommand } from '../../src/init/qemu-command.ts';
import type { ChangeKind, RefusalKind } from '../../src/init/reasons.ts';

const GOLDEN = readFileSync(join(import.meta.dirname, 'golden/command.sh'), 'utf8');
const NOTHING: Given = { cpu: null, mac: null };
const BASE = 'qemu-system-x86_64 -machine q35,accel=kvm -cpu Haswell -m 512 -kernel /boot/k';
const NIC = '-netdev tap,id=n -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:01';

const BELOW =
  '-blockdev driver=file,filename=/a,node-name=a -blockdev driver=raw,file=a,node-name=b,read-only=on';

const read = (text: string, given: Given = NOTHING): Described => machineOfCommand(text, 'vm.sh', given);
const kinds = (text: string, given?: Given): RefusalKind[] =>
  read(text, given).findings.refusals.map(({ kind }) => kind);

const TABLE: readonly (readonly [string, RefusalKind])[] = [
  ['', 'nic-none'],
  ['-nic none', 'nic-none'],
  [`${NIC} -device e1000,netdev=m,mac=52:54:00:00:00:02 -netdev user,id=m`, 'nic-several'],
  ['-nic user,mac=52:54:00:00:00:01 -nic user,mac=52:54:00:00:00:02', 'nic-several'],
  ['-net nic,macaddr=52:54:00:00:00:01 -net user -nic tap,mac=52:54:00:00:00:02', 'nic-several'],
  ['-netdev tap,id=n -device virtio-net-pci,netdev=n', 'nic-mac'],
  ['-nic user', 'nic-mac'],
  ['-netdev vhost-vdpa,id=n -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:01', 'nic-passthrough'],
  ['-netdev tap,id=n -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:01,failover=on', 'nic-passthrough'],
  ['-netdev tap,id=n,vhost=on -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:01', 'vhost'],
  [
    `-netdev '{"type":"tap","id":"n","vhost":true}' -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:01`,
    'vhost',
  ],
  ['-netdev tap,id=n,vhostfd=7 -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:01', 'vhost'],
  [
    '-chardev socket,id=c,path=/x -netdev vhost-user,id=n,chardev=c -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:01',
    'vhost',
  ],
  [`${NIC} -device vhost-user-blk-pci,chardev=c`, 'vhost'],
  ['-netdev tap,id=n,queues=4 -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:01', 'nic-queues'],
  ['-netdev tap,id=n -device virtio-net-pci,netdev=n,mac=52:54:00:00:00:01,mq=on', 'nic-queues'],
  [`${NIC} -device vfio-pci,host=01:00.0`, 'passthrough'],
  [`${NIC} -device '{"driver":"vfio-pci","host":"0000:01:00.0"}'`, 'passthrough'],
  [`${NIC} -device usb-host,vendorid=1`, 'passthrough'],
  [`${NIC} -drive file=/a.img`, 'disk-written'],
  [`${NIC} -hda /a.img`, 'disk-written'],
  [`${NIC} /a.img`, 'disk-written'],
  [
    `${NIC} -blockdev driver=file,filename=/a,node-name=a -blockdev driver=qcow2,file=a,node-name=b`,
    'disk-written',
  ],
  [`${NIC} -drive file=/a.img,snapshot=on`, 'disk-temporary'],
  [`${NIC} -snapshot`, 'disk-temporary'],
  [`${NIC} -drive file=nbd:host:10809,readonly=on`, 'disk-network'],
  [`${NIC} -blockdev driver=rbd,pool=p,image=i,node-name=a,read-only=on`, 'disk-network'],
  [`${NIC} -drive driver=nbd,host=h,port=10809,readonly=on`, 'disk-network'],
  [`${NIC} -drive driver=vvfat,dir=/a,rw=on,readonly=on`, 'disk-network'],
  [`${NIC} -drive format=vvfat,file=/a,readonly=on`, 'disk-network'],
  [`${NIC} -drive file=/a.qcow2,backing.driver=nbd,backing.host=h,readonly=on`, 'disk-network'],
  [`${NIC} -drive file=/a.qcow2,backing.file.filename=b.qcow2,readonly=on`, 'path-relative'],
  [`${NIC} ${BELOW} -device virtio-blk-pci,drive=a`, 'disk-written'],
  [`${NIC} -drive file=a.img,readonly=on`, 'path-relative'],
  [`${NIC} -initrd initrd.img`, 'path-relative'],
  [`${NIC} -virtfs local,path=/a,mount_tag=t`, 'filesystem'],
  [`${NIC} -device vhost-user-fs-pci,chardev=c,tag=t`, 'filesystem'],
  [`${NIC} -pflash /vars.fd`, 'firmware-written'],
  [`${NIC} -drive if=pflash,file=/vars.fd,format=raw`, 'firmware-written'],
  [`${NIC} -mem-path /dev/hugepages`, 'memory-backing'],
  [`${NIC} -object memory-backend-file,id=m,mem-path=/dev/hugepages,size=512M`, 'memory-backing'],
  [`${NIC} -object memory-backend-memfd,id=m,size=512M,hugetlb=on`, 'memory-backing'],
  [`${NIC} -object memory-backend-ram,id=m,size=512M,share=on`, 'memory-backing'],
  [`${NIC} -object sev-guest,id=s`, 'memory-encrypted'],
  [`${NIC} -machine confidential-guest-support=s`, 'memory-encrypted'],
  [`${NIC} -m 512,slots=2,maxmem=2G`, 'hotplug'],
  [`${NIC} -device nvdimm,memdev=m`, 'hotplug'],
  [`${NIC} -tpmdev emulator,id=t,chardev=c`, 'tpm'],
  [`${NIC} -device tpm-crb,tpmdev=t`, 'tpm'],
  [`${NIC} -device vhost-vsock-pci,guest-cid=3`, 'vsock'],
  [`${NIC} -device ivshmem-plain,memdev=m`, 'shared-memory'],
  [`${NIC} -machine microvm`, 'machine'],
  [`${NIC} -M isapc`, 'machine'],
  [`${NIC} -accel xen`, 'hypervisor'],
  [`${NIC} -cpu host`, 'cpu-host'],
  [`${NIC} -cpu max,vmx=off`, 'cpu-host'],
  [`${NIC} -cpu Haswell,+invtsc`, 'cpu-blocks'],
  [`${NIC} -cpu Haswell,migratable=no`, 'cpu-blocks'],
  [`${NIC} -no-reboot`, 'reboot'],
  [`${NIC} -object colo-compare,id=c`, 'qemu-colo'],
  [`${NIC} -object filter-mirror,id=f`, 'qemu-colo'],
  [`${NIC} -frobnicate`, 'unknown'],
  [`${NIC} -frobnicate much`, 'unknown'],
  [`${NIC} -loadvm x`, 'unknown'],
  [`${NIC} -readconfig /a`, 'unknown'],
  [`${NIC} -device frobnicator`, 'unknown'],
  [`${NIC} -device '{"driver":'`, 'unknown'],
  [
    `${NIC} -device '{"driver":"virtio-blk-pci","drive":"d","iothread-vq-mapping":[{"iothread":"i"}]}'`,
    'unknown',
  ],
  [`${NIC} -object can-bus,id=c`, 'unknown'],
  [`${NIC} -smp`, 'unknown'],
  [`${NIC} -m lots`, 'unknown'],
  [`${NIC} -global migration.x=1`, 'unknown'],
];

test('each part of a command line that cannot be protected has its own reason, and only that', () => {
  for (const [more, kind] of TABLE) assert.deepEqual([...new Set(kinds(`${BASE} ${more}`))], [kind], more);
  assert.deepEqual(kinds(`${BASE} ${NIC}`), []);
  assert.deepEqual(kinds(`${BASE} ${NIC} ${BELOW} -device virtio-blk-pci,drive=b`), []);
  assert.deepEqual(kinds(`qemu-system-aarch64 -machine q35 -m 512 -kernel /k ${NIC}`), ['architecture']);
});

test('all reasons are found at once', () => {
  const text = `${BASE} -hda /a.img -tpmdev passthrough,id=t -nic user,mac=52:54:00:00:00:01 -frobnicate`;
  assert.deepEqual(kinds(text), ['disk-written', 'tpm', 'unknown']);
});

const after = (args: readonly string[], option: string): string[] =>
  args.flatMap((arg, i) => (arg === option ? [args[i + 1]] : []));

test('a machine is kept word by word, and says what it loses', () => {
  const { machine, findings } = read(GOLDEN);
  assert.deepEqual(findings.refusals, []);
  const { args } = machine;
  assert.equal(machine.name, 'shop floor');
  assert.equal(machine.command, null);
  assert.deepEqual(after(args, '-machine'), [
    'q35,accel=kvm,usb=off,dump-guest-core=off,memory-backend=pc.ram',
  ]);
  assert.deepEqual(after(args, '-cpu'), ['Haswell,vmx=off,rdrand=off,rdseed=off']);
  assert.deepEqual([after(args, '-m'), machine.memoryMb], [['size=1536M'], 1536]);
  assert.deepEqual(after(args, '-rtc'), ['base=utc,driftfix=slew,clock=vm']);
  assert.deepEqual(after(args, '-append'), ['root=/dev/vda "x=1 2"']);
  assert.deepEqual(after(args, '-serial'), ['null']);
  assert.equal(after(args, '-blockdev').length, 2);
  // QEMU would make devices in JSON after the node's NIC.
  assert.deepEqual(after(args, '-device'), [
    'pcie-root-port,port=16,chassis=1,id=pci.1,bus=pcie.0,multifunction=on,addr=0x2',
    'virtio-blk-pci,bus=pcie.0,addr=0x3,drive=libvirt-1-format,id=virtio-disk0,bootindex=1',
  ]);
  assert.ok(args.indexOf('-blockdev') < args.indexOf('-device'));
  assert.deepEqual(machine.nic, {
    device: 'virtio-net-pci',
    options: 'rx_queue_size=1024,bus=pci.1,addr=0x0,host_mtu=1450',
  });
  assert.equal(machine.mac, '52:54:00:C0:10:02');
  assert.deepEqual(machine.files.toSorted(), [
    '/boot/vmlinuz-shop',
    '/srv/install.iso',
    '/var/lib/colo/shop/root.img',
  ]);
  const found = new Set(findings.changes.map(({ kind }) => kind));
  for (const kind of [
    'nic',
    'nic-offloads',
    'random',
    'console',
    'serial',
    'clock',
    'start',
  ] satisfies ChangeKind[])
    assert.ok(found.has(kind), kind);
});

test('what QEMU would take by default is written out', () => {
  const { machine } = read('qemu-system-x86_64 -enable-kvm -nic user,model=virtio,mac=52:54:00:00:00:01');
  assert.ok(machine.args.join(' ').includes('-machine pc'));
  assert.deepEqual(after(machine.args, '-m'), ['128']);
  assert.deepEqual(after(machine.args, '-accel'), []);
  assert.equal(machine.nic.device, 'virtio-net-pci');
  assert.deepEqual(after(read('kvm -nic user,mac=52:54:00:00:00:01').machine.args, '-accel'), ['kvm']);
  assert.deepEqual(after(read('qemu-system-x86_64 -nic user,mac=52:54:00:00:00:01').machine.args, '-accel'), [
    'tcg',
  ]);
});

test('a card that nobody names is the one of the machine', () => {
  const nic = '-nic user,mac=52:54:00:00:00:01';
  assert.equal(read(`qemu-system-x86_64 -M pc-q35-9.2 ${nic}`).machine.nic.device, 'e1000e');
  assert.equal(read(`qemu-system-x86_64 -M pc ${nic}`).machine.nic.device, 'e1000');
});

test('the command line of a running process is taken as it is', () => {
  const words = `${BASE} ${NIC}`.split(' ');
  const { machine, findings } = read(`${[...words, '-append', 'a $b "c'].join('\0')}\0`);
  assert.deepEqual(findings.refusals, []);
  assert.deepEqual(after(machine.args, '-append'), ['a $b "c']);
});

test('what is no command line of QEMU is refused with what it is', () => {
  for (const [text, why] of [
    ['', /^vm\.sh: it has no program/],
    ['A=b sudo', /it has no program/],
    ['ls -l', /"ls" is no QEMU/],
    ['<domain/>', /it has < outside of quotes/],
  ] as const)
    assert.throws(() => read(text), { code: 'COLO_INIT_COMMAND', message: why }, text);
});

test('a processor is the host’s own only by the operator’s word', () => {
  const { machine, findings } = read(`${BASE} ${NIC} -cpu host,vmx=off`, { cpu: 'host', mac: null });
  assert.deepEqual(findings.refusals, []);
  assert.equal(after(machine.args, '-cpu').at(-1), 'host,vmx=off,rdrand=off,rdseed=off');
});

test('a processor of the operator may not block migration either, nor bring random numbers', () => {
  for (const text of [`${BASE} ${NIC}`, `qemu-system-x86_64 -machine pc ${NIC}`])
    assert.deepEqual(kinds(text, { cpu: 'EPYC,migratable=off', mac: null }), ['cpu-blocks'], text);
  const { machine } = read(`${BASE} ${NIC}`, { cpu: 'EPYC,+rdrand', mac: null });
  assert.equal(after(machine.args, '-cpu').at(-1), 'EPYC,rdrand=off,rdseed=off');
});
