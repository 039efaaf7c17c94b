/**
 * `npm run package`: builds the Debian package of colo-proxy, `packages/colo-proxy_VERSION_ARCH.deb`, for the machine's processor.
 *
 * It brings its own Node, the pinned one, and every dependency that runs; Debian's own Node is older. The same sources give the
 * same bytes: all files have the time of the last commit (or SOURCE_DATE_EPOCH), and nothing else depends on when, where or by
 * whom it is built. It needs dpkg-deb and no root: dpkg-deb itself gives all files to root.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ColoError, messageOf } from '../../src/error.ts';
import { build } from './build.ts';
import { copyrightOf } from './copyright.ts';
import { ROOT, readManifest, sourceSeconds } from './paths.ts';
import { bundledModules, filesIn, layTree, productionModules, settle } from './tree.ts';

/** Debian's names of Node's processors. */
const ARCHITECTURES: Readonly<Record<string, string>> = { x64: 'amd64', arm64: 'arm64' };
const SCRIPTS = ['postinst', 'prerm', 'postrm'];

/** `small` takes a minute and more: it is for a package that is handed on. `quick` is for one that is tried here. */
export type Compression = 'small' | 'quick';
const COMPRESSIONS: Readonly<Record<Compression, readonly string[]>> = {
  small: ['-Zxz'],
  quick: ['-Zgzip', '-z1'],
};

/** Returns the name of the package's file. Throws COLO_PACKAGE if there is none for this processor. */
export function packageName(): string {
  const { name, version } = readManifest();
  return `${name}_${version}_${architecture()}.deb`;
}

function architecture(): string {
  const found = ARCHITECTURES[process.arch];
  if (found !== undefined) return found;
  throw new ColoError(
    'COLO_PACKAGE',
    `there is no package for the processor ${process.arch}; use x64 or arm64`,
  );
}

/** Builds the package from what is in dist/ into `folder`; returns its path. Throws COLO_PACKAGE. */
export function packDebian(folder: string, compression: Compression): string {
  const { name, version } = readManifest();
  const path = join(folder, packageName());
  const seconds = sourceSeconds();
  const modules = productionModules();
  const node = join(ROOT, `node_modules/node-linux-${process.arch}/bin/node`);
  if (!existsSync(node)) throw new ColoError('COLO_PACKAGE', `${node} is not there; run: npm run setup`);
  const stage = mkdtempSync(join(tmpdir(), 'colo-deb-'));
  try {
    const changelog = changelogOf(name, version, seconds);
    layTree(stage, modules, { copyright: copyrightOf([...modules, ...bundledModules()]), changelog });
    const kib = settle(stage, seconds);
    writeControl(stage, { VERSION: version, ARCHITECTURE: architecture(), INSTALLED_SIZE: String(kib) });
    settle(stage, seconds);
    mkdirSync(folder, { recursive: true });
    const options = ['--root-owner-group', ...COMPRESSIONS[compression], '--build', stage, path];
    const ran = spawnSync('dpkg-deb', options, {
      encoding: 'utf8',
      env: { ...process.env, SOURCE_DATE_EPOCH: String(seconds) },
    });
    if (ran.status !== 0)
      throw new ColoError('COLO_PACKAGE', `dpkg-deb failed: ${ran.error?.message ?? ran.stderr.trim()}`);
    return path;
  } finally {
    rmSync(stage, { recursive: true, force: true });
  }
}

function writeControl(stage: string, values: Readonly<Record<string, string>>): void {
  const from = join(ROOT, 'deploy/debian');
  const sums = filesIn(stage).map((path) => {
    const sum = createHash('md5')
      .update(readFileSync(join(stage, path)))
      .digest('hex');
    return `${sum}  ${path}\n`;
  });
  const into = join(stage, 'DEBIAN');
  mkdirSync(into);
  const control = readFileSync(join(from, 'control'), 'utf8').replaceAll(
    /@(\w+)@/g,
    (_, key: string) => values[key],
  );
  writeFileSync(join(into, 'control'), control);
  writeFileSync(join(into, 'md5sums'), sums.join(''));
  for (const script of SCRIPTS) {
    copyFileSync(join(from, script), join(into, script));
    chmodSync(join(into, script), 0o755);
  }
}

/** In Debian's format, which has no room for sections; CHANGELOG.md is beside it. */
function changelogOf(name: string, version: string, seconds: number): string {
  const [, maintainer] =
    /^Maintainer: (.*)$/m.exec(readFileSync(join(ROOT, 'deploy/debian/control'), 'utf8')) ?? [];
  const date = new Date(seconds * 1000).toUTCString().replace('GMT', '+0000');
  return `${name} (${version}) unstable; urgency=medium\n\n  * See CHANGELOG.md in this folder.\n\n -- ${maintainer}  ${date}\n`;
}

if (import.meta.main) {
  try {
    await build();
    process.stderr.write('colo: packing for Debian, which takes a minute or two ...\n');
    process.stdout.write(`${packDebian(join(ROOT, 'packages'), 'small')}\n`);
  } catch (error) {
    const code = error instanceof ColoError ? error.code : 'COLO_PACKAGE';
    process.stderr.write(`${code}: ${messageOf(error)}\n`);
    process.exitCode = 1;
  }
}
