/** The checks of `colo doctor` for QEMU: its version, COLO, the NIC's device line, and KVM. */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NodeConfig } from '../config/node-config.ts';
import { atLeast, emulationNote, isBrokenSeries, type VersionNumber } from '../qemu/capabilities.ts';
import { nicArguments } from '../qemu/command-line.ts';
import { optionName } from '../qemu/option-syntax.ts';
import { startProblem } from '../qemu/start-problem.ts';
import { type Check, good, problem } from './check.ts';

/** QEMU starts in much less than a second; this leaves room for a cold cache on a slow disk. */
const QEMU_TIMEOUT_MS = 20_000;

type QemuVersion = VersionNumber & { readonly text: string };

export function checkQemu(config: NodeConfig, kvmPath: string): Check[] {
  const [program] = config.vm.command;
  const version = findQemu(config);
  if ('ok' in version) return [version];
  if (!atLeast(version, 7, 2)) {
    const found = `${version.text} is too old: it has no -netdev stream`;
    return [problem('QEMU', found, 'install 11.1 or later; 7.2 or later will do with KVM')];
  }
  if (isBrokenSeries(version)) {
    const found = `COLO does not work in ${version.text}`;
    return [problem('QEMU', found, 'install 11.1 or later; 10.2, or 7.2 to 9.2, will do with KVM')];
  }
  return [
    good('QEMU', `${version.text} (${program})`),
    checkColo(config),
    checkNic(config),
    checkKvm(config, version, kvmPath),
  ];
}

/** Returns the version of vm.command, or why there is none. */
function findQemu(config: NodeConfig): QemuVersion | Check {
  const [program] = config.vm.command;
  const { stdout, problem: failed } = runQemu(config, ['--version']);
  if (failed !== null) {
    const advice = 'install QEMU 11.1 or later (on Debian as docs/installation.md has it), or set vm.command';
    return problem('QEMU', `${program}: ${failed}`, advice);
  }
  const numbers = /version (\d+)\.(\d+)(?:\.\d+)?/.exec(stdout);
  if (numbers === null) {
    const found = `${program} --version does not name QEMU`;
    return problem('QEMU', found, 'set vm.command to a qemu-system program');
  }
  const [text, major, minor] = numbers;
  return { text: text.slice('version '.length), major: Number(major), minor: Number(minor) };
}

/** QEMU before 11.1 needs KVM, and so does a VM whose arguments ask for it. Without such arguments QEMU emulates. */
function checkKvm(config: NodeConfig, version: QemuVersion, kvmPath: string): Check {
  const kvm = kvmProblem(kvmPath);
  if (/-enable-kvm\b|\baccel[= ]kvm\b/.test(config.vm.args.join(' '))) {
    if (kvm === null) return good('KVM', kvmPath);
    return problem('KVM', kvm, 'vm.args ask for KVM; make it usable or take it out of vm.args');
  }
  const without = kvm ?? `${kvmPath} is there, but vm.args do not ask for it (-accel kvm)`;
  if (atLeast(version, 11, 1)) return good('KVM', `${without}; ${emulationNote(version)}`);
  return problem(
    'KVM',
    without,
    `QEMU ${version.text} hangs at its first checkpoint without KVM; use KVM or install QEMU 11.1 or later`,
  );
}

/** A QEMU that was built without replication does not have the capability. */
function checkColo(config: NodeConfig): Check {
  const { stdout, problem: failed } = runQmp(config, ['-machine', 'none'], ['query-migrate-capabilities']);
  if (failed !== null)
    return problem(
      'COLO in QEMU',
      `QEMU does not start: ${failed}`,
      'start vm.command by hand with -machine none and see',
    );
  if (stdout.includes('"x-colo"')) return good('COLO in QEMU', 'x-colo is there');
  return problem(
    'COLO in QEMU',
    'this QEMU was built without x-colo',
    'install a QEMU built with --enable-replication, as Debian does',
  );
}

