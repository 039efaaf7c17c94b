/**
 * Builds the guest with real services: nginx with TLS, OpenSSH, Redis, dnsmasq and PostgreSQL out of Debian's packages, on
 * the kernel, modules and busybox of the first guest (guest/image.ts). It has no disk either.
 *
 * Each program takes along the shared libraries that the packages' own dynamic loader lists for it, and no other file of
 * their packages. Keys and the certificate are made once, at set-up, by the packages' own programs.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, writeFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { ColoError } from '../../src/error.ts';
import { cached } from '../cache.ts';
import { fetchPackages } from '../debian.ts';
import type { CpioEntry } from '../guest/cpio.ts';
import { makeBlock } from '../guest/files.ts';
import { type GuestImage, installGuestParts } from '../guest/image.ts';
import { packedInitrd } from '../guest/initrd.ts';
import { run } from '../process.ts';
import { libraryFolder, throughLoader } from '../program.ts';

export type ServicesImage = GuestImage & {
  /** The start of ssh's command line, with the key that the guest accepts. */
  readonly ssh: readonly string[];
};

export const SERVICES = [
  { name: 'http', kind: 'tcp', port: 80 },
  { name: 'https', kind: 'tcp', port: 443 },
  { name: 'ssh', kind: 'tcp', port: 22 },
  { name: 'redis', kind: 'tcp', port: 6379 },
  { name: 'postgres', kind: 'tcp', port: 5432 },
  { name: 'dns', kind: 'udp', port: 53 },
] as const;
export type ServiceName = (typeof SERVICES)[number]['name'];

/** What nginx serves at its root. */
export const PAGE = '<!doctype html><title>colo</title><p>A page of a service that is kept alive.\n';

const RECIPE = 1;
const POSTGRES = 'usr/lib/postgresql/17';
/** The dynamic loader lists what each of these needs. */
const PROGRAMS = [
  'usr/sbin/nginx',
  'usr/sbin/sshd',
  'usr/lib/openssh/sshd-session',
  'usr/lib/openssh/sshd-auth',
  'usr/bin/redis-server',
  'usr/sbin/dnsmasq',
  ...['initdb', 'postgres'].map((name) => `${POSTGRES}/bin/${name}`),
  ...['plpgsql.so', 'dict_snowball.so'].map((name) => `${POSTGRES}/lib/${name}`),
];
const TREES = ['usr/share/postgresql/17'];
const LOADER = 'usr/lib64/ld-linux-x86-64.so.2';
const FOLDERS = [
  ...['dev', 'proc', 'sys', 'bin', 'tmp', 'root', 'etc', 'etc/ssh', 'etc/tls', 'modules', 'www'],
  ...['run', 'run/sshd', 'run/postgresql', 'var', 'var/empty', 'var/lib', 'var/lib/misc'],
  ...['var/lib/nginx', 'var/lib/postgresql', 'var/log', 'var/log/nginx', 'usr', 'usr/bin'],
];
const USERS = ['root:0:/root', 'www-data:33:/var', 'sshd:100:/run/sshd', 'postgres:101:/var/lib/postgresql'];
/** Without libraries that no program here loads, which would be half of what is fetched. */
const PACKAGES =
  /^(nginx|openssh-(server|client)|openssl|redis-(server|tools)|dnsmasq-base|postgresql-(client-)?17|zlib1g|lib(?!llvm|z3|perl|c-l10n|systemd-shared).*)$/;
/** What the image depends on besides the packages, which only a recipe number renews. */
const SOURCES = [
  ...['init', 'postgres.sh', 'nginx.conf', 'sshd_config', 'image.ts'],
  ...['../guest/cpio.ts', '../guest/files.ts'],
];

let installed: Promise<ServicesImage> | undefined;

/** Returns the image, the same throughout a process; the first call fetches and packs it. */
export function installServices(): Promise<ServicesImage> {
  installed ??= install();
  return installed;
}

async function install(): Promise<ServicesImage> {
  const { kernel, parts } = await installGuestParts();
  const folder = await cached({ name: 'services', recipe: RECIPE, megabytes: 500, build: fetchParts });
  const root = join(folder, 'root');
  const keys = join(folder, 'keys');
  const initrd = await packedInitrd(folder, SOURCES.map(source), () => entries(root, parts, keys));
  return { kernel, initrd, ssh: sshCommand(root, join(keys, 'client')) };
}

function source(name: string): string {
  return join(import.meta.dirname, name);
}

async function fetchParts(folder: string): Promise<void> {
  const root = join(folder, 'root');
  await fetchPackages({
    what: 'the guest with services',
    suite: 'trixie',
    architecture: 'amd64',
    packages: ['nginx', 'openssh-server', 'openssl', 'redis-server', 'dnsmasq-base', 'postgresql-17'],
    only: PACKAGES,
    into: root,
  });
  await makeKeys(root, join(folder, 'keys'));
}

