/** The images of a node whose VM has no disk. */
import type { DiskStore } from '../../src/disk/store.ts';

const never = (): never => {
  throw new Error('a VM without disks has no images');
};

export const NO_DISKS: DiskStore = {
  check: never,
  virtualBytes: never,
  makeBlank: never,
  makeOverlays: never,
  removeOverlays: never,
  readState: never,
  writeState: never,
  judge: never,
  admit: never,
};
