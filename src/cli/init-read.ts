/** Reads a description of a VM from a file or from standard input, up to a limit. */
import { closeSync, openSync, readSync } from 'node:fs';
import { ColoError, messageOf } from '../error.ts';

/** Far above a real one. A wrong argument, such as a disk image, is refused before it is parsed. */
const BYTES_MAX = 4 * 1024 * 1024;

/** `file`: a path, or `-`. Throws COLO_INIT_READ. */
export function readDescription(file: string): string {
  const name = file === '-' ? 'standard input' : file;
  try {
    const descriptor = file === '-' ? 0 : openSync(file, 'r');
    try {
      return readUpTo(descriptor);
    } finally {
      if (descriptor !== 0) closeSync(descriptor);
    }
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    const why =
      code === 'ENOENT' ? 'there is no such file' : code === 'EISDIR' ? 'it is a folder' : messageOf(cause);
    throw new ColoError(
      'COLO_INIT_READ',
      `${name}: ${why}; give the output of "virsh dumpxml", or a file with a command line of QEMU`,
      { cause },
    );
  }
}

function readUpTo(descriptor: number): string {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for (;;) {
    const chunk = Buffer.alloc(64 * 1024);
    const read = readSync(descriptor, chunk);
    if (read === 0) return Buffer.concat(chunks).toString('utf8');
    chunks.push(chunk.subarray(0, read));
    bytes += read;
    if (bytes > BYTES_MAX) throw new Error('it is too large for a description of a VM');
  }
}
