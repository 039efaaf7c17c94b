/** A VM that is described by a few options alone: a kernel or a read-only image, and no disk. */
import { escapeValue } from '../qemu/command-line.ts';
import { addFile, cpuValue, type Described, nicOptions } from './machine.ts';
import { Findings } from './reasons.ts';

export type PlainMachine = {
  readonly memoryMb: number;
  readonly processors: number;
  /** a model of QEMU's, or `host` */
  readonly cpu: string;
  readonly mac: string;
  readonly kernel: string;
  readonly initrd: string | null;
  /** the kernel's command line */
  readonly append: string | null;
  /** a read-only disk */
  readonly image: string | null;
};

const DEVICE = 'virtio-net-pci';

export function plainMachine(plain: PlainMachine): Described {
  const findings = new Findings();
  const files = new Set<string>();
  const { memoryMb, processors, cpu, mac, kernel, initrd, append, image } = plain;
  for (const [what, path] of [
    ['kernel', kernel],
    ['initrd', initrd],
    ['image', image],
  ] as const)
    if (path !== null) addFile(files, path, what, findings);
  const args = [
    ...['-machine', 'q35', '-accel', 'kvm', '-cpu', cpuValue(cpu, [], findings)],
    ...['-m', String(memoryMb), '-smp', String(processors)],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-rtc', 'base=utc,clock=vm'],
    ...['-kernel', kernel],
    ...(initrd === null ? [] : ['-initrd', initrd]),
    ...(append === null ? [] : ['-append', append]),
    ...(image === null ? [] : ['-drive', `file=${escapeValue(image)},if=virtio,format=raw,readonly=on`]),
    ...['-serial', 'null'],
  ];
  const nic = { device: DEVICE, options: nicOptions(DEVICE, []) };
  const machine = { name: null, command: null, args, mac, nic, onPoweroff: 'stop', memoryMb } as const;
  return { machine: { ...machine, files: [...files] }, findings };
}
