/** Libvirt domains: what each refusal is for, and what a domain that can be protected becomes. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { machineOfDomain } from '../../src/init/libvirt.ts';
import type { Described, Given } from '../../src/init/machine.ts';
import type { RefusalKind } from '../../src/init/reasons.ts';

const GOLDEN = readFileSync(join(import.meta.dirname, 'golden/domain.xml'), 'utf8');
const NOTHING: Given = { cpu: null, mac: null };

const read = (xml: string, given: Given = NOTHING): Described => machineOfDomain(xml, 'vm.xml', given);
/** The golden domain with one text replaced: the text must be there. */
const changed = (from: string, to: string): string => {
  assert.ok(GOLDEN.includes(from), from);
  return GOLDEN.replace(from, to);
};
/** The golden domain with one more device. */
const with_ = (device: string): string => changed('<watchdog', `${device}\n    <watchdog`);
const refusals = (xml: string, given?: Given): [RefusalKind, string][] =>
  read(xml, given).findings.refusals.map(({ kind, what }) => [kind, what]);

const OTHER_NIC =
  "<interface type='network'><mac address='52:54:00:00:00:09'/><source network='default'/></interface>";
const NIC = `<interface type='bridge'>
      <mac address='52:54:00:c0:10:01'/>
      <source bridge='br0'/>`;

const SOURCE = "<source file='/var/lib/colo/web/root, read-only.img' index='1'/>";

