/**
 * The schema of `vm.disks` in a node's YAML file: the disks that the guest writes to, and that the pair replicates.
 *
 * It says what can be seen in the file alone. What the images are is looked at when the node starts (disk/system-store.ts).
 */
import { dirname, resolve } from 'node:path';
import { z } from 'zod';
import { DISK_CACHES, DISK_FORMATS, DISK_ID, DISKS_MAX, type Disk } from '../disk/disk.ts';

const conflict = { code: 'custom', params: { coloCode: 'COLO_CONFIG_CONFLICT' } } as const;
const path = z.string().min(1).max(4096);

const disk = z.strictObject({
  id: z
    .string()
    .regex(DISK_ID, 'use 1 to 31 lower-case letters, digits, "_" or "-"')
    .describe('The name of the disk, the same on both nodes.'),
  image: path.describe("The file of this node's image. A secondary creates it if it is not there."),
  // Guessing it from the contents would let a guest choose it: QEMU warns of that too.
  format: z.enum(DISK_FORMATS).describe('The format of the image.'),
  // The fastest disk for which every current guest has a driver.
  device: z
    .string()
    .default('virtio-blk-pci')
    .describe('The QEMU device that is the disk, and its properties, as in "virtio-blk-pci,bootindex=0".'),
  // QEMU's own default. Both flush when the guest does.
  cache: z
    .enum(DISK_CACHES)
    .default('writeback')
    .describe("Whether the image is accessed through the host's page cache."),
  overlayDirectory: path
    .optional()
    .describe(
      "Where a secondary keeps what only lasts until the next checkpoint; the image's folder if not given.",
    ),
});

export const disks = z
  .array(disk)
  .max(DISKS_MAX)
  .superRefine((list, context) => {
    for (const [place, { id, image }] of list.entries()) {
      const earlier = list.slice(0, place);
      if (earlier.some((other) => other.id === id))
        context.addIssue({
          ...conflict,
          path: [place, 'id'],
          message: `two disks have the id ${JSON.stringify(id)}; give each its own`,
        });
      const same = earlier.find((other) => resolve('/', other.image) === resolve('/', image));
      if (same !== undefined)
        context.addIssue({
          ...conflict,
          path: [place, 'image'],
          message: `the disks ${JSON.stringify(same.id)} and ${JSON.stringify(id)} have one image; give each its own`,
        });
    }
  });

/** Returns the disks with absolute paths: relative ones count from `base`. */
export function withDiskPaths(list: z.output<typeof disks>, base: string): readonly Disk[] {
  return list.map(({ image: given, overlayDirectory, ...rest }) => {
    const image = resolve(base, given);
    const overlays = overlayDirectory === undefined ? dirname(image) : resolve(base, overlayDirectory);
    return { ...rest, image, overlayDirectory: overlays };
  });
}