/**
 * Starts QEMU with the very device line that the node will use, and with the machine's type, so that QEMU itself judges each
 * property; nothing else of vm.args is given to it, so no disk is opened and no memory used.
 */
function checkNic(config: NodeConfig): Check {
  const { args, nic, mac } = config.vm;
  const named = runQemu(config, ['-device', `${nic.device},help`]);
  if (named.problem !== null) {
    const advice = 'set vm.nic.device to one that "qemu-system-x86_64 -device help" lists';
    return problem('NIC', `${nic.device}: ${named.problem}`, advice);
  }
  const folder = mkdtempSync(join(tmpdir(), 'colo-doctor-'));
  try {
    const start = ['-S', '-accel', 'kvm', '-accel', 'tcg'];
    const line = nicArguments({ device: nic.device, mac, options: nic.options }, join(folder, 'vm.sock'));
    const tried = runQmp(config, [...machineArguments(args), ...start, ...line], []);
    const device = line.at(-1) ?? '';
    if (tried.problem === null) return good('NIC', device);
    const why = tried.problem.split(`${device}: `).at(-1);
    return problem('NIC', `${device}: ${why}`, 'correct vm.nic: QEMU refuses to start with it');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Returns the machine's type and the buses that vm.args add, which the NIC may be on. */
function machineArguments(args: readonly string[]): string[] {
  return args.flatMap((arg, i) => {
    const value = args[i + 1] ?? '';
    const name = optionName(arg);
    if (name === 'machine' || name === 'M') {
      const type = /(?:^|,)type=([^,]+)/.exec(value)?.[1] ?? /^[^,=]+(?=,|$)/.exec(value)?.[0];
      return type === undefined ? [] : ['-machine', type];
    }
    return name === 'device' && isBus(driverOf(value)) ? [arg, value] : [];
  });
}

/** The device's name: the first word, or "driver" where the device is given in JSON. */
function driverOf(value: string): string {
  return /^[^,{]+/.exec(value)?.[0] ?? /"driver"\s*:\s*"([^"]+)"/.exec(value)?.[1] ?? '';
}

/** Root ports, bridges, expanders and switches of PCI, and controllers of USB. */
function isBus(driver: string): boolean {
  return /port|bridge|pxb|upstream|downstream|ioh3420|[xeuo]hci|usb-hub/.test(driver);
}

type Run = { stdout: string; problem: string | null };

/** Starts QEMU without default devices, and ends it when it has executed the QMP commands. */
function runQmp(config: NodeConfig, args: readonly string[], commands: readonly string[]): Run {
  const all = ['qmp_capabilities', ...commands, 'quit'];
  const input = all.map((execute) => `${JSON.stringify({ execute })}\n`).join('');
  return runQemu(config, [...args, '-nodefaults', '-display', 'none', '-qmp', 'stdio'], input);
}

function runQemu(config: NodeConfig, args: readonly string[], input = ''): Run {
  const [program, ...first] = config.vm.command;
  const { error, status, signal, stdout, stderr } = spawnSync(program, [...first, ...args], {
    input,
    encoding: 'utf8',
    timeout: QEMU_TIMEOUT_MS,
    env: { ...process.env, ...config.vm.env },
  });
  if (error !== undefined) {
    return { stdout: '', problem: startProblem(program, error) };
  }
  if (status === 0) return { stdout, problem: null };
  const why = stderr.trim().split('\n').at(-1) || `it ended with ${signal ?? `exit code ${status}`}`;
  return { stdout, problem: why };
}

/** Opens the device: its file may exist without the kernel module or the permission. */
function kvmProblem(path: string): string | null {
  try {
    closeSync(openSync(path, constants.O_RDWR));
    return null;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return `there is no ${path}`;
    if (code === 'EACCES' || code === 'EPERM') return `this user may not use ${path}`;
    return `${path} does not work (${code})`;
  }
}
