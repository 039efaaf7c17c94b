/**
 * QEMU's command line: the user's machine, and what the node adds to it.
 *
 * Goal: both VMs of a pair get the same machine, and the node owns all connections to it: the NIC's backend,
 * QMP and the incoming migration. The function is pure: it starts nothing and looks nothing up.
 *
 * The node adds `-netdev stream` with QEMU as the server, so that a node can connect again; the NIC, without an
 * option ROM (that would be one more file that both hosts must have in the same version); QMP; and, for a secondary,
 * `-incoming defer`, because capabilities have to be set before the incoming side listens.
 * virtio-net gets `guest_announce=off`: loading state arms it again, so the secondary's guest would announce itself
 * after every checkpoint, and the primary's would not (virtio_net_post_load_device).
 *
 * Limits: a unix socket's path fits into sun_path (endpoint.ts). Failure: COLO_CONFIG_QEMU_ARGS for arguments that would take
 * any of this away from the node, before QEMU gets them.
 */
import { unixPathProblem } from '../endpoint.ts';
import { ColoError, invariant } from '../error.ts';
import { ETHERNET_FRAME_BYTES_MIN } from '../wire/ethernet.ts';

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
  /** the socket for the VM's frames, which QEMU makes */
  readonly vmPort: string;
  /** the socket for QMP, which QEMU makes */
  readonly qmp: string;
  /** whether the VM waits for a primary's state instead of booting */
  readonly incoming: boolean;
  /** see probeExitWithParent */
  readonly exitWithParent: boolean;
}

const REFUSED: ReadonlyMap<string, string> = new Map([
  ['netdev', "the node adds the VM's only NIC; a second network would bypass it. Remove it, or use vm.nic"],
  ['nic', "the node adds the VM's only NIC; a second network would bypass it. Remove it, or use vm.nic"],
  ['net', "the node adds the VM's only NIC; a second network would bypass it. Remove it, or use vm.nic"],
  ['incoming', 'the node decides which VM loads state. Remove it'],
  ['qmp', "the node needs QMP to itself. Remove it; use '-monitor' for a console of your own"],
  ['qmp-pretty', "the node needs QMP to itself. Remove it; use '-monitor' for a console of your own"],
  ['daemonize', 'the node watches its QEMU and must be its parent. Remove it'],
  ['preconfig', 'the node starts the machine by itself. Remove it'],
]);

/** Returns the full argument vector, program first. */
export function buildCommandLine(options: CommandLineOptions): string[] {
  refuseCollisions(options.args);
  checkUnixPath(options.vmPort);
  checkUnixPath(options.qmp);
  const argv = [...options.command, ...options.args];
  if (!options.args.some((arg) => optionName(arg) === 'name')) {
    argv.push('-name', `guest=${escapeValue(options.name)}`);
  }
  argv.push(
    '-netdev',
    `stream,id=colo0,server=on,addr.type=unix,addr.path=${escapeValue(options.vmPort)}`,
    '-device',
    nicDevice(options.nic),
    '-qmp',
    `unix:${escapeValue(options.qmp)},server=on,wait=off`,
  );
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
  return isVirtio(device) ? 0 : ETHERNET_FRAME_BYTES_MIN;
}

function isVirtio(device: string): boolean {
  return device.startsWith('virtio-net');
}

function nicDevice(nic: NicOptions): string {
  const device = nic.device ?? DEFAULT_NIC;
  const parts = [device, 'netdev=colo0', `mac=${nic.mac}`, 'romfile='];
  if (isVirtio(device)) parts.push('guest_announce=off');
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

function refuseCollisions(args: readonly string[]): void {
  for (const arg of args) {
    const reason = REFUSED.get(optionName(arg) ?? '');
    if (reason) throw new ColoError('COLO_CONFIG_QEMU_ARGS', `vm.args holds ${arg}: ${reason}`);
    if (/(^|,)(id|netdev)=colo0(,|$)/.test(arg)) {
      const text = `vm.args holds ${arg}: the name colo0 belongs to the node. Choose another one`;
      throw new ColoError('COLO_CONFIG_QEMU_ARGS', text);
    }
  }
}

/** Returns an option's name. QEMU accepts both `-name` and `--name`. */
function optionName(arg: string): string | undefined {
  return /^--?([a-z][\w-]*)$/.exec(arg)?.[1];
}
