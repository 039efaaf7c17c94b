/**
 * Builds the guest: Debian's cloud kernel, a static busybox and perl, in an initial file system, which is its only one unless
 * the kernel's command line has the word colo.disk: the guest then mounts its first disk.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { ColoError } from '../../src/error.ts';
import { cached, progress } from '../cache.ts';
import { fetchPackages } from '../debian.ts';
import type { CpioEntry } from './cpio.ts';
import { makeBlock } from './files.ts';
import { packedInitrd } from './initrd.ts';

export type GuestImage = { readonly kernel: string; readonly initrd: string };

const RECIPE = 2;
const LIBRARIES = 'usr/lib/x86_64-linux-gnu';
const PERL_LIBRARIES = `${LIBRARIES}/perl-base`;
/** Perl's files that services.pl and its modules load. */
const PERL_FILES = [
  'Carp.pm',
  'Exporter.pm',
  'Exporter/Heavy.pm',
  'Socket.pm',
  'XSLoader.pm',
  'auto/Socket/Socket.so',
  'constant.pm',
  'overloading.pm',
  'strict.pm',
  'warnings.pm',
  'warnings/register.pm',
].map((path) => `${PERL_LIBRARIES}/${path}`);
/** Libraries that perl is linked with. In the guest, as in trixie, /lib and /lib64 are links into /usr. */
const PERL_PROGRAM = [
  'usr/bin/perl',
  'usr/lib64/ld-linux-x86-64.so.2',
  `${LIBRARIES}/ld-linux-x86-64.so.2`,
  `${LIBRARIES}/libc.so.6`,
  `${LIBRARIES}/libcrypt.so.1`,
  `${LIBRARIES}/libm.so.6`,
];
/** Kernel modules in the order of their dependencies. Some are built into the kernel, depending on its version. */
const MODULES = [
  'virtio',
  'virtio_ring',
  'virtio_pci_modern_dev',
  'virtio_pci_legacy_dev',
  'virtio_pci',
  'failover',
  'net_failover',
  'virtio_net',
];
/** Loaded only by a guest with a disk. */
const DISK_MODULE = 'virtio_blk';
const SOURCES = ['init', 'services.pl', 'image.ts', 'files.ts', 'cpio.ts'];
const FOLDERS = ['dev', 'proc', 'sys', 'bin', 'modules', 'www', 'tmp', 'disk'];

/** Returns the kernel, and a folder with its modules and the guest's programs; the first call fetches them. */
export async function installGuestParts(): Promise<{ kernel: string; parts: string }> {
  const folder = await cached({ name: 'guest', recipe: RECIPE, megabytes: 350, build: fetchParts });
  return { kernel: join(folder, 'vmlinuz'), parts: join(folder, 'parts') };
}

/** Returns the kernel and the initial file system; the first call fetches and packs them. */
export async function installGuest(): Promise<GuestImage> {
  const { kernel, parts } = await installGuestParts();
  const folder = dirname(parts);
  const initrd = await packedInitrd(folder, SOURCES.map(source), () => entries(parts));
  return { kernel, initrd };
}

function source(name: string): string {
  return join(import.meta.dirname, name);
}

async function fetchParts(folder: string): Promise<void> {
  const root = join(folder, 'root');
  await fetchPackages({
    what: 'the guest',
    suite: 'trixie',
    architecture: 'amd64',
    packages: ['linux-image-cloud-amd64', 'busybox-static', 'perl-base'],
    only: /^(linux-image-.*|busybox-static|perl-base|libc6|libcrypt1)$/,
    into: root,
  });
  const kernel = readdirSync(join(root, 'boot')).find((name) => name.startsWith('vmlinuz-'));
  if (kernel === undefined) throw new ColoError('COLO_SETUP_GUEST', `no kernel in ${root}/boot`);
  copyFileSync(join(root, 'boot', kernel), join(folder, 'vmlinuz'));

  const parts = join(folder, 'parts');
  for (const path of ['usr/bin/busybox', ...PERL_PROGRAM, ...PERL_FILES]) {
    mkdirSync(join(parts, path, '..'), { recursive: true });
    copyFileSync(join(root, path), join(parts, path));
  }
  mkdirSync(join(parts, 'modules'), { recursive: true });
  const modules = unpackModules(root, join(parts, 'modules'));
  progress(`the guest has ${kernel} with ${modules.join(', ')}`);
  rmSync(root, { recursive: true, force: true });
}

/** Unpacks modules, which Debian compresses from 6.12 on, with the guest's busybox, since the host may lack xz. */
function unpackModules(root: string, into: string): string[] {
  const tree = join(root, 'usr/lib/modules');
  const files = readdirSync(tree, { recursive: true, encoding: 'utf8' });
  const found = [...MODULES, DISK_MODULE].filter((name) => {
    const file = files.find((path) => basename(path).replace(/\.xz$/, '') === `${name}.ko`);
    if (file === undefined) return false;
    const data = file.endsWith('.xz') ? unxz(root, join(tree, file)) : readFileSync(join(tree, file));
    writeFileSync(join(into, `${name}.ko`), data);
    return true;
  });
  const atBoot = found.filter((name) => name !== DISK_MODULE);
  writeFileSync(join(into, 'order'), atBoot.map((name) => `${name}\n`).join(''));
  return found;
}

function unxz(root: string, file: string): Buffer {
  const done = spawnSync(join(root, 'usr/bin/busybox'), ['xzcat', file], { maxBuffer: 64 << 20 });
  if (done.status === 0) return done.stdout;
  const why = done.error?.message ?? done.stderr.toString().trim();
  throw new ColoError('COLO_SETUP_GUEST', `busybox cannot unpack ${file}: ${why}`);
}

function entries(parts: string): CpioEntry[] {
  const list: CpioEntry[] = FOLDERS.map((path) => ({ kind: 'directory', path }));
  // The kernel opens this for the first process's output before anything is mounted.
  list.push({ kind: 'character', path: 'dev/console', major: 5, minor: 1 });
  list.push({ kind: 'symlink', path: 'lib', target: 'usr/lib' });
  list.push({ kind: 'symlink', path: 'lib64', target: 'usr/lib64' });
  for (const path of readdirSync(parts, { recursive: true, withFileTypes: true })
    .map((entry) => ({ entry, path: join(entry.parentPath, entry.name).slice(parts.length + 1) }))
    .sort((a, b) => (a.path < b.path ? -1 : 1))) {
    if (FOLDERS.includes(path.path)) continue;
    if (path.entry.isDirectory()) list.push({ kind: 'directory', path: path.path });
    else
      list.push({ kind: 'file', path: path.path, data: readFileSync(join(parts, path.path)), mode: 0o755 });
  }
  list.push({ kind: 'symlink', path: 'bin/busybox', target: '../usr/bin/busybox' });
  list.push({ kind: 'symlink', path: 'bin/perl', target: '../usr/bin/perl' });
  list.push({ kind: 'file', path: 'init', data: readFileSync(source('init')), mode: 0o755 });
  list.push({ kind: 'file', path: 'services.pl', data: readFileSync(source('services.pl')) });
  list.push({ kind: 'file', path: 'block.bin', data: makeBlock() });
  return list;
}
