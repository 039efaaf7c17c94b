/** The initial file system of a guest, packed once for each state of the files that make it. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { inCache } from '../cache.ts';
import { type CpioEntry, writeCpio } from './cpio.ts';

/**
 * Returns the path of the packed file, below `folder`. `sources` are files of the checkout: they change more often than the packages,
 * which only a recipe number renews.
 */
export async function packedInitrd(
  folder: string,
  sources: readonly string[],
  entries: () => CpioEntry[] | Promise<CpioEntry[]>,
): Promise<string> {
  const hash = createHash('sha256');
  for (const source of sources) hash.update(readFileSync(source));
  const initrd = join(folder, `initrd-${hash.digest('hex').slice(0, 12)}.cpio`);
  if (existsSync(initrd)) return initrd;
  await inCache(folder, async () => {
    const packed = writeCpio(await entries());
    // Two processes that are here at once write the same bytes, each into its own file.
    const partial = `${initrd}.${process.pid}`;
    writeFileSync(partial, packed);
    renameSync(partial, initrd);
  });
  return initrd;
}
