/**
 * Which QEMU and which passt the lab runs: the machine's own QEMU if it is new enough, else a private one from
 * Debian's packages that is started through its own dynamic loader, so that the machine's libraries do not matter.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError } from '../src/error.ts';
import { workingAccelerator } from './accelerator.ts';
import { cached } from './cache.ts';
import { fetchPackages } from './debian.ts';
import { run } from './process.ts';

/** A program with the start of its command line, and what it wants in its environment. */
export type Program = { readonly command: string[]; readonly env: Record<string, string> };
export type Accelerator = 'kvm' | 'tcg';
export type QemuInstall = Program & {
  readonly version: string;
  readonly accel: Accelerator;
  /** Starts qemu-img, with the same environment. */
  readonly imageCommand: string[];
};

/** Older ones deadlock their primary under TCG (docs/qemu.md), and the lab must work without KVM. */
const VERSION_MIN = [11, 1] as const;
const RECIPE = 1;

let installed: Promise<QemuInstall> | undefined;

export function installQemu(): Promise<QemuInstall> {
  installed ??= findOrFetch();
  return installed;
}

async function findOrFetch(): Promise<QemuInstall> {
  const program = (await systemQemu()) ?? (await privateQemu());
  return { ...program, accel: await workingAccelerator(program) };
}

type Found = Omit<QemuInstall, 'accel'>;

async function systemQemu(): Promise<Found | null> {
  const chosen = process.env.COLO_QEMU;
  const path = chosen || (await onPath('qemu-system-x86_64'));
  if (path === null) return null;
  const found: Found = { command: [path], env: {}, version: '', imageCommand: ['qemu-img'] };
  const version = await versionOf(found);
  // Who names a QEMU gets that one, whatever its version: tests of old ones do.
  return chosen || isNewEnough(version) ? { ...found, version } : null;
}

/** Debian 12's QEMU, 7.2: to measure against, never to run a pair with. */
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
  const folder = await cached({
    name,
    recipe: RECIPE,
    megabytes: 350,
    build: async (into) => {
      await fetchPackages({
        what: 'QEMU',
        suite,
        architecture: architecture(),
        packages: ['qemu-system-x86', 'qemu-utils'],
        into,
      });
    },
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

/** passt gives the lab's network IPv6 without root; QEMU's own user networking forwards IPv4 only. */
export async function installPasst(): Promise<Program> {
  const folder = await cached({
    name: 'passt',
    recipe: RECIPE,
    megabytes: 60,
    build: async (into) => {
      await fetchPackages({
        what: 'passt',
        suite: 'trixie-backports',
        architecture: architecture(),
        packages: ['passt'],
        into,
      });
    },
  });
  return { command: throughLoader(folder, join(folder, 'usr/bin/passt')), env: {} };
}

async function versionOf(program: Program): Promise<string> {
  const env = { ...process.env, ...program.env };
  const done = await run([...program.command, '--version'], { env });
  const version = /version ([0-9]+\.[0-9]+(?:\.[0-9]+)*)/.exec(done.stdout)?.[1];
  if (version !== undefined) return version;
  const why = done.stderr.trim().split('\n')[0];
  throw new ColoError('COLO_SETUP_QEMU', `${program.command.join(' ')} --version says no version: ${why}`);
}

function isNewEnough(version: string): boolean {
  const [major, minor] = version.split('.').map(Number);
  return major > VERSION_MIN[0] || (major === VERSION_MIN[0] && minor >= VERSION_MIN[1]);
}

async function onPath(name: string): Promise<string | null> {
  const folders = (process.env.PATH ?? '').split(':').filter((folder) => folder !== '');
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path)) ?? null;
}

function throughLoader(root: string, binary: string): string[] {
  const libraries = libraryFolder();
  // Debian 12's packages still have some of them below /lib.
  const folders = [libraries, libraries.replace(/^usr\//, '')].map((path) => join(root, path));
  const loader = folders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
    .find((path) => /\/ld-linux[^/]*\.so\.[0-9]$/.test(path));
  if (loader === undefined)
    throw new ColoError('COLO_SETUP_QEMU', `no dynamic loader in ${folders.join(', ')}`);
  const paths = [...folders, join(root, libraries, 'pulseaudio')];
  return [loader, '--library-path', paths.join(':'), binary];
}

function architecture(): 'amd64' | 'arm64' {
  if (process.arch === 'x64') return 'amd64';
  if (process.arch === 'arm64') return 'arm64';
  throw new ColoError(
    'COLO_SETUP_QEMU',
    `no Debian packages known for ${process.arch}; install QEMU 11.1 or later`,
  );
}

function libraryFolder(): string {
  return `usr/lib/${architecture() === 'amd64' ? 'x86_64' : 'aarch64'}-linux-gnu`;
}
