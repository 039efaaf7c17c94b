/** The Debian package's `copyright`: the licence of colo-proxy, and those of all that the package brings, word by word. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError } from '../../src/error.ts';
import { ROOT } from './paths.ts';
import type { Module } from './tree.ts';

const LICENSE_FILE = /^(licen[cs]e|copying)(\.\w+)?$/i;
const HEAD = `colo-proxy is distributed under the Apache License 2.0. On Debian systems its text is in
/usr/share/common-licenses/Apache-2.0.

The package brings the following programs and libraries, as published in the npm registry.
`;

/** Throws COLO_PACKAGE if a module comes without the text of its licence. */
export function copyrightOf(modules: readonly Module[]): string {
  return [HEAD, ...modules.map((module) => `${titleOf(module)}\n\n${licenseOf(module)}\n`)].join('\n');
}

function titleOf({ path, version, license }: Module): string {
  const title = `${nameOf(path)} ${version} (${license})`;
  return `${title}\n${'-'.repeat(title.length)}`;
}

function licenseOf({ path, license }: Module): string {
  if (license === 'Apache-2.0') return 'Its licence is that of colo-proxy.';
  const from = join(ROOT, path);
  const file = readdirSync(from).find((name) => LICENSE_FILE.test(name));
  if (file !== undefined) return readFileSync(join(from, file), 'utf8').trim();
  // koffi's packages of one processor each have no file of their own.
  if (path.startsWith('node_modules/@koromix/koffi-'))
    return licenseOf({ path: 'node_modules/koffi', version: '', license });
  const ours = join(ROOT, 'deploy/debian/licenses', nameOf(path));
  if (existsSync(ours)) return readFileSync(ours, 'utf8').trim();
  throw new ColoError(
    'COLO_PACKAGE',
    `${nameOf(path)} comes without the text of its licence; put it into deploy/debian/licenses`,
  );
}

const nameOf = (path: string): string => path.slice('node_modules/'.length);
