/** A replicated disk of the VM, as the configuration names it: the guest writes to it, and the pair keeps two images of it equal. */
export type Disk = {
  /** the same on both nodes; names the disk's channel of the link, its export and its files */
  readonly id: string;
  /** an absolute path; each node has an image of its own */
  readonly image: string;
  readonly format: DiskFormat;
  /** a QEMU device and its properties, as in "virtio-blk-pci,bootindex=0" */
  readonly device: string;
  readonly cache: DiskCache;
  /** an absolute path: where a secondary puts what only lasts until the next checkpoint */
  readonly overlayDirectory: string;
};

export const DISK_FORMATS = ['raw', 'qcow2'] as const;
export type DiskFormat = (typeof DISK_FORMATS)[number];

/** `writeback`: through the host's page cache. `none`: around it (O_DIRECT). Both keep what the guest has flushed. */
export const DISK_CACHES = ['writeback', 'none'] as const;
export type DiskCache = (typeof DISK_CACHES)[number];

/** Who waits for what passes on a disk's connection: a first copy of it, which has time, or the guest, or QMP for it. */
export type DiskWaiter = 'copy' | 'guest';

/** Becomes part of file names and of names of channels, and QEMU takes it as the name of an export. */
export const DISK_ID = /^[a-z0-9_-]{1,31}$/;

/** More disks than one VM has, and a quarter of the channels that a copy may have (link-protocol.ts). */
export const DISKS_MAX = 16;
