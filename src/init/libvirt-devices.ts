/**
 * The devices of a libvirt domain. Each is translated into QEMU's arguments, left out with a reason, or refused.
 *
 * Translated are PCI's ports and bridges, SCSI controllers that a disk is on, disks that are only read, serial ports and pvpanic; the
 * NIC becomes the node's. What the guest sees stays in its slot.
 */
import { diskArguments } from './libvirt-disks.ts';
import { type Nic, nicOf } from './libvirt-nic.ts';
import { pciPlace, type Reading } from './libvirt-reading.ts';
import type { ChangeKind, RefusalKind } from './reasons.ts';
import { attributeOf, childOf, type Element } from './xml-tree.ts';

export type Devices = Nic & { readonly command: readonly string[] | null; readonly args: readonly string[] };

const LEFT_OUT: Readonly<Record<string, ChangeKind>> = {
  ...{ graphics: 'display', video: 'display', input: 'display', audio: 'sound', sound: 'sound', hub: 'usb' },
  ...{
    channel: 'console',
    parallel: 'console',
    console: 'console',
    redirdev: 'console',
    redirfilter: 'console',
  },
  ...{ rng: 'random', watchdog: 'watchdog', memballoon: 'balloon' },
};
const REFUSED: Readonly<Record<string, RefusalKind>> = {
  ...{
    hostdev: 'passthrough',
    lease: 'unknown',
    smartcard: 'passthrough',
    filesystem: 'filesystem',
    tpm: 'tpm',
  },
  ...{ vsock: 'vsock', shmem: 'shared-memory', memory: 'hotplug' },
};
/** libvirt's names for PCI's ports and bridges, and QEMU's. */
const PCI_DEVICES: Readonly<Record<string, string>> = {
  'pcie-root-port': 'pcie-root-port',
  'pcie-to-pci-bridge': 'pcie-pci-bridge',
  'dmi-to-pci-bridge': 'i82801b11-bridge',
  'pci-bridge': 'pci-bridge',
  'pcie-switch-upstream-port': 'x3130-upstream',
  'pcie-switch-downstream-port': 'xio3130-downstream',
};

export function deviceArguments(reading: Reading): Devices {
  const devices = childOf(reading.domain, 'devices')?.children ?? [];
  const of = (name: string): Element[] => devices.filter((device) => device.name === name);
  for (const device of devices) judge(reading, device);
  const disks = of('disk').flatMap((disk) => diskArguments(reading, disk));
  const controllers = inOrder(of('controller'));
  const args = [
    ...controllers.flatMap((controller) => controllerArguments(reading, controller, disks)),
    ...disks,
    ...of('serial').flatMap((serial) => serialArguments(reading, serial)),
    ...of('panic').flatMap((panic) => panicArguments(reading, panic)),
  ];
  return { ...nicOf(reading, of('interface')), command: commandOf(of('emulator')), args };
}

/** Devices that are neither translated nor read elsewhere. */
function judge({ findings }: Reading, device: Element): void {
  const { name } = device;
  const what = nameOf(device);
  if (Object.hasOwn(REFUSED, name)) findings.refuse(REFUSED[name], what);
  else if (name === 'memballoon' && attributeOf(device, 'model') === 'none') return;
  // The same as the first serial port.
  else if (name === 'console' && attributeOf(childOf(device, 'target'), 'type') === 'serial') return;
  else if (Object.hasOwn(LEFT_OUT, name)) findings.change(LEFT_OUT[name], what);
  else if (!['emulator', 'disk', 'controller', 'interface', 'serial', 'panic'].includes(name))
    findings.refuse('unknown', what);
}

function nameOf(device: Element): string {
  const attributes = ['mode', 'type', 'model', 'bus', 'action'].flatMap((name) => {
    const value = attributeOf(device, name);
    return value === '' ? [] : [` ${name}="${value}"`];
  });
  const model = attributeOf(childOf(device, 'model'), 'type');
  return `<${device.name}${attributes.join('')}>${model === '' ? '' : ` ${model}`}`;
}

