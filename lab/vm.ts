/**
 * The machine that the lab protects. Its network device is not part of it: the caller connects that to a node of ours
 * or to the hub.
 */
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../src/error.ts';
import type { GuestImage } from './guest/image.ts';
import type { Accelerator, Program } from './program.ts';

export const NIC = { mac: '52:54:00:c0:10:01', v4: '10.0.2.15', v6: 'fd00:c010::15' } as const;
export const PORTS = { http: 80, echo: 7, counter: 4000, counted: 4001, connectOut: 4002 } as const;
/** The addresses at which the guest reaches a listener on the host's loopback. */
export const HOST_FROM_GUEST = { v4: '10.0.2.2', v6: 'fd00:c010::2' } as const;

/**
 * TCP timestamps and SACK stay on, because colo-proxy must handle them. The rest makes the guest boot quickly under
 * TCG: no timer calibration against late interrupts, no relocation for address randomisation, no mitigations in a guest
 * that runs only its own programs, no self-tests.
 */
const KERNEL_COMMAND_LINE = [
  'console=ttyS0',
  'quiet',
  'panic=-1',
  'no_timer_check',
  'nokaslr',
  'mitigations=off',
  'random.trust_cpu=on',
  'rcupdate.rcu_expedited=1',
  // On a busy host the guest would take its clock for unstable, and patch its own code on one side of a pair only.
  'tsc=nowatchdog',
  '8250.nr_uarts=1',
  'cryptomgr.notests',
  // An unused source of jitter and unused certificates: 0.4 s of emulated computing.
  'initcall_blacklist=jent_mod_init,load_system_certificate_list',
].join(' ');

export type VmOptions = {
  /** The file for the serial console's output, if any. */
  readonly consoleFile?: string;
  /** 256 if not given. */
  readonly memoryMb?: number;
  /** 1 if not given. */
  readonly processors?: number;
  /** More words for the kernel's command line, which the guest reads. */
  readonly words?: readonly string[];
};

/** Returns QEMU's arguments without `-netdev`, `-device virtio-net-pci` (see nicArguments) and migration. */
export function vmArguments(
  install: Program & {
    readonly version: string;
    readonly accel: Accelerator;
    readonly remedy: readonly string[];
  },
  image: GuestImage,
  options: VmOptions = {},
): string[] {
  const { memoryMb = 256, processors = 1, words = [] } = options;
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none'],
    ...['-machine', 'pc', '-accel', install.accel, '-cpu', install.accel === 'kvm' ? 'host' : 'qemu64'],
    ...['-m', String(memoryMb), '-smp', String(processors)],
    ...['-rtc', 'base=utc,clock=vm'],
    ...['-kernel', image.kernel, '-initrd', image.initrd],
    ...['-append', [KERNEL_COMMAND_LINE, ...words].join(' ')],
    ...['-serial', options.consoleFile === undefined ? 'null' : `file:${options.consoleFile}`],
    ...install.remedy,
    ...endWithParent(install),
  ];
}

/** Returns arguments that make QEMU end with the process that started it, however that ends. Old QEMUs cannot. */
export function endWithParent(install: { readonly version: string }): string[] {
  return Number.parseInt(install.version, 10) >= 11 ? ['-run-with', 'exit-with-parent=on'] : [];
}

/** Returns the arguments for the network device of a netdev, which must be the same in both VMs of a pair. */
export function nicArguments(netdev: string): string[] {
  const nic = `virtio-net-pci,netdev=${netdev},romfile=,guest_announce=off,rx_queue_size=1024,mac=${NIC.mac}`;
  return ['-device', nic];
}

const READY = 'colo-guest ready';
const POLL_MS = 20;

/** Resolves when the guest's services listen. Throws COLO_LAB_GUEST if its QEMU ends, or after `timeoutMs`. */
export async function untilReady(child: ChildProcess, consoleFile: string, timeoutMs: number): Promise<void> {
  const end = performance.now() + timeoutMs;
  for (;;) {
    const text = readConsole(consoleFile);
    if (text.includes(READY)) return;
    const ended = child.exitCode !== null || child.signalCode !== null;
    if (ended || performance.now() > end) {
      const why = ended ? 'QEMU ended' : `it took longer than ${timeoutMs / 1000} s`;
      const last = text.trim().split('\n').at(-1);
      throw new ColoError(
        'COLO_LAB_GUEST',
        `the guest did not start: ${why}; its console ends with "${last}"`,
      );
    }
    await sleep(POLL_MS);
  }
}

function readConsole(file: string): string {
  try {
    return readFileSync(file, 'latin1');
  } catch {
    return '';
  }
}
