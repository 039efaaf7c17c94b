/** `colo doctor`: checks what a node needs before it is started, and advises what to do about each problem. */
import { spawnSync } from 'node:child_process';
import {
  accessSync,
  closeSync,
  constants,
  existsSync,
  linkSync,
  openSync,
  statSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { Command } from 'commander';
import { loadNodeConfig, type NodeConfig } from '../config/node-config.ts';
import { type Endpoint, formatEndpoint, unixPathProblem } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import { acceptsUnix } from '../io/unix-socket.ts';
import { CONTROL_SOCKET } from '../observe/api.ts';
import { emulationNote, isBrokenSeries } from '../qemu/capabilities.ts';
import { startProblem } from '../qemu/start-problem.ts';
import { print, printJson, safe } from './output.ts';

/** `advice` is what to do; '' if `ok`. */
export type Check = { name: string; ok: boolean; found: string; advice: string };

/** QEMU starts in much less than a second; this leaves room for a cold cache on a slow disk. */
const QEMU_TIMEOUT_MS = 20_000;
const KVM = '/dev/kvm';

const good = (name: string, found: string): Check => ({ name, ok: true, found, advice: '' });
const problem = (name: string, found: string, advice: string): Check => ({ name, ok: false, found, advice });

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('Checks whether a node can run on this machine: QEMU, KVM, directories, sockets, ports')
    .option('-c, --config <file>', "the node's YAML file")
    .option('--json', 'print JSON')
    .action(async (options: { config?: string; json?: boolean }) => {
      if (options.config === undefined) throw new ColoError('COLO_USAGE', 'which node? give -c FILE.yaml');
      const config = loadNodeConfig(options.config);
      const checks = [good('configuration', options.config), ...(await examine(config))];
      const ok = checks.every((check) => check.ok);
      if (options.json === true) printJson({ ok, checks });
      else print(checksText(checks));
      process.exitCode = ok ? 0 : 1;
    });
}

export async function examine(config: NodeConfig, kvmPath: string = KVM): Promise<Check[]> {
  const socket = join(config.runDirectory, CONTROL_SOCKET);
  const runs = await acceptsUnix(socket);
  const checks = [
    ...checkQemu(config, kvmPath),
    checkArbiterDirectory('arbiter', config.arbiter.directory),
    checkDirectory('run directory', config.runDirectory),
    checkDirectory('event log', dirname(config.eventLog)),
    checkSocketPath('control socket', socket, runs ? 'a node runs there' : 'free'),
    await checkListen('link.listen', config.link.listen, runs),
    checkUplink(config.uplink),
  ];
  if (config.metrics !== undefined)
    checks.push(await checkListen('metrics.listen', config.metrics.listen, runs));
  return checks;
}

export function checksText(checks: readonly Check[]): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  return checks
    .map(({ name, ok, found, advice }) => {
      const line = `${ok ? 'ok     ' : 'PROBLEM'} ${name.padEnd(width)}  ${safe(found)}`;
      return advice === '' ? line : `${line}\n${' '.repeat(10 + width)}${safe(advice)}`;
    })
    .join('\n');
}

type QemuVersion = { text: string; major: number; minor: number };

