/** What the parts of a libvirt domain are read from, and into. */
import type { Given } from './machine.ts';
import type { Findings } from './reasons.ts';
import { attributeOf, childOf, type Element } from './xml-tree.ts';

export type Reading = {
  readonly domain: Element;
  readonly findings: Findings;
  /** the files that both hosts must have */
  readonly files: Set<string>;
  /** the family of the machine type: the names of its buses depend on it */
  readonly family: 'q35' | 'pc';
  readonly given: Given;
};

/** Returns the properties that put a device into its slot; none where the domain gives it no slot on PCI. */
export function pciPlace({ family }: Reading, device: Element): string[] {
  const address = childOf(device, 'address');
  if (attributeOf(address, 'type') !== 'pci') return [];
  const [bus, slot, unit] = ['bus', 'slot', 'function'].map((name) =>
    Number(attributeOf(address, name) || '0'),
  );
  if (![bus, slot, unit].every((number) => Number.isInteger(number) && number >= 0 && number < 256))
    return [];
  const root = family === 'q35' ? 'pcie.0' : 'pci.0';
  const several = attributeOf(address, 'multifunction') === 'on' ? ['multifunction=on'] : [];
  const place = `addr=0x${slot.toString(16)}${unit === 0 ? '' : `.0x${unit.toString(16)}`}`;
  return [`bus=${bus === 0 ? root : `pci.${bus}`}`, ...several, place];
}

/** Returns bootindex=N if the domain has the device in its boot order. */
export function bootPlace(device: Element): string[] {
  const order = attributeOf(childOf(device, 'boot'), 'order');
  return /^\d{1,5}$/.test(order) ? [`bootindex=${order}`] : [];
}
