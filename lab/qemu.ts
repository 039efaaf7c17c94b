/** Chooses the QEMU that the lab runs: the machine's own if it is new enough, else a private one. */
import { accessSync, constants, statSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError } from '../src/error.ts';
import { workingAccelerator } from './accelerator.ts';
import { progress } from './cache.ts';
import { run } from './process.ts';
import { type Accelerator, libraryFolder, type Program, throughLoader, unpackPackages } from './program.ts';
import { remedyArguments } from './stale-code/remedy.ts';

export type QemuInstall = Program & {
  readonly version: string;
  readonly accel: Accelerator;
  /** Arguments without which no pair may be started (stale-code/remedy.ts); none under KVM. */
  readonly remedy: readonly string[];
  /** The start of qemu-img's command line, with the same environment. */
  readonly imageCommand: string[];
};

/** Older QEMUs deadlock their primary under TCG (docs/qemu.md), and the lab must work without KVM. */
const VERSION_MIN = [11, 1] as const;

let installed: Promise<QemuInstall> | undefined;

export function installQemu(): Promise<QemuInstall> {
  installed ??= findOrFetch();
  return installed;
}

async function findOrFetch(): Promise<QemuInstall> {
  const own = await systemQemu();
  if (own === null) return prepared(await privateQemu());
  try {
    return await prepared(own);
  } catch (error) {
    if (process.env.COLO_QEMU || !(error instanceof ColoError)) throw error;
    progress(`not the installed QEMU: ${error.message}`);
    return prepared(await privateQemu());
  }
}

async function prepared(program: Found): Promise<QemuInstall> {
  const accel = await workingAccelerator(program);
  return { ...program, accel, remedy: accel === 'tcg' ? await remedyArguments(program) : [] };
}

type Found = Omit<QemuInstall, 'accel' | 'remedy'>;

async function systemQemu(): Promise<Found | null> {
  const chosen = process.env.COLO_QEMU;
  const path = chosen || (await onPath('qemu-system-x86_64'));
  if (path === null) return null;
  const found: Found = { command: [path], env: {}, version: '', imageCommand: ['qemu-img'] };
  const version = await versionOf(found);
  // COLO_QEMU is used whatever its version; a pair of it must be exact (stale-code/remedy.ts).
  return chosen || isNewEnough(version) ? { ...found, version } : null;
}

/** Installs Debian 12's QEMU 7.2, to measure against, never to run a pair with. */
export async function installOldQemu(): Promise<Program & { readonly version: string }> {
  const found = await unpackQemu('qemu-bookworm', 'bookworm');
  return { ...found, version: await versionOf(found) };
}

async function privateQemu(): Promise<Found> {
  const found = await unpackQemu('qemu', 'trixie-backports');
  const version = await versionOf(found);
  if (isNewEnough(version)) return { ...found, version };
  throw new ColoError(
    'COLO_SETUP_QEMU',
    `trixie-backports has QEMU ${version}, and the lab needs ${VERSION_MIN.join('.')}; set COLO_DEBIAN_MIRROR to an up-to-date mirror`,
  );
}

async function unpackQemu(name: string, suite: 'bookworm' | 'trixie-backports'): Promise<Found> {
  const folder = await unpackPackages({
    what: 'QEMU',
    name,
    megabytes: 350,
    suite,
    packages: ['qemu-system-x86', 'qemu-utils'],
  });
  const binary = join(folder, 'usr/bin/qemu-system-x86_64');
  const data = ['usr/share/qemu', 'usr/share/seabios', 'usr/lib/ipxe/qemu'];
  return {
    command: [...throughLoader(folder, binary), ...data.flatMap((path) => ['-L', join(folder, path)])],
    env: { QEMU_MODULE_DIR: join(folder, libraryFolder(), 'qemu') },
    version: '',
    imageCommand: throughLoader(folder, join(folder, 'usr/bin/qemu-img')),
  };
}

async function versionOf(program: Program): Promise<string> {
  const env = { ...process.env, ...program.env };
  const done = await run([...program.command, '--version'], { env });
  const version = /version ([0-9]+\.[0-9]+(?:\.[0-9]+)*)/.exec(done.stdout)?.[1];
  if (version !== undefined) return version;
  const why = done.stderr.trim().split('\n')[0];
  throw new ColoError('COLO_SETUP_QEMU', `${program.command.join(' ')} --version prints no version: ${why}`);
}

function isNewEnough(version: string): boolean {
  const [major, minor] = version.split('.').map(Number);
  return major > VERSION_MIN[0] || (major === VERSION_MIN[0] && minor >= VERSION_MIN[1]);
}

async function onPath(name: string): Promise<string | null> {
  const folders = (process.env.PATH ?? '').split(':').filter((folder) => folder !== '');
  return folders.map((folder) => join(folder, name)).find(isRunnable) ?? null;
}

/** Whether this user may run the file: a folder of PATH may be unreadable, and a file no program. */
function isRunnable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
