/** A copy of this checkout, in which packages are built: a pack changes package.json for as long as it takes. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ROOT } from '../docs/tables.ts';

/** Of every file of the packages that the tests build: 2030-01-02T03:04:05Z. */
export const SOURCE_SECONDS = Date.UTC(2030, 0, 2, 3, 4, 5) / 1000;

/** Copies what git has or would add, with this checkout's dependencies, into `folder`. */
export function copyCheckout(folder: string): void {
  const listed = spawnSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  for (const file of listed.stdout.split('\0')) {
    if (file === '' || !existsSync(join(ROOT, file))) continue;
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    cpSync(join(ROOT, file), join(folder, file));
  }
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
}

/** The environment of a build. */
export const buildEnv = (): NodeJS.ProcessEnv => ({
  ...process.env,
  SOURCE_DATE_EPOCH: String(SOURCE_SECONDS),
});
