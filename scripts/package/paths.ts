/** Where the parts of a package are, and of which time its files are. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ColoError } from '../../src/error.ts';

export const ROOT = join(import.meta.dirname, '../..');
/** What is made from the checkout, and is in every package. */
export const DIST = join(ROOT, 'dist');

export type Manifest = {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  readonly license: string;
  readonly type: string;
  readonly bin: Readonly<Record<string, string>>;
  readonly files: readonly string[];
  readonly dependencies: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
};

export function readManifest(path = join(ROOT, 'package.json')): Manifest {
  return JSON.parse(readFileSync(path, 'utf8')) as Manifest;
}

/**
 * Returns the time of all files of a package, in seconds since 1970: `SOURCE_DATE_EPOCH`, or that of the last commit, so that
 * the same sources give the same package. Throws COLO_PACKAGE if there is neither.
 */
export function sourceSeconds(): number {
  const given = process.env.SOURCE_DATE_EPOCH;
  const text =
    given ?? spawnSync('git', ['log', '-1', '--format=%ct'], { cwd: ROOT, encoding: 'utf8' }).stdout;
  if (!/^\d{1,12}\s*$/.test(text ?? ''))
    throw new ColoError(
      'COLO_PACKAGE',
      given === undefined
        ? 'this is no git checkout, so set SOURCE_DATE_EPOCH to the seconds since 1970 that its files shall have'
        : `SOURCE_DATE_EPOCH is "${given}"; give seconds since 1970`,
    );
  return Number(text);
}
