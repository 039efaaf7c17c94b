/**
 * Programs from Debian's packages, in the cache and nowhere else. Each runs through the dynamic loader of its own
 * packages, independently of the machine's libraries.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError } from '../src/error.ts';
import { cached } from './cache.ts';
import { fetchPackages, type Suite } from './debian.ts';

/** A program with the start of its command line, and the environment variables that it needs. */
export type Program = { readonly command: string[]; readonly env: Record<string, string> };

/** QEMU's name for the way in which it runs a guest's processor. */
export type Accelerator = 'kvm' | 'tcg';

type Wanted = {
  /** The name in progress lines. */
  readonly what: string;
  /** The name of its folder in the cache. */
  readonly name: string;
  /** Disk space that has to be free. */
  readonly megabytes: number;
  readonly suite: Suite;
  readonly packages: readonly string[];
};

const RECIPE = 1;

/** Installs passt, which gives the lab's network IPv6 without root; QEMU's own user networking forwards IPv4 only. */
export function installPasst(): Promise<Program> {
  return fetchProgram('passt', 60);
}

/** Installs tshark, a reader of captures that shares no code with our writer. */
export function installTshark(): Promise<Program> {
  return fetchProgram('tshark', 450);
}

/** Installs a program of Debian 12, with the path of its binary: what needs no newer one. */
export async function installFromBookworm(
  name: string,
  packages: string[],
  binary: string,
): Promise<Program> {
  const folder = await unpackPackages({
    ...{ what: name, name: `${name}-bookworm`, megabytes: 150, suite: 'bookworm', packages },
  });
  return { command: throughLoader(folder, join(folder, binary)), env: {} };
}

async function fetchProgram(name: string, megabytes: number): Promise<Program> {
  const wanted = { what: name, name, megabytes, suite: 'trixie-backports', packages: [name] } as const;
  const folder = await unpackPackages(wanted);
  return { command: throughLoader(folder, join(folder, 'usr/bin', name)), env: {} };
}

/** Returns a folder with the packages and their dependencies, laid out as on a root file system. */
export function unpackPackages({ what, name, megabytes, suite, packages }: Wanted): Promise<string> {
  return cached({
    name,
    recipe: RECIPE,
    megabytes,
    build: async (into) => {
      await fetchPackages({ what, suite, architecture: architecture(), packages, into });
    },
  });
}

export function throughLoader(root: string, binary: string): string[] {
  const libraries = libraryFolder();
  // Debian 12's packages still have some of them below /lib.
  const folders = [libraries, libraries.replace(/^usr\//, '')].map((path) => join(root, path));
  const loader = folders
    .filter((folder) => existsSync(folder))
    .flatMap((folder) => readdirSync(folder).map((name) => join(folder, name)))
    .find((path) => /\/ld-linux[^/]*\.so\.[0-9]$/.test(path));
  if (loader === undefined)
    throw new ColoError('COLO_SETUP_PROGRAM', `no dynamic loader in ${folders.join(', ')}`);
  const paths = [...folders, join(root, libraries, 'pulseaudio')];
  return [loader, '--library-path', paths.join(':'), binary];
}

function architecture(): 'amd64' | 'arm64' {
  if (process.arch === 'x64') return 'amd64';
  if (process.arch === 'arm64') return 'arm64';
  throw new ColoError('COLO_SETUP_PROGRAM', `no Debian packages known for ${process.arch}`);
}

export function libraryFolder(): string {
  return `usr/lib/${architecture() === 'amd64' ? 'x86_64' : 'aarch64'}-linux-gnu`;
}
