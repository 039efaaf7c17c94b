/** The disks of a libvirt domain: those that the guest cannot write to. */
import { escapeValue } from '../qemu/command-line.ts';
import { bootPlace, pciPlace, type Reading } from './libvirt-reading.ts';
import { addFile } from './machine.ts';
import { attributeOf, childOf, type Element, textOf } from './xml-tree.ts';

/** Returns -drive and -device of a disk; nothing if it is refused, or has no medium. */
export function diskArguments(reading: Reading, disk: Element): string[] {
  const { findings } = reading;
  const kind = attributeOf(disk, 'device') || 'disk';
  const target = childOf(disk, 'target');
  const name = attributeOf(target, 'dev');
  const source = childOf(disk, 'source');
  const path = attributeOf(source, 'file') || attributeOf(source, 'dev');
  const what = [kind, name, path].filter((part) => part !== '').join(' ');
  if (kind === 'lun') findings.refuse('passthrough', what);
  else if (childOf(disk, 'transient') !== null) findings.refuse('disk-temporary', what);
  else if (kind !== 'cdrom' && childOf(disk, 'readonly') === null) findings.refuse('disk-written', what);
  else if (source === null || source.children.length + Object.keys(source.attributes).length === 0)
    findings.change('drive', what);
  else if (attributeOf(disk, 'type') === 'vhostuser') findings.refuse('vhost', what);
  else if (!['file', 'block'].includes(attributeOf(disk, 'type')) || path === '')
    findings.refuse('disk-network', `${what} of the type ${attributeOf(disk, 'type')}`);
  else if (childOf(source, 'encryption') !== null || childOf(disk, 'encryption') !== null)
    findings.refuse('unknown', `<encryption> of ${what}`);
  else return readOnlyDisk(reading, disk, { kind, name, path, what });
  return [];
}

type Disk = { readonly kind: string; readonly name: string; readonly path: string; readonly what: string };

function readOnlyDisk(reading: Reading, disk: Element, { kind, name, path, what }: Disk): string[] {
  const { findings, files } = reading;
  for (const file of [path, ...backingFiles(disk)]) addFile(files, file, what, findings);
  const bus = attributeOf(childOf(disk, 'target'), 'bus');
  const device = deviceOf(reading, disk, { kind, bus });
  if (device === null) {
    findings.refuse('disk-bus', `${what} on the bus ${bus === '' ? 'of no name' : bus}`);
    return [];
  }
  const id = `drive-${/^\w+$/.test(name) ? name : 'disk'}`;
  const format = attributeOf(childOf(disk, 'driver'), 'type') || 'raw';
  const serial = textOf(disk, 'serial');
  const properties = [
    ...device,
    `drive=${id}`,
    ...(serial === '' ? [] : [`serial=${escapeValue(serial)}`]),
    ...bootPlace(disk),
  ];
  const drive = `if=none,id=${id},file=${escapeValue(path)},format=${escapeValue(format)},readonly=on`;
  return ['-drive', drive, '-device', properties.join(',')];
}

/** The images that a running domain shows below the disk's own. */
function backingFiles(disk: Element): string[] {
  const store = childOf(disk, 'backingStore');
  if (store === null) return [];
  const source = childOf(store, 'source');
  const path = attributeOf(source, 'file') || attributeOf(source, 'dev');
  return [...(path === '' ? [] : [path]), ...backingFiles(store)];
}

/** The device and its place; null if QEMU has no such device for a disk that is only read. */
function deviceOf(
  reading: Reading,
  disk: Element,
  { kind, bus }: { kind: string; bus: string },
): string[] | null {
  const address = childOf(disk, 'address');
  const [controller, unit, onBus] = ['controller', 'unit', 'bus'].map((name) =>
    Number(attributeOf(address, name) || '0'),
  );
  if (bus === 'virtio') return ['virtio-blk-pci', ...pciPlace(reading, disk)];
  if (bus === 'scsi') {
    const driver = kind === 'cdrom' ? 'scsi-cd' : 'scsi-hd';
    const target = Number(attributeOf(address, 'target') || '0');
    return [driver, `bus=scsi${controller}.0`, 'channel=0', `scsi-id=${target}`, `lun=${unit}`];
  }
  // Only of a CD-ROM: a disk there has to be written.
  if (kind !== 'cdrom' || controller !== 0) return null;
  if (bus === 'sata' && reading.family === 'q35') return ['ide-cd', `bus=ide.${unit}`];
  if (bus === 'ide' && reading.family === 'pc') return ['ide-cd', `bus=ide.${onBus}`, `unit=${unit}`];
  return null;
}
