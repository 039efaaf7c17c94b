/** The disks of a libvirt domain: those that the guest cannot write to. */
import { escapeValue } from '../qemu/command-line.ts';
import { bootPlace, pciPlace, type Reading } from './libvirt-reading.ts';
import { addFile, IMAGE_FORMATS } from './machine.ts';
import type { RefusalKind } from './reasons.ts';
import { attributeOf, childOf, type Element, textOf } from './xml-tree.ts';

/** Disks that are not in a file of the host. A volume is in a pool, which alone knows where. */
const REFUSED_TYPES: Readonly<Record<string, RefusalKind>> = {
  ...{ network: 'disk-network', nvme: 'passthrough', dir: 'filesystem', volume: 'unknown' },
  ...{ vhostuser: 'vhost', vhostvdpa: 'vhost' },
};
const READ = new Set([
  ...['source', 'target', 'driver', 'readonly', 'address', 'alias', 'boot', 'serial', 'backingStore'],
  'shareable',
]);
const OF_THE_HOST = new Set(['iotune', 'throttlefilters']);

/** Returns -drive and -device of a disk; nothing if it is refused, or has no medium. */
export function diskArguments(reading: Reading, disk: Element): string[] {
  const { findings } = reading;
  const kind = attributeOf(disk, 'device') || 'disk';
  const target = childOf(disk, 'target');
  const name = attributeOf(target, 'dev');
  const source = childOf(disk, 'source');
  const path = pathOf(source);
  const what = [kind, name, path].filter((part) => part !== '').join(' ');
  if (kind === 'lun') findings.refuse('passthrough', what);
  else if (childOf(disk, 'transient') !== null) findings.refuse('disk-temporary', what);
  else if (kind !== 'cdrom' && childOf(disk, 'readonly') === null) findings.refuse('disk-written', what);
  else if (source === null || isEmpty(source)) findings.change('drive', what);
  else if (isFile(reading, disk, what)) return readOnlyDisk(reading, disk, { kind, name, path, what });
  return [];
}

/** Of an ejected medium libvirt keeps what to do if it is missing at the start. */
function isEmpty({ attributes, children }: Element): boolean {
  return children.length === 0 && Object.keys(attributes).every((name) => name === 'startupPolicy');
}

/** Refuses a disk, or an image below it, that is not a file or a block device as a whole. */
function isFile({ findings }: Reading, disk: Element, what: string): boolean {
  const type = attributeOf(disk, 'type');
  const source = childOf(disk, 'source');
  const isPath = type === 'file' || type === 'block';
  if (!isPath || pathOf(source) === '')
    findings.refuse(
      Object.hasOwn(REFUSED_TYPES, type) ? REFUSED_TYPES[type] : 'unknown',
      `${what} of the type ${type}`,
    );
  // Parts of a file, keys and the like: the guest would see other contents.
  const others = source?.children.filter(({ name }) => name !== 'seclabel') ?? [];
  if (isPath) for (const { name } of others) findings.refuse('unknown', `<${name}> of ${what}`);
  return isPath && pathOf(source) !== '' && others.length === 0;
}

function pathOf(source: Element | null): string {
  return attributeOf(source, 'file') || attributeOf(source, 'dev');
}

type Disk = { readonly kind: string; readonly name: string; readonly path: string; readonly what: string };

function readOnlyDisk(reading: Reading, disk: Element, { kind, name, path, what }: Disk): string[] {
  const { findings, files } = reading;
  for (const file of [path, ...filesBelow(reading, disk, what)]) addFile(files, file, what, findings);
  for (const { name: child } of disk.children) {
    if (OF_THE_HOST.has(child)) findings.change('host', `<${child}> of ${what}`);
    else if (!READ.has(child)) findings.refuse('unknown', `<${child}> of ${what}`);
  }
  const bus = attributeOf(childOf(disk, 'target'), 'bus');
  const device = deviceOf(reading, disk, { kind, bus });
  if (device === null) {
    findings.refuse('disk-bus', `${what} on the bus ${bus === '' ? 'of no name' : bus}`);
    return [];
  }
  const id = `drive-${/^\w+$/.test(name) ? name : 'disk'}`;
  const format = attributeOf(childOf(disk, 'driver'), 'type') || 'raw';
  if (!IMAGE_FORMATS.includes(format)) findings.refuse('unknown', `<driver type="${format}"> of ${what}`);
  const serial = textOf(disk, 'serial');
  const properties = [
    ...device,
    `drive=${id}`,
    ...(serial === '' ? [] : [`serial=${escapeValue(serial)}`]),
    ...bootPlace(disk),
  ];
  const drive = `if=none,id=${id},file=${escapeValue(path)},format=${format},readonly=on`;
  return ['-drive', drive, '-device', properties.join(',')];
}

/** The images that a running domain shows below the disk's own. */
function filesBelow(reading: Reading, disk: Element, what: string): string[] {
  const store = childOf(disk, 'backingStore');
  // An empty one is the end of the chain.
  if (store === null || childOf(store, 'source') === null) return [];
  const isLocal = isFile(reading, store, `an image below ${what}`);
  return [...(isLocal ? [pathOf(childOf(store, 'source'))] : []), ...filesBelow(reading, store, what)];
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
