/**
 * What `npm pack` runs before and after itself (prepack, postpack). Before, it builds, and puts the manifest of the package in the
 * place of the checkout's, which is for those who change the code: npm has no other way to pack two different ones. After, it
 * puts the checkout's back. One that was left there, by a pack that was killed, is put back first.
 */
import { copyFileSync, existsSync, globSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from './build.ts';
import { packedManifest } from './manifest.ts';
import { ROOT, readManifest } from './paths.ts';

const MANIFEST = join(ROOT, 'package.json');
const KEPT = join(ROOT, '.colo-package.json');

function putBack(): void {
  if (!existsSync(KEPT)) return;
  copyFileSync(KEPT, MANIFEST);
  rmSync(KEPT);
}

async function before(): Promise<void> {
  putBack();
  await build();
  const packed = packedManifest(readManifest(), globSync('dist/man/*.1', { cwd: ROOT }).toSorted());
  copyFileSync(MANIFEST, KEPT);
  writeFileSync(MANIFEST, `${JSON.stringify(packed, null, 2)}\n`);
}

if (import.meta.main) {
  if (process.argv[2] === 'before') await before();
  else putBack();
}
