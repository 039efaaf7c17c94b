/**
 * Writes a "newc" cpio archive, the format that Linux unpacks as its initial file system
 * (Documentation/driver-api/early-userspace/buffer-format.rst). Since this code writes the archive itself, a device
 * node needs no root: it is only a header, and every entry belongs to root.
 */
import { invariant } from '../../src/error.ts';

export type CpioEntry =
  | { readonly kind: 'directory'; readonly path: string; readonly mode?: number }
  | { readonly kind: 'file'; readonly path: string; readonly data: Uint8Array; readonly mode?: number }
  | { readonly kind: 'symlink'; readonly path: string; readonly target: string }
  | { readonly kind: 'character'; readonly path: string; readonly major: number; readonly minor: number };

const TYPE_BITS = { directory: 0o040000, file: 0o100000, symlink: 0o120000, character: 0o020000 } as const;
const TRAILER = 'TRAILER!!!';

const padded = (length: number): number => (length + 3) & ~3;
const hex = (value: number): string => value.toString(16).toUpperCase().padStart(8, '0');

/** Returns an archive of the entries. Folders must come before their contents, or the kernel drops these silently. */
export function writeCpio(entries: readonly CpioEntry[]): Buffer {
  const known = new Set(['']);
  const chunks: Buffer[] = [];
  let inode = 0;
  for (const entry of entries) {
    invariant(!entry.path.startsWith('/'), `cpio paths are relative to the root: ${entry.path}`);
    const slash = entry.path.lastIndexOf('/');
    const parent = slash < 0 ? '' : entry.path.slice(0, slash);
    invariant(known.has(parent), `cpio: ${entry.path} comes before its folder`);
    if (entry.kind === 'directory') known.add(entry.path);
    inode += 1;
    append(chunks, entry.path, inode, modeOf(entry), dataOf(entry), deviceOf(entry));
  }
  append(chunks, TRAILER, 0, 0, Buffer.alloc(0), [0, 0]);
  return Buffer.concat(chunks);
}

function modeOf(entry: CpioEntry): number {
  if (entry.kind === 'symlink') return TYPE_BITS.symlink | 0o777;
  if (entry.kind === 'character') return TYPE_BITS.character | 0o600;
  return TYPE_BITS[entry.kind] | (entry.mode ?? (entry.kind === 'directory' ? 0o755 : 0o644));
}

function dataOf(entry: CpioEntry): Uint8Array {
  if (entry.kind === 'file') return entry.data;
  return entry.kind === 'symlink' ? Buffer.from(entry.target) : Buffer.alloc(0);
}

function deviceOf(entry: CpioEntry): readonly [number, number] {
  return entry.kind === 'character' ? [entry.major, entry.minor] : [0, 0];
}

function append(
  chunks: Buffer[],
  path: string,
  inode: number,
  mode: number,
  data: Uint8Array,
  device: readonly [number, number],
): void {
  const name = Buffer.from(`${path}\0`);
  const links = (mode & 0o170000) === TYPE_BITS.directory ? 2 : 1;
  // magic, then: ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
  const fields = [inode, mode, 0, 0, links, 0, data.length, 0, 0, device[0], device[1], name.length, 0];
  const header = Buffer.from(`070701${fields.map(hex).join('')}`);
  const head = Buffer.alloc(padded(header.length + name.length));
  header.copy(head);
  name.copy(head, header.length);
  const body = Buffer.alloc(padded(data.length));
  body.set(data);
  chunks.push(head, body);
}
