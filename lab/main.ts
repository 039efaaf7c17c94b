/**
 * `npm run lab -- up|setup|check`: the guest directly on the network, without a node in between. It shows that the
 * lab itself works before a test uses it. `bed`: a protected pair on two hosts.
 */
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { ColoError } from '../src/error.ts';
import { becomeRoot } from './as-root.ts';
import { Bed } from './bed/bed.ts';
import { checkServices } from './check.ts';
import { type GuestImage, installGuest } from './guest/image.ts';
import { GUEST_SERVICES, type Network, startNetwork } from './network.ts';
import { removeWorkFolder, startChild, stopChild, workFolder } from './process.ts';
import { installPasst } from './program.ts';
import { installQemu, type QemuInstall } from './qemu.ts';
import { nicArguments, untilReady, vmArguments } from './vm.ts';

const HELP = `npm run lab -- COMMAND
  setup   fetch QEMU, passt and the guest into the cache ($COLO_CACHE, else ~/.cache/colo-proxy)
  up      boot one guest, print the ports of this host that lead to its services, run until Ctrl-C
  check   boot one guest, use each of its services over IPv4 and IPv6, say what works
  bed     two hosts with a protected guest, a client and an etcd in network namespaces (docs/chaos.md), print how to enter
          each, run until Ctrl-C; needs root, or user namespaces`;

const BOOT_MS_MAX = 60_000;

type Lab = {
  readonly vm: ChildProcess;
  readonly network: Network;
  readonly bootMs: number;
  stop(): Promise<void>;
};

async function setup(): Promise<{ install: QemuInstall; image: GuestImage }> {
  const image = await installGuest();
  const install = await installQemu();
  await installPasst();
  return { install, image };
}

async function bring(): Promise<Lab> {
  const { install, image } = await setup();
  const dir = workFolder();
  const network = await startNetwork({ services: GUEST_SERVICES, install, dir, uplinks: 1, ipv6: 'wanted' });
  const consoleFile = join(dir, 'console');
  const netdev = `stream,id=net0,server=off,addr.type=unix,addr.path=${network.uplinks[0]}`;
  const args = [...vmArguments(install, image, { consoleFile }), '-netdev', netdev, ...nicArguments('net0')];
  const start = performance.now();
  const vm = startChild([...install.command, ...args], {
    env: { ...process.env, ...install.env },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  await untilReady(vm, consoleFile, BOOT_MS_MAX);
  const bootMs = performance.now() - start;
  const stop = async (): Promise<void> => {
    await stopChild(vm);
    await network.stop();
    removeWorkFolder(dir);
  };
  return { vm, network, bootMs, stop };
}

async function up(): Promise<number> {
  const lab = await bring();
  process.stdout.write(`${JSON.stringify(lab.network.forwards, null, 2)}\nready; Ctrl-C stops\n`);
  await new Promise((resolve) => lab.vm.once('exit', resolve));
  await lab.stop();
  return 0;
}

async function check(): Promise<number> {
  const lab = await bring();
  process.stdout.write(`ok    boot in ${(lab.bootMs / 1000).toFixed(1)} s\n`);
  const failures = await checkServices(lab.network.forwards, (line) => process.stdout.write(`${line}\n`));
  await lab.stop();
  process.stdout.write(failures === 0 ? 'lab: ok\n' : `lab: ${failures} failed\n`);
  return failures === 0 ? 0 : 1;
}

async function bed(): Promise<number> {
  await becomeRoot();
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => interrupted.abort());
  const opened = await Bed.open({ arbiter: 'etcd' });
  try {
    await opened.bring(interrupted.signal);
    process.stdout.write(`${opened.describe()}\nready; Ctrl-C stops\n`);
    const timer = setInterval(() => undefined, 60_000);
    await new Promise((resolve) => interrupted.signal.addEventListener('abort', resolve));
    clearInterval(timer);
  } catch (cause) {
    if (!interrupted.signal.aborted) throw cause;
  } finally {
    await opened.close();
  }
  return 0;
}

async function main(command: string | undefined): Promise<number> {
  if (command === 'setup') return setup().then(() => 0);
  if (command === 'up') return up();
  if (command === 'check') return check();
  if (command === 'bed') return bed();
  const asked = command === '--help' || command === 'help';
  (asked ? process.stdout : process.stderr).write(`${HELP}\n`);
  return asked ? 0 : 2;
}

try {
  process.exitCode = await main(process.argv[2]);
} catch (error) {
  if (!(error instanceof ColoError)) throw error;
  process.stderr.write(`${error.code}: ${error.message}\n`);
  process.exitCode = 1;
}
