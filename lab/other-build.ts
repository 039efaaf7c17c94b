/** A build of colo-proxy that differs from this one in one text. */
import { cpSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { invariant } from '../src/error.ts';
import { ROOT } from './pair.ts';

/** Makes it in `folder`, which must not exist, and returns that. `find` stands once in `file`. */
export function otherBuild(folder: string, file: string, find: string, put: string): string {
  for (const part of ['src', 'bin', 'package.json'])
    cpSync(join(ROOT, part), join(folder, part), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  const text = readFileSync(join(folder, file), 'utf8');
  invariant(text.split(find).length === 2, `"${find}" does not stand in ${file} once`);
  writeFileSync(join(folder, file), text.replace(find, put));
  return folder;
}
