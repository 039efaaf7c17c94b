/** Files as the store of a node's images needs them: their state outlives a loss of power. Injected, so that a test can play the loss. */
import { access, constants, open, readFile, realpath, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

/** What a path leads to. */
export type Found = {
  /** the number of its inode */
  readonly inode: number;
  readonly kind: 'file' | 'other';
};

/** Each call is one step, after which power may be lost. Rejects with what node:fs rejects with. */
export interface Files {
  /** Returns null if there is no such file. */
  read(path: string): Promise<string | null>;
  /** Makes or replaces the file; what was written may be lost until `sync`. Other users may not read it. */
  write(path: string, text: string): Promise<void>;
  /** The contents of the file are on the disk when it resolves. */
  sync(path: string): Promise<void>;
  rename(from: string, to: string): Promise<void>;
  /** The names in the folder are on the disk when it resolves. */
  syncFolder(path: string): Promise<void>;
  /** Removes the file if it is there. */
  remove(path: string): Promise<void>;
  /** Returns null if there is nothing. */
  look(path: string): Promise<Found | null>;
  /** Returns at most `bytes` of the file. */
  readStart(path: string, bytes: number): Promise<Buffer>;
  /** Rejects if this user may not read and write it. */
  probe(path: string): Promise<void>;
  /** Returns the path without symbolic links; of a file that is not there, in its real folder. */
  realPath(path: string): Promise<string>;
}

/** Replaces a file as a whole: whenever power is lost, the old text or the new one is there. */
export async function replaceFile(files: Files, path: string, text: string): Promise<void> {
  const next = `${path}.new`;
  await files.write(next, text);
  await files.sync(next);
  await files.rename(next, path);
  await files.syncFolder(dirname(path));
}

export const systemFiles: Files = {
  read: (path) => orNull(readFile(path, 'utf8')),
  async write(path, text) {
    await rm(path, { force: true });
    const file = await open(path, 'wx', 0o600);
    try {
      await file.writeFile(text);
    } finally {
      await file.close();
    }
  },
  sync: (path) => synced(path),
  rename,
  syncFolder: (path) => synced(path),
  remove: (path) => rm(path, { force: true }),
  async look(path) {
    const found = await orNull(stat(path));
    return found === null ? null : { inode: found.ino, kind: found.isFile() ? 'file' : 'other' };
  },
  async readStart(path, bytes) {
    const file = await open(path, 'r');
    try {
      const { buffer, bytesRead } = await file.read(Buffer.alloc(bytes), 0, bytes, 0);
      return buffer.subarray(0, bytesRead);
    } finally {
      await file.close();
    }
  },
  probe: (path) => access(path, constants.R_OK | constants.W_OK),
  async realPath(path) {
    const real = await orNull(realpath(path));
    if (real !== null) return real;
    const folder = await orNull(realpath(dirname(path)));
    return folder === null ? path : join(folder, basename(path));
  },
};

async function synced(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

async function orNull<T>(found: Promise<T>): Promise<T | null> {
  try {
    return await found;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