function checkQemu(config: NodeConfig, kvmPath: string): Check[] {
  const [program] = config.vm.command;
  const version = findQemu(config);
  if ('ok' in version) return [version];
  if (!isAtLeast(version, 7, 2)) {
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
    const advice = 'install QEMU 11.1 or later (Debian: qemu-system-x86), or set vm.command';
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

function isAtLeast(version: QemuVersion, major: number, minor: number): boolean {
  return version.major > major || (version.major === major && version.minor >= minor);
}

/** QEMU before 11.1 needs KVM, and so does a VM whose arguments ask for it. Without such arguments QEMU emulates. */
function checkKvm(config: NodeConfig, version: QemuVersion, kvmPath: string): Check {
  const kvm = kvmProblem(kvmPath);
  if (/-enable-kvm\b|\baccel[= ]kvm\b/.test(config.vm.args.join(' '))) {
    if (kvm === null) return good('KVM', kvmPath);
    return problem('KVM', kvm, 'vm.args ask for KVM; make it usable or take it out of vm.args');
  }
  const without = kvm ?? `${kvmPath} is there, but vm.args do not ask for it (-accel kvm)`;
  if (isAtLeast(version, 11, 1)) return good('KVM', `${without}; ${emulationNote(version)}`);
  return problem(
    'KVM',
    without,
    `QEMU ${version.text} hangs at its first checkpoint without KVM; use KVM or install QEMU 11.1 or later`,
  );
}

/** A QEMU that was built without replication does not have the capability. */
function checkColo(config: NodeConfig): Check {
  const commands = ['qmp_capabilities', 'query-migrate-capabilities', 'quit'];
  const input = commands.map((execute) => `${JSON.stringify({ execute })}\n`).join('');
  const machine = ['-machine', 'none', '-nodefaults', '-display', 'none', '-qmp', 'stdio'];
  const { stdout, problem: failed } = runQemu(config, machine, input);
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

function checkNic(config: NodeConfig): Check {
  const { device } = config.vm.nic;
  const { problem: failed } = runQemu(config, ['-device', `${device},help`]);
  if (failed === null) return good('NIC', device);
  return problem(
    'NIC',
    `${device}: ${failed}`,
    'set vm.nic.device to one that "qemu-system-x86_64 -device help" lists',
  );
}

function runQemu(config: NodeConfig, args: string[], input = ''): { stdout: string; problem: string | null } {
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

/** The arbiter stores its record by hard links. */
function checkArbiterDirectory(name: string, path: string): Check {
  return checkDirectory(name, path, (probe, directory) => {
    try {
      linkSync(probe, `${probe}.link`);
      unlinkSync(`${probe}.link`);
      return null;
    } catch (error) {
      const found = `the file system of ${directory} has no hard links (${errorCode(error)})`;
      return problem(name, found, 'choose one that has, such as ext4, xfs or tmpfs');
    }
  });
}

/**
 * Creates a file in the directory, or in its nearest parent that exists, where the node will create it. `also` checks
 * that file further: it returns a problem or null.
 */
function checkDirectory(
  name: string,
  path: string,
  also: (probe: string, directory: string) => Check | null = () => null,
): Check {
  let existing = path;
  while (!existsSync(existing)) existing = dirname(existing);
  if (!statSync(existing).isDirectory())
    return problem(name, `${existing} is not a directory`, 'choose another path');
  try {
    accessSync(existing, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch {
    return problem(
      name,
      `this user may not write to ${existing}`,
      'make it writable for the user of the node, or choose another',
    );
  }
  const probe = join(existing, `.colo-doctor-${process.pid}`);
  try {
    writeFileSync(probe, '', { flag: 'wx', mode: 0o600 });
  } catch (error) {
    return problem(
      name,
      `a file cannot be created in ${existing} (${errorCode(error)})`,
      'make room, mount it for writing, or choose another',
    );
  }
  try {
    return also(probe, existing) ?? good(name, existing === path ? path : `${path} (will be created)`);
  } finally {
    unlinkSync(probe);
  }
}

function errorCode(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}

function checkSocketPath(name: string, path: string, state: string): Check {
  const why = unixPathProblem(path);
  if (why === null) return good(name, `${path} (${state})`);
  return problem(name, `${path}: ${why}`, 'give a shorter runDirectory');
}

async function checkListen(name: string, endpoint: Endpoint, runs: boolean): Promise<Check> {
  const text = formatEndpoint(endpoint);
  if (endpoint.kind === 'unix') {
    if (!(await acceptsUnix(endpoint.path))) return good(name, `${text} (free)`);
    if (runs) return good(name, `${text} (in use by the node that runs)`);
    return problem(name, `${text} is in use`, 'stop what uses it, or choose another');
  }
  const code = await new Promise<string | null>((resolve) => {
    const server = createServer();
    server.on('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ host: endpoint.host, port: endpoint.port }, () => server.close(() => resolve(null)));
  });
  if (code === null) return good(name, `${text} (free)`);
  if (code === 'EADDRINUSE' && runs) return good(name, `${text} (in use by the node that runs)`);
  if (code === 'EADDRINUSE')
    return problem(name, `${text} is in use`, 'stop what uses it, or choose another port');
  if (code === 'EADDRNOTAVAIL')
    return problem(name, `${text}: this machine has no such address`, 'give one that it has');
  if (code === 'EACCES')
    return problem(name, `${text}: this user may not listen there`, 'choose a port above 1023');
  return problem(name, `${text}: ${code}`, 'give an address of this machine');
}

/** Does not connect: an uplink takes one client, and a running node would lose its connection. */
function checkUplink(uplink: Endpoint): Check {
  const text = formatEndpoint(uplink);
  if (uplink.kind === 'tcp') return good('uplink', `${text} (not tried)`);
  if (!existsSync(uplink.path))
    return problem('uplink', `${text}: there is no such socket`, 'start the network first, then the node');
  if (!statSync(uplink.path).isSocket())
    return problem('uplink', `${text} is not a socket`, 'give the socket of the network');
  return good('uplink', text);
}
