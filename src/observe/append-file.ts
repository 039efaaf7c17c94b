/**
 * The only kind of file that a node writes while it works: bytes are only appended, and the event loop never waits for the
 * disk. It is an interface so that tests can fill the disk.
 */
import { close, ftruncate, mkdirSync, openSync, write } from 'node:fs';
import { dirname } from 'node:path';

export interface AppendFile {
  /** Writes bytes[0, length), and calls `done` with the number of bytes that are in the file. One call at a time. */
  append(bytes: Uint8Array, length: number, done: (error: Error | null, written: number) => void): void;
  /** Cuts the file to `length` bytes. */
  truncate(length: number, done: (error: Error | null) => void): void;
  close(done: () => void): void;
}

/** The content is other people's traffic: only the node's own user may read it. */
const MODE = 0o600;

/** `flags` as for fs.open: 'a' appends to a file, 'wx' refuses one that exists. Throws the errors of fs. */
export function openAppendFile(path: string, flags: 'a' | 'wx'): AppendFile {
  if (flags === 'a') mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const fd = openSync(path, flags, MODE);
  return {
    append(bytes, length, done) {
      const from = (offset: number): void => {
        write(fd, bytes, offset, length - offset, null, (error, written) => {
          if (error !== null) done(error, offset);
          else if (offset + written < length) from(offset + written);
          else done(null, length);
        });
      };
      from(0);
    },
    truncate(length, done) {
      ftruncate(fd, length, done);
    },
    close(done) {
      close(fd, () => done());
    },
  };
}

/** Returns for people why a file cannot be written. */
export function fileErrorText(error: unknown): string {
  const { code, message } = error as NodeJS.ErrnoException;
  switch (code) {
    case 'ENOSPC':
      return 'the disk is full';
    case 'EDQUOT':
      return 'the disk quota is used up';
    case 'EACCES':
    case 'EPERM':
      return 'this user may not write there';
    case 'EEXIST':
      return 'there is already such a file';
    case 'ENOENT':
      return 'there is no such directory';
    case 'EROFS':
      return 'the file system is read-only';
    default:
      return message.replaceAll(/\s+/g, ' ');
  }
}
