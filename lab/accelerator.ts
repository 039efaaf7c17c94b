/**
 * Finds out whether KVM works. /dev/kvm may exist, open, and still run no guest (nested virtualisation that is broken
 * or restricted), so the only proof is a guest that boots.
 */
import { accessSync, constants, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheFolder, progress } from './cache.ts';
import { installGuest } from './guest/image.ts';
import { removeWorkFolder, startChild, stopChild, workFolder } from './process.ts';
import type { Accelerator, Program } from './program.ts';
import { untilReady, vmArguments } from './vm.ts';

/** With KVM the guest boots in one to two seconds. */
const PROBE_MS_MAX = 15_000;

export async function workingAccelerator(program: Program & { version: string }): Promise<Accelerator> {
  if (process.arch !== 'x64' || !canOpen('/dev/kvm')) return 'tcg';
  // The result holds for this QEMU until the machine boots again.
  const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  const question = `${boot} ${program.version} ${program.command[0]}`;
  const memory = join(cacheFolder(), 'accelerator.json');
  const known = recall(memory);
  if (known?.question === question) return known.accel;
  progress('trying out KVM ...');
  const accel = (await bootsWithKvm(program)) ? 'kvm' : 'tcg';
  progress(accel === 'kvm' ? 'KVM works' : 'KVM does not work here; QEMU will emulate the processor');
  mkdirSync(cacheFolder(), { recursive: true });
  writeFileSync(memory, JSON.stringify({ question, accel }));
  return accel;
}

async function bootsWithKvm(program: Program & { version: string }): Promise<boolean> {
  const image = await installGuest();
  const folder = workFolder();
  const consoleFile = join(folder, 'console');
  const args = vmArguments({ ...program, accel: 'kvm', remedy: [] }, image, { consoleFile });
  const env = { ...process.env, ...program.env };
  const child = startChild([...program.command, ...args], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  // QEMU only stops the guest at such an error, and does not end.
  child.stderr?.on('data', (text: Buffer) => {
    if (text.includes('KVM internal error')) child.kill('SIGKILL');
  });
  try {
    await untilReady(child, consoleFile, PROBE_MS_MAX);
    return true;
  } catch {
    return false;
  } finally {
    await stopChild(child);
    removeWorkFolder(folder);
  }
}

function canOpen(path: string): boolean {
  try {
    accessSync(path, constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

function recall(memory: string): { question: string; accel: Accelerator } | null {
  try {
    return JSON.parse(readFileSync(memory, 'utf8'));
  } catch {
    return null;
  }
}