/** A bus comes before what is on it. */
function inOrder(controllers: readonly Element[]): Element[] {
  const parents = new Map(
    controllers
      .filter((one) => attributeOf(one, 'type') === 'pci')
      .map((one) => [indexOf(one), Number(attributeOf(childOf(one, 'address'), 'bus'))]),
  );
  const depthOf = (controller: Element): number => {
    let bus = Number(attributeOf(childOf(controller, 'address'), 'bus'));
    let depth = 0;
    // A circle ends as well: QEMU then says that a bus is not there.
    for (; bus > 0 && depth <= controllers.length; depth += 1) bus = parents.get(bus) ?? 0;
    return depth;
  };
  return controllers.toSorted((one, other) => depthOf(one) - depthOf(other) || indexOf(one) - indexOf(other));
}

function indexOf(controller: Element): number {
  return Number(attributeOf(controller, 'index')) || 0;
}

function controllerArguments(reading: Reading, controller: Element, disks: readonly string[]): string[] {
  const { findings } = reading;
  const [type, model, index] = [
    attributeOf(controller, 'type'),
    attributeOf(controller, 'model'),
    indexOf(controller),
  ];
  const isUsed = (bus: string): boolean => disks.some((text) => text.includes(`,bus=${bus}`));
  const what = `<controller type="${type}" index="${index}">${model === '' ? '' : ` ${model}`}`;
  if (type === 'pci') return pciArguments(reading, controller, { model, index, what });
  if (type === 'scsi' && isUsed(`scsi${index}.0`)) {
    if (!['', 'auto', 'virtio-scsi', 'virtio-transitional', 'virtio-non-transitional'].includes(model))
      findings.refuse('unknown', what);
    return ['-device', ['virtio-scsi-pci', `id=scsi${index}`, ...pciPlace(reading, controller)].join(',')];
  }
  // The first of these is a part of the machine.
  if (['sata', 'ide', 'scsi', 'fdc'].includes(type)) return [];
  if (type === 'usb') findings.change('usb', what);
  else if (type === 'virtio-serial' || type === 'ccid') findings.change('console', what);
  else findings.refuse('unknown', what);
  return [];
}

type PciController = { readonly model: string; readonly index: number; readonly what: string };

function pciArguments(
  reading: Reading,
  controller: Element,
  { model, index, what }: PciController,
): string[] {
  if (model === 'pci-root' || model === 'pcie-root') return [];
  if (!Object.hasOwn(PCI_DEVICES, model)) {
    reading.findings.refuse('unknown', what);
    return [];
  }
  const target = childOf(controller, 'target');
  const numbers = [
    ['chassis', 'chassis'],
    ['port', 'port'],
    ['chassisNr', 'chassis_nr'],
  ].flatMap(([name, property]) => {
    const value = attributeOf(target, name);
    return /^(0x[0-9a-f]+|\d+)$/i.test(value) ? [`${property}=${Number(value)}`] : [];
  });
  return [
    '-device',
    [PCI_DEVICES[model], ...numbers, `id=pci.${index}`, ...pciPlace(reading, controller)].join(','),
  ];
}

function serialArguments({ findings }: Reading, serial: Element): string[] {
  const target = attributeOf(childOf(serial, 'target'), 'type');
  if (!['', 'isa-serial', 'serial'].includes(target)) {
    findings.change('console', `${nameOf(serial)} on ${target}`);
    return [];
  }
  findings.change('serial', nameOf(serial));
  return ['-serial', 'null'];
}

function panicArguments(reading: Reading, panic: Element): string[] {
  const model = attributeOf(panic, 'model');
  if (model === '' || model === 'isa') return ['-device', 'pvpanic'];
  if (model === 'pvpanic') return ['-device', ['pvpanic-pci', ...pciPlace(reading, panic)].join(',')];
  reading.findings.refuse('unknown', nameOf(panic));
  return [];
}

/** The node's own default is what most domains name. */
function commandOf(emulators: readonly Element[]): string[] | null {
  const path = emulators[0]?.text ?? '';
  return path === '' || path === '/usr/bin/qemu-system-x86_64' || path === '/usr/bin/kvm' ? null : [path];
}
