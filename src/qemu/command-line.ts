/**
 * QEMU's command line: the user's machine, and what the node adds to it.
 *
 * Goal: both VMs of a pair get the same machine, and the node owns the ways in and out of it: the NIC's backend,
 * QMP and the incoming migration. A pure function; nothing is started or looked up here.
 *
 * What is added: `-netdev stream` with QEMU as the server, so that a node may come back to it; the NIC, without an
 * option ROM (it would be one more file that both hosts must have alike); QMP; and, on a VM that is to become a
 * secondary, `-incoming defer`, because capabilities must be set before the incoming side listens.
 * On virtio-net `guest_announce=off`: loading state re-arms it, so the secondary's guest would announce itself
 * after every checkpoint, which the primary's does not (virtio_net_post_load_device).
 *
 * Limits: a unix socket's path fits into sun_path. Failure: arguments that would take any of this away from the
 * node are refused with COLO_CONFIG_QEMU_ARGS before QEMU sees them.
 */
import { ColoError } from '../error.ts';

/** sockaddr_un holds 108 bytes and QEMU wants the terminating zero. */
export const UNIX_PATH_BYTES_MAX = 107;

export interface NicOptions {
  /** A QEMU device, virtio-net-pci if not given. */
  readonly device?: string;
  readonly mac: string;
  /** More properties, as in "mq=off,romfile="; they win over ours. */
  readonly options?: string;
}

export interface CommandLineOptions {
  /** The program and its first arguments. */
  readonly command: readonly string[];
  /** The machine, from the user's configuration. */
  readonly args: readonly string[];
  readonly name: string;
  readonly nic: NicOptions;
  /** Socket for the VM's frames; QEMU makes it. */
  readonly vmPort: string;
  /** Socket for QMP; QEMU makes it. */
  readonly qmp: string;
  /** Whether the VM waits for a primary's state instead of booting. */
  readonly incoming: boolean;
  /** See probeExitWithParent. */
  readonly exitWithParent: boolean;
}

const REFUSED: ReadonlyMap<string, string> = new Map([
  ['netdev', "the node adds the VM's only NIC; a second network would bypass it. Remove it, or use vm.nic"],
  ['nic', "the node adds the VM's only NIC; a second network would bypass it. Remove it, or use vm.nic"],
  ['net', "the node adds the VM's only NIC; a second network would bypass it. Remove it, or use vm.nic"],
  ['incoming', 'the node decides which VM takes in state. Remove it'],
  ['qmp', "the node needs QMP to itself. Remove it; use '-monitor' for a console of your own"],
  ['qmp-pretty', "the node needs QMP to itself. Remove it; use '-monitor' for a console of your own"],
  ['daemonize', 'the node watches over its QEMU and must be its parent. Remove it'],
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
  return argv;
}

function nicDevice(nic: NicOptions): string {
  const device = nic.device ?? 'virtio-net-pci';
  const parts = [device, 'netdev=colo0', `mac=${nic.mac}`, 'romfile='];
  if (device.startsWith('virtio-net')) parts.push('guest_announce=off');
  // Of two values for one property QEMU takes the last.
  if (nic.options) parts.push(nic.options);
  return parts.join(',');
}

/** A comma ends a value in QEMU's option syntax, two are one comma in it. */
export function escapeValue(value: string): string {
  return value.replaceAll(',', ',,');
}

export function checkUnixPath(path: string): void {
  const bytes = Buffer.byteLength(path);
  if (bytes > UNIX_PATH_BYTES_MAX || bytes === 0 || path.includes('\0')) {
    const text = `${path}: a unix socket's path has 1 to ${UNIX_PATH_BYTES_MAX} bytes, this one ${bytes}; choose a shorter runDirectory`;
    throw new ColoError('COLO_CONFIG_SOCKET_PATH', text);
  }
}

function refuseCollisions(args: readonly string[]): void {
  for (const arg of args) {
    const reason = REFUSED.get(optionName(arg) ?? '');
    if (reason) throw new ColoError('COLO_CONFIG_QEMU_ARGS', `vm.args holds ${arg}: ${reason}`);
    if (/(^|,)(id|netdev)=colo0(,|$)/.test(arg)) {
      const text = `vm.args holds ${arg}: the name colo0 is the node's. Choose another`;
      throw new ColoError('COLO_CONFIG_QEMU_ARGS', text);
    }
  }
}

/** QEMU takes `-name` and `--name` alike. */
function optionName(arg: string): string | undefined {
  return /^--?([a-z][\w-]*)$/.exec(arg)?.[1];
}
