/**
 * QEMU's command line: the user's machine, and what the node adds to it.
 *
 * Goal: both VMs of a pair get the same machine, and the node owns all connections to it: the NIC's backend,
 * QMP and the incoming migration. The function is pure: it starts nothing and looks nothing up.
 *
 * The node adds the replicated disks (disk-arguments.ts), `-netdev stream` with QEMU as the server, so that a node can connect again; the NIC, without an
 * option ROM (that would be one more file that both hosts must have in the same version); QMP; and, for a secondary,
 * `-incoming defer`, because capabilities have to be set before the incoming side listens.
 * virtio-net gets `guest_announce=off`: loading state arms it again, so the secondary's guest would announce itself
 * after every checkpoint, and the primary's would not (virtio_net_post_load_device).
 *
 * Limits: a unix socket's path fits into sun_path (endpoint.ts). Failure: COLO_CONFIG_QEMU_ARGS for arguments that would take
 * any of this away from the node, before QEMU gets them.
 */
import type { Disk } from '../disk/disk.ts';
import { unixPathProblem } from '../endpoint.ts';
import { ColoError, invariant } from '../error.ts';
import { ETHERNET_FRAME_BYTES_MIN } from '../wire/ethernet.ts';
import { diskArguments, secondUserOf } from './disk-arguments.ts';
import { optionName } from './option-syntax.ts';
import { isVirtioNet, userProblems } from './user-arguments.ts';

const DEFAULT_NIC = 'virtio-net-pci';

export interface NicOptions {
  /** a QEMU device; by default virtio-net-pci */
  readonly device?: string;
  readonly mac: string;
  /** more properties, as in "mq=off,romfile="; they take precedence over the node's */
  readonly options?: string;
}

export interface CommandLineOptions {
  /** the program and its first arguments */
  readonly command: readonly string[];
  /** the machine, from the user's configuration */
  readonly args: readonly string[];
  readonly name: string;
  readonly nic: NicOptions;
  /** the disks that the guest writes to; none if not given */
  readonly disks?: readonly Disk[];
  /** the socket for the VM's frames, which QEMU makes */
  readonly vmPort: string;
  /** the socket for QMP, which QEMU makes */
  readonly qmp: string;
  /** whether the VM waits for a primary's state instead of booting */
  readonly incoming: boolean;
  /** see probeExitWithParent */
  readonly exitWithParent: boolean;
}

/** Returns the full argument vector, program first. */
export function buildCommandLine(options: CommandLineOptions): string[] {
  refuseCollisions(options);
  checkUnixPath(options.vmPort);
  checkUnixPath(options.qmp);
  const argv = [...options.command, ...options.args];
  if (!options.args.some((arg) => optionName(arg) === 'name')) {
    argv.push('-name', `guest=${escapeValue(options.name)}`);
  }
  argv.push(...nicArguments(options.nic, options.vmPort));
  // After the NIC: a VM that gets a disk keeps its NIC's place on the bus.
  argv.push(...diskArguments(options.disks ?? []));
  argv.push('-qmp', `unix:${escapeValue(options.qmp)},server=on,wait=off`);
  // A guest that switches itself off, or panics, leaves its QEMU to the node, which asks it why.
  argv.push('-no-shutdown');
  if (options.incoming) argv.push('-incoming', 'defer');
  if (options.exitWithParent) argv.push('-run-with', 'exit-with-parent=on');
  const nics = argv.filter((arg) => optionName(arg) === 'netdev');
  invariant(nics.length === 1, "a VM's only network must be that of its node");
  return argv;
}

/**
 * Returns how many bytes a frame for the VM must have, without its checksum. Real networks deliver no shorter frame than
 * Ethernet's minimum, so a model of a real card, and its driver, may drop one. virtio-net takes frames of any size.
 */
export function frameBytesMinOf({ device = DEFAULT_NIC }: Pick<NicOptions, 'device'>): number {
  return isVirtioNet(device) ? 0 : ETHERNET_FRAME_BYTES_MIN;
}

/** Devices of PCI have an option ROM; those of virtio-mmio, CCW, ISA and USB have no such property. */
function hasRom(device: string): boolean {
  return !/(-device|-ccw|_isa)$|^usb-/.test(device);
}

/** Returns the arguments of the VM's NIC, and of its backend at `vmPort`. */
export function nicArguments(nic: NicOptions, vmPort: string): string[] {
  const backend = `stream,id=colo0,server=on,addr.type=unix,addr.path=${escapeValue(vmPort)}`;
  return ['-netdev', backend, '-device', nicDevice(nic)];
}

function nicDevice(nic: NicOptions): string {
  const device = nic.device ?? DEFAULT_NIC;
  const parts = [device, 'netdev=colo0', `mac=${nic.mac}`];
  if (hasRom(device)) parts.push('romfile=');
  if (isVirtioNet(device)) parts.push('guest_announce=off');
  // QEMU uses the last of two values for one property.
  if (nic.options) parts.push(nic.options);
  return parts.join(',');
}

/** Escapes a value for QEMU's option syntax, in which a comma ends a value and two commas are one comma in it. */
export function escapeValue(value: string): string {
  return value.replaceAll(',', ',,');
}

/** Throws COLO_CONFIG_SOCKET_PATH if a unix socket of the run directory cannot have this path. */
export function checkUnixPath(path: string): void {
  const problem = unixPathProblem(path);
  if (problem !== null)
    throw new ColoError('COLO_CONFIG_SOCKET_PATH', `runDirectory cannot have the socket ${path}: ${problem}`);
}

/** Throws COLO_CONFIG_QEMU_ARGS for what user-arguments.ts refuses. */
function refuseCollisions({ command, args, nic, disks = [] }: CommandLineOptions): void {
  const { device = DEFAULT_NIC, options = '' } = nic;
  const [problem] = userProblems({ command, args, nic: { device, options }, disks });
  if (problem !== undefined) throw new ColoError('COLO_CONFIG_QEMU_ARGS', problem.text);
  const second = secondUserOf({ args, command }, disks);
  if (second !== null) throw new ColoError('COLO_CONFIG_QEMU_ARGS', second.text);
}
