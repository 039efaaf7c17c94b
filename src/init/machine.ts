/** A VM as both nodes of a pair will start it, whatever it was described by. */
import type { Findings } from './reasons.ts';

export type Machine = {
  /** the description's own name for the VM; null if it has none */
  readonly name: string | null;
  /** null for the node's default */
  readonly command: readonly string[] | null;
  readonly args: readonly string[];
  /** null if the description has none, which is refused */
  readonly mac: string | null;
  readonly nic: { readonly device: string; readonly options: string };
  readonly onPoweroff: 'stop' | 'restart';
  /** 0 if the description is refused */
  readonly memoryMb: number;
  /** the files that both hosts must have, with the same contents */
  readonly files: readonly string[];
};

export type Described = { readonly machine: Machine; readonly findings: Findings };

/** What the operator says beside a description. */
export type Given = {
  /** a CPU model, which takes the place of the description's; null if none was given */
  readonly cpu: string | null;
  readonly mac: string | null;
};

/** The largest ring that virtio-net has: a burst that does not fit waits in front of the VM, and checkpoints wait for it. */
const RX_RING = 'rx_queue_size=1024';

/** Returns the NIC's properties with those that the node advises. */
export function nicOptions(device: string, options: readonly string[]): string {
  const rest = options.filter((option) => !option.startsWith('rx_queue_size='));
  return [...(device.startsWith('virtio-net') ? [RX_RING] : []), ...rest].join(',');
}

/** Random numbers of the processor itself differ between the two VMs. */
const CPU_RANDOM = ['rdrand', 'rdseed'];

/**
 * Returns the value of -cpu without the processor's own random numbers; refuses what QEMU does not migrate. `named` is a model, after which
 * there may be properties, as an operator writes them.
 */
export function cpuValue(named: string, more: readonly string[], findings: Findings): string {
  const [model, ...own] = named.split(',');
  const properties = [...own, ...more];
  for (const property of properties)
    if (blocksMigration(property)) findings.refuse('cpu-blocks', `the CPU property ${property}`);
  // QEMU lets +NAME win over a later NAME=off: it has to go.
  const rest = properties.filter((property) => !CPU_RANDOM.some((name) => isProperty(property, name)));
  return [model, ...rest, ...CPU_RANDOM.map((name) => `${name}=off`)].join(',');
}

const isProperty = (text: string, name: string): boolean => text.replace(/^[+-]/, '').split('=')[0] === name;

/** Whether the guest would see the host's own processor. */
export function isHostCpu(model: string): boolean {
  return model === 'host' || model === 'max';
}

/** Whether QEMU refuses to migrate a CPU with this property. */
function blocksMigration(property: string): boolean {
  return /^(\+invtsc|invtsc(=(on|yes|true|y))?|migratable=(off|no|false|n))$/.test(property);
}

/** The machine types of the two families that the node was made for, with those of distributions (pc-q35-rhel9.4.0). */
export function isMachineType(type: string): boolean {
  return /^(pc|q35|pc-(q35|i440fx)-[\w.-]+)$/.test(type);
}

/** QEMU's names for the formats of an image that is one file. */
export const IMAGE_FORMATS: readonly string[] = ['raw', 'qcow2', 'vmdk', 'vdi', 'vpc', 'qed'];

/** Adds the file to those that both hosts must have; refuses a path that is not absolute. */
export function addFile(files: Set<string>, path: string, what: string, findings: Findings): void {
  if (path.startsWith('/')) files.add(path);
  else findings.refuse('path-relative', `${what} ${path}`);
}