const TABLE: readonly (readonly [string, RefusalKind, RegExp])[] = [
  [
    with_(OTHER_NIC),
    'nic-several',
    /^2 interfaces: <interface type="bridge"> br0 52:54:00:c0:10:01, <interface type="network"> default/,
  ],
  [GOLDEN.replace(/<interface[\s\S]*<\/interface>/, ''), 'nic-none', /no <interface>/],
  [changed("<mac address='52:54:00:c0:10:01'/>", ''), 'nic-mac', /<interface type="bridge"> br0/],
  [changed(NIC, NIC.replace("'bridge'", "'hostdev'")), 'nic-passthrough', /type="hostdev"/],
  [changed(NIC, NIC.replace("'bridge'", "'vdpa'")), 'nic-passthrough', /type="vdpa"/],
  [
    changed(
      NIC,
      NIC.replace("'bridge'>", "'direct'>").replace("bridge='br0'", "dev='ens1f0v0' mode='passthrough'"),
    ),
    'nic-passthrough',
    /ens1f0v0/,
  ],
  [
    changed("<driver name='qemu'/>\n      <alias name='net0'/>", "<teaming type='persistent'/>"),
    'nic-passthrough',
    /bridge/,
  ],
  [changed(NIC, NIC.replace("'bridge'", "'vhostuser'")), 'vhost', /type="vhostuser"/],
  [
    changed("<driver name='qemu'/>\n      <alias name='net0'/>", "<driver name='vhost'/>"),
    'vhost',
    /<driver name="vhost"> of/,
  ],
  [
    changed("<driver name='qemu'/>\n      <alias name='net0'/>", "<driver name='qemu' queues='4'/>"),
    'nic-queues',
    /queues="4"/,
  ],
  [
    with_("<hostdev mode='subsystem' type='pci' managed='yes'/>"),
    'passthrough',
    /<hostdev mode="subsystem" type="pci">/,
  ],
  [with_("<hostdev mode='subsystem' type='mdev' model='vfio-pci'/>"), 'passthrough', /type="mdev"/],
  [with_("<smartcard mode='host'/>"), 'passthrough', /<smartcard mode="host">/],
  [
    changed("<readonly/>\n      <alias name='virtio-disk0'/>", ''),
    'disk-written',
    /^disk vda \/var\/lib\/colo\/web\/root, read-only\.img$/,
  ],
  [
    changed("device='cdrom'", "device='floppy'").replace("<readonly/>\n      <alias name='sata0-0-0'/>", ''),
    'disk-written',
    /^floppy sda/,
  ],
  [changed("device='disk'", "device='lun'"), 'passthrough', /^lun vda/],
  [changed('<backingStore/>', '<transient/>'), 'disk-temporary', /vda/],
  [
    changed("<disk type='file' device='disk'>", "<disk type='network' device='disk'>"),
    'disk-network',
    /of the type network/,
  ],
  [changed("bus='virtio'/>", "bus='sata'/>"), 'disk-bus', /on the bus sata/],
  [changed('/var/lib/colo/web/root, read-only.img', 'root.img'), 'path-relative', /root\.img/],
  [
    with_("<filesystem type='mount'><driver type='virtiofs'/></filesystem>"),
    'filesystem',
    /<filesystem type="mount">/,
  ],
  [
    changed(
      '<kernel>',
      "<loader readonly='yes' type='pflash'>/usr/share/OVMF/CODE.fd</loader><nvram>/v.fd</nvram><kernel>",
    ),
    'firmware-written',
    /\/v\.fd/,
  ],
  [changed('<os>', "<os firmware='efi'>"), 'firmware-unknown', /without <loader>/],
  [
    changed('<kernel>', "<loader secure='no'/><kernel>").replace('<os>', "<os firmware='efi'>"),
    'firmware-unknown',
    /^<loader> without a path$/,
  ],
  [
    changed('<kernel>', "<loader type='pflash' stateless='yes' format='future'>/o.fd</loader><kernel>"),
    'unknown',
    /^<loader format="future"> \/o\.fd$/,
  ],
  [changed('<os>', '<memoryBacking><hugepages/></memoryBacking><os>'), 'memory-backing', /<hugepages>/],
  [
    changed('<os>', "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking><os>"),
    'memory-backing',
    /<source>/,
  ],
  [changed('<os>', "<launchSecurity type='sev-snp'/><os>"), 'memory-encrypted', /sev-snp/],
  [with_("<memory model='dimm'/>"), 'hotplug', /<memory model="dimm">/],
  [with_("<tpm model='tpm-crb'><backend type='emulator'/></tpm>"), 'tpm', /tpm-crb/],
  [with_("<vsock model='virtio'/>"), 'vsock', /<vsock/],
  [with_("<shmem name='x'/>"), 'shared-memory', /<shmem>/],
  [changed('pc-q35-10.0', 'microvm'), 'machine', /microvm/],
  [changed("arch='x86_64'", "arch='aarch64'"), 'architecture', /aarch64/],
  [changed("<domain type='kvm'", "<domain type='xen'"), 'hypervisor', /"xen"/],
  [changed("mode='custom'", "mode='host-passthrough'"), 'cpu-host', /host-passthrough/],
  [changed("mode='custom'", "mode='host-model'"), 'cpu-host', /host-model/],
  [changed('<apic/>', "<apic/><hyperv mode='passthrough'/>"), 'cpu-host', /hyperv/],
  [changed("name='md-clear'", "name='invtsc'"), 'cpu-blocks', /invtsc=on/],
  [changed("mode='custom'", "mode='custom' migratable='off'"), 'cpu-blocks', /migratable/],
  [changed('<on_reboot>restart', '<on_reboot>destroy'), 'reboot', /destroy/],
  [with_("<iommu model='intel'/>"), 'unknown', /<iommu model="intel">/],
  [with_('<constructor/>'), 'unknown', /<constructor>/],
  [
    changed('<os>', "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'/><os>"),
    'unknown',
    /<qemu:commandline>/,
  ],
  [changed('Skylake-Server-IBRS', 'qemu64,invtsc=on'), 'unknown', /<model>qemu64,invtsc=on of <cpu>/],
  [
    changed('<apic/>', "<apic/><hyperv><vendor_id state='on' value='a,b'/></hyperv>"),
    'unknown',
    /<vendor_id> of <hyperv>/,
  ],
  [changed('<vendor>Intel</vendor>', '<numa/>'), 'unknown', /<numa> of <cpu>/],
  [changed('<apic/>', '<apic/><hyperv><future state="on"/></hyperv>'), 'unknown', /<future> of <hyperv>/],
  [changed('<backingStore/>', "<encryption format='luks'/>"), 'unknown', /<encryption>/],
  ...(
    [
      ["type='nvme'", "<source type='pci'/>", 'passthrough'],
      ["type='dir'", "<source dir='/a'/>", 'filesystem'],
      ["type='volume'", "<source pool='p' volume='v'/>", 'unknown'],
      ["type='vhostvdpa'", "<source dev='/dev/vhost-vdpa-0'/>", 'vhost'],
    ] as const
  ).map(
    ([type, source, kind]) =>
      [
        changed("<disk type='file' device='disk'>", `<disk ${type} device='disk'>`).replace(SOURCE, source),
        kind,
        new RegExp(`of the ${type.replaceAll("'", '').replace('=', ' ')}$`),
      ] as const,
  ),
  [changed(SOURCE, SOURCE.replace('/>', '><slices/></source>')), 'unknown', /^<slices> of disk vda/],
  [changed(SOURCE, SOURCE.replace('/>', '><dataStore/></source>')), 'unknown', /^<dataStore> of disk vda/],
  [changed(SOURCE, `${SOURCE}<blockio/>`), 'unknown', /^<blockio> of disk vda/],
  [changed("type='raw' cache", "type='fat' cache"), 'unknown', /^<driver type="fat"> of disk vda/],
  [
    changed(
      '<backingStore/>',
      "<backingStore type='file'><source file='/b'/><backingStore type='network'><source protocol='rbd'/></backingStore></backingStore>",
    ),
    'disk-network',
    /^an image below disk vda .* of the type network$/,
  ],
];

