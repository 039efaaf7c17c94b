/**
 * Puts planned files down: all of them or none, and never over another file.
 *
 * Failure: COLO_INIT_EXISTS if a file of that name has other contents; COLO_INIT_WRITE if a write fails; COLO_INIT_STOPPED if a signal
 * came meanwhile. In each case what was made is removed again.
 */
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  rmdirSync,
  rmSync,
  type Stats,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { ColoError, messageOf } from '../error.ts';
import type { PlannedFile } from './pair.ts';

export type Written = {
  /** new, with their folder */
  readonly files: readonly string[];
  /** were there with the same contents */
  readonly kept: readonly string[];
};

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Throws COLO_INIT_EXISTS, which names every file that has other contents. */
export function checkFree(out: string, files: readonly PlannedFile[]): void {
  const others = files
    .map(({ path }) => path)
    .filter((path, place) => isOther(join(out, path), files[place].text));
  if (others.length > 0) throw exists(out, others);
}

export function exists(out: string, paths: readonly string[]): ColoError {
  const [names, are] = [paths.map((path) => join(out, path)).join(', '), paths.length === 1 ? 'is' : 'are'];
  return new ColoError(
    'COLO_INIT_EXISTS',
    `${names} ${are} there already with other contents, and nothing is overwritten; give another --out`,
  );
}

function isOther(path: string, text: string): boolean {
  const stat = statOf(path);
  if (stat === null) return false;
  return !stat.isFile() || readFileSync(path, 'utf8') !== text;
}

function statOf(path: string): Stats | null {
  try {
    return lstatSync(path);
  } catch {
    // Nothing is there, or it cannot be seen: then it cannot be written either, and the write says why.
    return null;
  }
}

/** Writes what is not there. `out` is made with mode 0700 if it does not exist. */
export async function writeAll(out: string, files: readonly PlannedFile[]): Promise<Written> {
  checkFree(out, files);
  const kept = files.filter(({ path }) => existsSync(join(out, path)));
  const fresh = files.filter((file) => !kept.includes(file));
  const undo: (() => void)[] = [];
  let stopped: string | null = null;
  const stop = (signal: string): void => {
    stopped = signal;
  };
  // With a listener a signal waits for the end of the writes, which are synchronous.
  for (const signal of SIGNALS) process.on(signal, stop);
  try {
    for (const file of fresh) writeOne(out, file, undo);
    await new Promise((resolve) => setImmediate(resolve));
    if (stopped !== null)
      throw new ColoError('COLO_INIT_STOPPED', `stopped by ${stopped}; nothing was written`);
    return { files: fresh.map(({ path }) => join(out, path)), kept: kept.map(({ path }) => join(out, path)) };
  } catch (cause) {
    for (const one of undo.toReversed()) one();
    if (cause instanceof ColoError) throw cause;
    throw new ColoError(
      'COLO_INIT_WRITE',
      `cannot write to ${out}: ${messageOf(cause)}; give another --out`,
      { cause },
    );
  } finally {
    for (const signal of SIGNALS) process.off(signal, stop);
  }
}

/** `undo` gets what takes the file, and each folder that was made for it, away again. */
function writeOne(out: string, { path, text, mode }: PlannedFile, undo: (() => void)[]): void {
  const target = join(out, path);
  makeFolder(dirname(target), out, undo);
  // A file that somebody made meanwhile is not overwritten either.
  writeFileSync(target, '', { flag: 'wx', mode });
  undo.push(() => rmSync(target, { force: true }));
  writeFileSync(target, text);
  // Whatever the umask is: the node's user reads the one, and nobody else the other.
  chmodSync(target, mode);
}

function makeFolder(folder: string, out: string, undo: (() => void)[]): void {
  if (existsSync(folder)) return;
  makeFolder(dirname(folder), out, undo);
  // Below `out` are keys. It may have been written with a slash at its end.
  mkdirSync(folder);
  chmodSync(folder, folder === join(out, '.') ? 0o700 : 0o755);
  undo.push(() => {
    try {
      rmdirSync(folder);
    } catch {
      // Somebody else has put something there.
    }
  });
}
