/**
 * The state file of an image: `IMAGE.colo`, one JSON object, beside the image itself.
 *
 * It names the pair, the node, the disk and the file that it belongs to. So an image that was moved to another node, or was put in the
 * place of this one, is not taken for what the file says; and of two nodes with one image the second one sees that it is the other's.
 *
 * `inode` is that of the image: what replaces a file (a restored backup, `mv`) has another one. A copy over the old contents has not;
 * no file can show that. `host` is the kernel's identifier of the host's boot: overlays are not flushed to the disk, so what
 * is seen of them counts only as long as the host runs. `overlays` is their folder: what is not in another one says nothing.
 */
import { z } from 'zod';
import { DISK_ID } from './disk.ts';
import type { DiskState } from './store.ts';

const VERSION = 1;

const schema = z.strictObject({
  version: z.literal(VERSION),
  pair: z.string(),
  node: z.string(),
  disk: z.string().regex(DISK_ID),
  image: z.string(),
  inode: z.int().nonnegative().nullable(),
  host: z.string(),
  overlays: z.string(),
  state: z.enum(['complete', 'target', 'secondary', 'promoting', 'lacking']),
  generation: z.int().nonnegative(),
});

export type StateRecord = z.output<typeof schema>;

/** Whom an image must belong to, to be used. */
export type Owner = Pick<StateRecord, 'pair' | 'node' | 'disk' | 'image'>;

export function statePathOf(image: string): string {
  return `${image}.colo`;
}

export function formatState(record: Omit<StateRecord, 'version'>): string {
  return `${JSON.stringify({ version: VERSION, ...record }, null, 2)}\n`;
}

/** Returns the record, or what is wrong with the text. */
export function parseState(text: string): StateRecord | string {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return text.trim() === '' ? 'it is empty' : 'it is not whole';
  }
  const version = (json as { version?: unknown } | null)?.version;
  if (typeof version === 'number' && version !== VERSION)
    return `it is of version ${version}, and this release knows version ${VERSION}`;
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const [{ path, message }] = parsed.error.issues;
  return path.length === 0 ? message : `${path.join('.')}: ${message}`;
}

export function stateOf({ state, generation }: StateRecord): DiskState {
  return { state, generation };
}

/** Returns whose the image is if it is not this node's: it must neither be booted nor overwritten. */
export function foreignOwner(record: StateRecord, owner: Owner): string | null {
  for (const key of ['pair', 'node', 'disk'] as const)
    if (record[key] !== owner[key]) return `${key} "${record[key]}", not to "${owner[key]}"`;
  return null;
}

/** Returns why the record does not describe this file, or null. A copy overwrites whatever a target is, so it may be any file. */
export function otherFile(record: StateRecord, image: string, inode: number | null): string | null {
  if (record.state === 'target') return null;
  if (record.image !== image) return `it was moved here from ${record.image}`;
  if (inode !== null && record.inode !== null && record.inode !== inode)
    return 'another file was put in its place';
  return null;
}