test('each part of a domain that cannot be protected has its own reason, and only that', () => {
  for (const [xml, kind, what] of TABLE) {
    const found = refusals(xml);
    assert.deepEqual(
      [...new Set(found.map(([one]) => one))],
      [kind],
      `${kind} ${what}: ${JSON.stringify(found)}`,
    );
    assert.match(found[0][1], what);
  }
});

test('all reasons are found at once, each with why and what to do', () => {
  const xml = with_(`${OTHER_NIC}<tpm model='tpm-tis'/><hostdev mode='subsystem' type='usb'/>`);
  const found = read(xml).findings.refusals;
  assert.deepEqual(found.map(({ kind }) => kind).toSorted(), ['nic-several', 'passthrough', 'tpm']);
  for (const { why, advice } of found) assert.ok(why.length > 10 && advice.length > 10);
});

test('a domain keeps its processor, memory, buses and slots, and says what it loses', () => {
  const { machine, findings } = read(GOLDEN);
  assert.deepEqual(findings.refusals, []);
  const { args } = machine;
  const after = (option: string): string[] => args.flatMap((arg, i) => (arg === option ? [args[i + 1]] : []));
  assert.deepEqual(after('-machine'), ['pc-q35-10.0,vmport=off,hpet=off']);
  assert.deepEqual(after('-cpu'), ['Skylake-Server-IBRS,md-clear=on,hle=off,rdrand=off,rdseed=off']);
  assert.deepEqual(after('-smp'), ['2,sockets=1,dies=1,cores=2,threads=1']);
  assert.deepEqual([after('-m'), machine.memoryMb], [['2048'], 2048]);
  assert.deepEqual(after('-append'), ['root=/dev/vda ro console=ttyS0 motd="a & b"']);
  assert.deepEqual(after('-global'), [
    'kvm-pit.lost_tick_policy=delay',
    'ICH9-LPC.disable_s3=1',
    'ICH9-LPC.disable_s4=1',
  ]);
  assert.deepEqual(after('-device'), [
    'pcie-root-port,chassis=1,port=16,id=pci.1,bus=pcie.0,multifunction=on,addr=0x2',
    'pcie-root-port,chassis=2,port=17,id=pci.2,bus=pcie.0,addr=0x2.0x1',
    'pcie-root-port,chassis=3,port=18,id=pci.3,bus=pcie.0,addr=0x2.0x2',
    'virtio-blk-pci,bus=pci.2,addr=0x0,drive=drive-vda',
  ]);
  assert.deepEqual(after('-drive'), [
    'if=none,id=drive-vda,file=/var/lib/colo/web/root,, read-only.img,format=raw,readonly=on',
  ]);
  assert.deepEqual(machine.nic, {
    device: 'virtio-net-pci',
    options: 'rx_queue_size=1024,bus=pci.1,addr=0x0',
  });
  assert.equal(machine.mac, '52:54:00:c0:10:01');
  assert.deepEqual(machine.files.toSorted(), [
    '/var/lib/colo/web/initrd.img',
    '/var/lib/colo/web/root, read-only.img',
    '/var/lib/colo/web/vmlinuz',
  ]);
  const kinds = new Set(findings.changes.map(({ kind }) => kind));
  for (const kind of [
    'nic',
    'random',
    'display',
    'console',
    'serial',
    'balloon',
    'watchdog',
    'usb',
    'clock',
    'host',
    'drive',
    'sound',
  ] as const)
    assert.ok(kinds.has(kind), kind);
});

test('a bus comes before what is on it, whatever its number is', () => {
  const { machine, findings } = read(readFileSync(join(import.meta.dirname, 'golden/devices.xml'), 'utf8'));
  assert.deepEqual(findings.refusals, []);
  const made = machine.args.flatMap((arg) => /,id=(pci\.\d|scsi\d)/.exec(arg)?.[1] ?? []);
  assert.deepEqual(made, ['pci.1', 'pci.3', 'pci.4', 'scsi0', 'pci.2', 'pci.5']);
  const circle = `<controller type='pci' index='8' model='pcie-root-port'><address type='pci' bus='0x09' slot='0x00'/></controller>
    <controller type='pci' index='9' model='pcie-root-port'><address type='pci' bus='0x08' slot='0x00'/></controller>`;
  assert.deepEqual(refusals(with_(circle)), []);
});