async function makeKeys(root: string, keys: string): Promise<void> {
  mkdirSync(keys, { recursive: true });
  const keygen = [...throughLoader(root, join(root, 'usr/bin/ssh-keygen')), '-q', '-t', 'ed25519', '-N', ''];
  for (const name of ['host', 'client'])
    if (!existsSync(join(keys, name))) await must([...keygen, '-C', name, '-f', join(keys, name)]);
  const config = join(keys, 'openssl.cnf');
  writeFileSync(config, '[req]\ndistinguished_name = name\n[name]\n');
  const openssl = [...throughLoader(root, join(root, 'usr/bin/openssl')), 'req', '-x509', '-config', config];
  openssl.push('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '3650');
  openssl.push('-subj', '/CN=colo.test', '-keyout', join(keys, 'key.pem'));
  await must([...openssl, '-out', join(keys, 'certificate.pem')]);
}

function sshCommand(root: string, key: string): string[] {
  const options = ['StrictHostKeyChecking=no', 'UserKnownHostsFile=/dev/null', 'LogLevel=ERROR'];
  options.push('BatchMode=yes', 'IdentitiesOnly=yes', 'ControlMaster=no');
  const ssh = throughLoader(root, join(root, 'usr/bin/ssh'));
  return [...ssh, '-F', 'none', '-i', key, ...options.flatMap((option) => ['-o', option])];
}

async function must(command: readonly string[]): Promise<string> {
  const done = await run(command);
  if (done.status === 0) return done.stdout;
  throw new ColoError('COLO_SETUP_GUEST', `${command.slice(3).join(' ')}: ${done.stderr.trim()}`);
}

/** What the image is made of, by path; a folder is added before what is in it. */
class Tree {
  private readonly entries = new Map<string, CpioEntry>();

  folder(path: string): void {
    if (path === '.' || this.entries.has(path)) return;
    this.folder(dirname(path));
    this.entries.set(path, { kind: 'directory', path });
  }

  file(path: string, data: Uint8Array | string, mode = 0o644): void {
    this.folder(dirname(path));
    this.entries.set(path, { kind: 'file', path, data: Buffer.from(data), mode });
  }

  link(path: string, target: string): void {
    this.folder(dirname(path));
    this.entries.set(path, { kind: 'symlink', path, target });
  }

  /** Copies a file from a folder, or a link and its file. */
  copy(from: string, path: string, mode: number): void {
    const full = join(from, path);
    const target = relative(realpathSync(from), realpathSync(full));
    if (target !== path) this.link(path, `/${target}`);
    this.file(target, readFileSync(full), mode);
  }

  device(path: string, major: number, minor: number): void {
    this.entries.set(path, { kind: 'character', path, major, minor });
  }

  list(): CpioEntry[] {
    return [...this.entries.values()];
  }
}

async function entries(root: string, guest: string, keys: string): Promise<CpioEntry[]> {
  const tree = new Tree();
  for (const path of FOLDERS) tree.folder(path);
  // The kernel opens this for the first process's output before anything is mounted.
  tree.device('dev/console', 5, 1);
  tree.link('lib', 'usr/lib');
  tree.link('lib64', 'usr/lib64');
  tree.link('var/run', '/run');
  tree.copy(guest, 'usr/bin/busybox', 0o755);
  tree.link('bin/busybox', '../usr/bin/busybox');
  for (const name of readdirSync(join(guest, 'modules'))) tree.copy(guest, `modules/${name}`, 0o644);
  tree.file(LOADER, readFileSync(join(root, LOADER)), 0o755);
  for (const program of PROGRAMS) {
    tree.copy(root, program, 0o755);
    for (const library of await librariesOf(root, program)) tree.copy(root, library, 0o755);
  }
  for (const top of TREES)
    for (const entry of readdirSync(join(root, top), { recursive: true, withFileTypes: true }))
      if (entry.isFile()) tree.copy(root, join(relative(root, entry.parentPath), entry.name), 0o644);
  tree.file('etc/passwd', USERS.map((user) => userLine(user)).join(''));
  tree.file('etc/group', USERS.map((user) => `${user.split(':')[0]}:x:${user.split(':')[1]}:\n`).join(''));
  tree.file('etc/ssh/host_key', readFileSync(join(keys, 'host')), 0o600);
  tree.file('etc/ssh/authorized_keys', readFileSync(join(keys, 'client.pub')));
  tree.file('etc/ssh/sshd_config', readFileSync(source('sshd_config')));
  tree.file('etc/tls/key.pem', readFileSync(join(keys, 'key.pem')));
  tree.file('etc/tls/certificate.pem', readFileSync(join(keys, 'certificate.pem')));
  tree.file('etc/nginx.conf', readFileSync(source('nginx.conf')));
  tree.file('www/index.html', PAGE);
  tree.file('block.bin', makeBlock());
  tree.file('postgres.sh', readFileSync(source('postgres.sh')), 0o755);
  tree.file('init', readFileSync(source('init')), 0o755);
  return tree.list();
}

function userLine(user: string): string {
  const [name, id, home] = user.split(':');
  return `${name}:*:${id}:${id}::${home}:/bin/sh\n`;
}

/** Returns the paths, below the packages' root, of the libraries that a program is linked with. */
async function librariesOf(root: string, program: string): Promise<string[]> {
  const [loader, ...rest] = throughLoader(root, join(root, program));
  const listed = await must([loader, '--list', ...rest]);
  const found = [...listed.matchAll(/(\S+) => (\S+)/g)].map(([, name, path]) => ({
    name,
    path: relative(root, path),
  }));
  // The loader itself has its own place; one that is missing here is taken from this machine, or "not found".
  const libraries = found.filter(({ name }) => !name.includes('/ld-linux'));
  const missing = libraries.filter(({ path }) => !path.startsWith(libraryFolder()));
  if (missing.length > 0) {
    const names = missing.map(({ name }) => name).join(', ');
    throw new ColoError('COLO_SETUP_GUEST', `the packages of ${program} lack ${names}`);
  }
  return libraries.map(({ path }) => path);
}
