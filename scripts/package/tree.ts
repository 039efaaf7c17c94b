/** The files of the Debian package, below one folder as they will be below `/`. */
import {
  chmodSync,
  cpSync,
  globSync,
  lstatSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, extname, join, relative } from 'node:path';
import { gzipSync } from 'node:zlib';
import { ColoError } from '../../src/error.ts';
import { packedManifest } from './manifest.ts';
import { DIST, ROOT, readManifest } from './paths.ts';

/** Where the program is on the machine. */
const HOME = 'usr/lib/colo-proxy';
const DOC = 'usr/share/doc/colo-proxy';

/** Of a dependency, what Node can load: no types, sources or pages. */
const RUNS = ['.js', '.cjs', '.mjs', '.json', '.node'];
/** Debian has glibc. */
const NOT_HERE = /\/musl_/;

/** A dependency, its folder below node_modules, and its licence. */
export type Module = { readonly path: string; readonly version: string; readonly license: string };

type Locked = { version: string; license: string; dev?: boolean; optional?: boolean };

/** What the dashboard's page is bundled with: no folder of theirs is in the package, their code is. */
const BUNDLED = ['node_modules/preact', 'node_modules/uplot'];

/** Returns what is in the page of the dashboard. */
export function bundledModules(): Module[] {
  return BUNDLED.map((path) => ({ path, ...locked()[path] }));
}

/** Returns what runs in production, by the lock file, as far as it is for this machine. Throws COLO_PACKAGE if something lacks. */
export function productionModules(): Module[] {
  return Object.entries(locked()).flatMap(([path, { version, license, dev, optional }]) => {
    if (path === '' || dev === true) return [];
    if (lstatSync(join(ROOT, path), { throwIfNoEntry: false }) !== undefined)
      return [{ path, version, license }];
    // npm has installed only those for this processor.
    if (optional === true) return [];
    throw new ColoError('COLO_PACKAGE', `${path} is not installed; run: npm run setup (in ${ROOT})`);
  });
}

function locked(): Record<string, Locked> {
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, Locked>;
  };
  return lock.packages;
}

/** Puts everything into `root`, an empty folder. `copyright` is the text of the file of that name. */
export function layTree(
  root: string,
  modules: readonly Module[],
  texts: { copyright: string; changelog: string },
): void {
  layProgram(join(root, HOME), modules);
  link(join(root, 'usr/bin/colo'), '../lib/colo-proxy/bin/colo');
  for (const unit of globSync('deploy/systemd/*.service', { cwd: ROOT }))
    copy(join(ROOT, unit), join(root, 'usr/lib/systemd/system', basename(unit)));
  for (const page of readdirSync(join(DIST, 'man')))
    write(join(root, 'usr/share/man/man1', `${page}.gz`), packed(readFileSync(join(DIST, 'man', page))));
  copy(join(DIST, 'completion/colo'), join(root, 'usr/share/bash-completion/completions/colo'));
  copy(join(DIST, 'completion/_colo'), join(root, 'usr/share/zsh/vendor-completions/_colo'));
  copy(join(ROOT, 'deploy/debian/lintian-overrides'), join(root, 'usr/share/lintian/overrides/colo-proxy'));
  for (const file of ['README.md', 'CHANGELOG.md', ...globSync('docs/*.{md,svg}', { cwd: ROOT })])
    copy(join(ROOT, file), join(root, DOC, file));
  // The pages link to what is in there.
  link(join(root, DOC, 'deploy'), '../../../lib/colo-proxy/deploy');
  write(join(root, DOC, 'copyright'), texts.copyright);
  write(join(root, DOC, 'changelog.gz'), packed(texts.changelog));
}

function layProgram(home: string, modules: readonly Module[]): void {
  copy(join(ROOT, 'bin/colo'), join(home, 'bin/colo'));
  // Node reads in it that the program consists of modules.
  write(join(home, 'package.json'), `${JSON.stringify(packedManifest(readManifest(), []), null, 2)}\n`);
  for (const folder of ['systemd', 'prometheus', 'grafana'])
    cpSync(join(ROOT, 'deploy', folder), join(home, 'deploy', folder), { recursive: true });
  // Types are for those who build on it: they take the npm package.
  for (const file of globSync('**/*', { cwd: DIST, exclude: ['man/**', 'completion/**'] }))
    if (statSync(join(DIST, file)).isFile() && !file.endsWith('.d.ts'))
      copy(join(DIST, file), join(home, 'dist', file));
  for (const { path } of modules) {
    const from = join(ROOT, path);
    const files = basename(path).startsWith('node-linux-') ? ['bin/node'] : whatRuns(from);
    for (const file of files) copy(join(from, file), join(home, path, file));
  }
}

/** Returns the files of a dependency that a program can load. One that is a program of its own is for those who build. */
function whatRuns(folder: string): string[] {
  return globSync('**/*', { cwd: folder, exclude: ['node_modules/**'] }).filter((file) => {
    const full = join(folder, file);
    if (!RUNS.includes(extname(file)) || NOT_HERE.test(`/${file}`) || !statSync(full).isFile()) return false;
    return extname(file) === '.node' || !readFileSync(full, 'latin1').startsWith('#!');
  });
}

/** Gives all files one time and the modes of Debian's policy; returns the size of all in KiB, as Debian counts it. */
export function settle(root: string, seconds: number): number {
  let kib = 0;
  // A folder comes after what is in it, so that its time stays.
  for (const path of pathsBelow(root).toReversed()) {
    const stat = lstatSync(path);
    kib += stat.isFile() ? Math.ceil(stat.size / 1024) : 1;
    if (stat.isDirectory()) chmodSync(path, 0o755);
    else if (stat.isFile()) chmodSync(path, (stat.mode & 0o111) === 0 ? 0o644 : 0o755);
    lutimesSync(path, seconds, seconds);
  }
  return kib;
}

/** Returns the paths of all regular files, relative to `root`, sorted. */
export function filesIn(root: string): string[] {
  const files = pathsBelow(root).filter((path) => lstatSync(path).isFile());
  return files.map((path) => relative(root, path)).toSorted();
}

/** Returns a path and all below it; what is behind a link is elsewhere. */
function pathsBelow(path: string): string[] {
  if (!lstatSync(path).isDirectory()) return [path];
  return [path, ...readdirSync(path).flatMap((name) => pathsBelow(join(path, name)))];
}

const packed = (data: string | Buffer): Buffer => gzipSync(data, { level: 9 });

function copy(from: string, to: string): void {
  mkdirSync(dirname(to), { recursive: true });
  cpSync(from, to);
}

function link(at: string, to: string): void {
  mkdirSync(dirname(at), { recursive: true });
  symlinkSync(to, at);
}

function write(path: string, data: string | Buffer): void {
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, data);
}