test('a processor is the host’s own only by the operator’s word', () => {
  const xml = changed("mode='custom'", "mode='host-passthrough'");
  assert.deepEqual(refusals(xml, { cpu: 'host', mac: null }), []);
  const { args } = read(xml, { cpu: 'host', mac: null }).machine;
  assert.match(args[args.indexOf('-cpu') + 1], /^host,md-clear=on,hle=off,rdrand=off,rdseed=off$/);
});

test('a processor of the operator may not block migration either, nor bring random numbers', () => {
  assert.deepEqual(refusals(GOLDEN, { cpu: 'EPYC,+invtsc', mac: null }), [
    ['cpu-blocks', 'the CPU property +invtsc'],
  ]);
  const { args } = read(GOLDEN, { cpu: 'EPYC,+rdrand', mac: null }).machine;
  assert.equal(args[args.indexOf('-cpu') + 1], 'EPYC,md-clear=on,hle=off,rdrand=off,rdseed=off');
});

test('firmware is read in its own format', () => {
  const { args } = read(
    changed('<kernel>', "<loader type='pflash' stateless='yes' format='qcow2'>/o.qcow2</loader><kernel>"),
  ).machine;
  assert.ok(args.includes('if=pflash,unit=0,format=qcow2,readonly=on,file=/o.qcow2'));
});

test('ticks that are caught up are the default of the timer', () => {
  const { args } = read(changed("tickpolicy='delay'", "tickpolicy='catchup'")).machine;
  assert.doesNotMatch(args.join(' '), /lost_tick_policy/);
});

test('an ejected medium is none, whatever libvirt does about a missing one', () => {
  const xml = changed("<target dev='sda'", "<source startupPolicy='optional'/><target dev='sda'");
  const { findings } = read(xml);
  assert.deepEqual(findings.refusals, []);
  assert.ok(findings.changes.some(({ kind, what }) => kind === 'drive' && what === 'cdrom sda'));
});

test('a MAC address may come from the operator where the domain has none', () => {
  const xml = changed("<mac address='52:54:00:c0:10:01'/>", '');
  assert.equal(read(xml, { cpu: null, mac: '52:54:00:00:00:01' }).machine.mac, '52:54:00:00:00:01');
});

test('memory is read in every unit of libvirt', () => {
  for (const [unit, count, mb] of [
    ['', '524288', 512],
    ['b', '536870912', 512],
    ['KiB', '524288', 512],
    ['MiB', '512', 512],
    ['G', '2', 2048],
    ['GB', '1', 953],
  ] as const) {
    const xml = changed(
      "<memory unit='KiB'>2097152</memory>",
      `<memory${unit === '' ? '' : ` unit='${unit}'`}>${count}</memory>`,
    );
    assert.equal(read(xml).machine.memoryMb, mb, unit);
  }
});

test('what is no domain is refused with what it is', () => {
  for (const [text, why] of [
    ['<network><name>default</name></network>', /it is a <network>, not a <domain>/],
    ['<domains><domain/><domain/></domains>', /it holds 2 domains in <domains>/],
    [changed("<memory unit='KiB'>2097152</memory>", ''), /its <memory> is missing/],
    [changed("<memory unit='KiB'>2097152</memory>", '<memory>-1</memory>'), /its <memory> is missing/],
    [changed('>2</vcpu>', '>two</vcpu>'), /its <vcpu> is no number/],
    ['<domain', /not well-formed/],
  ] as const)
    assert.throws(() => read(text), { code: 'COLO_INIT_XML', message: why });
});

test('a name with spaces is the domain’s, and a pair gets another one', () => {
  assert.equal(read(changed('<name>web</name>', '<name>my web vm</name>')).machine.name, 'my web vm');
});

test('a domain of the family pc has its CD-ROM on IDE and its devices on pci.0', () => {
  const xml = `<domain type='qemu'><name>x</name><memory unit='MiB'>64</memory><os><type arch='x86_64' machine='pc-i440fx-9.2'>hvm</type></os>
    <features><acpi/></features><devices>
    <disk type='file' device='cdrom'><source file='/a.iso'/><target dev='hda' bus='ide'/><readonly/><address type='drive' controller='0' bus='1' target='0' unit='0'/></disk>
    <controller type='pci' index='0' model='pci-root'/><controller type='ide' index='0'/>
    <interface type='user'><mac address='52:54:00:00:00:01'/><model type='e1000'/><address type='pci' bus='0x00' slot='0x03'/></interface>
    </devices></domain>`;
  const { machine, findings } = read(xml);
  assert.deepEqual(findings.refusals, []);
  assert.ok(machine.args.includes('ide-cd,bus=ide.1,unit=0,drive=drive-hda'));
  assert.ok(machine.args.join(' ').includes('-accel tcg -cpu qemu64,rdrand=off,rdseed=off'));
  assert.deepEqual(machine.nic, { device: 'e1000', options: 'bus=pci.0,addr=0x3' });
});
