/**
 * The cache of everything that set-up fetches or builds. A step is one folder, named after the step and the
 * version of its recipe. It is built as `.partial` and renamed when done, so a folder that exists is whole.
 * The next attempt uses what an interrupted step has left in its `.partial`.
 */
import {
  existsSync,
  linkSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ColoError } from '../src/error.ts';

export type Step = {
  readonly name: string;
  /** Increased when the same inputs give another result. */
  readonly recipe: number;
  /** The most that the step occupies on the disk; checked before it starts. */
  readonly megabytes: number;
  readonly build: (folder: string) => Promise<void>;
};

const LOCK_POLL_MS = 200;

export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  if (env.COLO_CACHE) return env.COLO_CACHE;
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'colo-proxy');
}

export function progress(text: string): void {
  process.stderr.write(`setup: ${text}\n`);
}

/** Returns the folder of a finished step; builds it first if there is none. */
export async function cached(step: Step, cache = cacheFolder()): Promise<string> {
  const folder = join(cache, `${step.name}-${step.recipe}`);
  if (existsSync(folder)) return folder;
  return inCache(cache, async () => {
    mkdirSync(cache, { recursive: true });
    await withLock(join(cache, `${step.name}.lock`), async () => {
      if (existsSync(folder)) return;
      requireSpace(cache, step.megabytes);
      const partial = `${folder}.partial`;
      mkdirSync(partial, { recursive: true });
      await step.build(partial);
      renameSync(partial, folder);
    });
    return folder;
  });
}

/** Runs a step. Throws COLO_SETUP_SPACE or COLO_SETUP_CACHE where the file system refuses to write. */
export async function inCache<T>(cache: string, action: () => Promise<T>): Promise<T> {
  try {
    return await action();
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOSPC' || code === 'EDQUOT') throw diskFull(cache);
    if (code === 'EACCES' || code === 'EROFS' || code === 'EPERM' || code === 'ENOTDIR') {
      throw new ColoError(
        'COLO_SETUP_CACHE',
        `cannot write to the cache ${cache} (${code}); make it writable or set COLO_CACHE to another folder`,
        { cause: error },
      );
    }
    throw error;
  }
}

export function diskFull(cache: string, megabytes?: number): ColoError {
  const need = megabytes === undefined ? 'the disk is full' : `less than ${megabytes} MB are free`;
  return new ColoError(
    'COLO_SETUP_SPACE',
    `${need} at ${cache}; free some space or set COLO_CACHE elsewhere`,
  );
}

function requireSpace(cache: string, megabytes: number): void {
  const { bavail, bsize } = statfsSync(cache);
  if (bavail * bsize < megabytes * 1e6) throw diskFull(cache, megabytes);
}

/**
 * Runs an action in one process at a time. The lock is a file that names its owner. It is linked into place with its
 * contents, so that no process reads it half-written. The owner's start time distinguishes a live owner from a later
 * process with the same number.
 */
export async function withLock<T>(path: string, action: () => Promise<T>): Promise<T> {
  const mine = `${process.pid} ${startOf(process.pid)}`;
  const own = `${path}.${process.pid}.${Math.random().toString(36).slice(2)}`;
  let told = false;
  writeFileSync(own, mine);
  try {
    while (!tryLink(own, path)) {
      const holder = read(path);
      if (holder === null) continue;
      if (!isAlive(holder)) {
        takeAway(path, holder, own);
        continue;
      }
      if (!told) progress(`waiting for process ${holder.split(' ')[0]}, which builds the same step`);
      told = true;
      await sleep(LOCK_POLL_MS);
    }
  } finally {
    rmSync(own, { force: true });
  }
  try {
    return await action();
  } finally {
    rmSync(path, { force: true });
  }
}

function tryLink(own: string, path: string): boolean {
  try {
    linkSync(own, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Removes a dead owner's lock by a rename, which only one process can do. A new owner's lock is put back. */
function takeAway(path: string, holder: string, own: string): void {
  const aside = `${own}.stale`;
  try {
    renameSync(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  if (read(aside) !== holder) tryLink(aside, path);
  rmSync(aside, { force: true });
}

function isAlive(holder: string): boolean {
  const [pid, start] = holder.split(' ');
  return start !== '' && startOf(Number(pid)) === start;
}

/** Returns when a process started, in clock ticks since boot (proc(5), field 22 of stat), or '' if there is none. */
function startOf(pid: number): string {
  const stat = read(`/proc/${pid}/stat`);
  // The second field is the program's name, which may contain blanks and parentheses.
  return stat === null ? '' : stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
}

function read(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === 'ENOENT' || code === 'ESRCH') return null;
    throw error;
  }
}
