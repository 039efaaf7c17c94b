/** A check of `colo doctor`: whether a node can keep files in a folder. */
import { accessSync, constants, existsSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { type Check, good, problem } from './check.ts';

/** More than a record of the arbiter, and than the file systems that have space in an inode put there. */
const PROBE = Buffer.alloc(8192);

/**
 * Creates a file in the directory, or in its nearest parent that exists, where the node will create it. `also` checks
 * that file further: it returns a problem or null.
 */
export function checkDirectory(
  name: string,
  path: string,
  also: (probe: string, directory: string) => Check | null = () => null,
): Check {
  let existing = path;
  while (!existsSync(existing)) existing = dirname(existing);
  if (!statSync(existing).isDirectory())
    return problem(name, `${existing} is not a directory`, 'choose another path');
  try {
    accessSync(existing, constants.R_OK | constants.W_OK | constants.X_OK);
  } catch {
    return problem(
      name,
      `this user may not write to ${existing}`,
      'make it writable for the user of the node, or choose another',
    );
  }
  const probe = join(existing, `.colo-doctor-${process.pid}`);
  try {
    // On a full disk an empty file can still be created.
    writeFileSync(probe, PROBE, { flag: 'wx', mode: 0o600 });
  } catch (error) {
    rmSync(probe, { force: true });
    return problem(
      name,
      `a file cannot be written in ${existing} (${errorCode(error)})`,
      'make room, mount it for writing, or choose another',
    );
  }
  try {
    return also(probe, existing) ?? good(name, existing === path ? path : `${path} (will be created)`);
  } finally {
    unlinkSync(probe);
  }
}

export function errorCode(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException).code;
}
