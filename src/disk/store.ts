/**
 * A node's images and their state files, as its roles use them. system-store.ts has the real one; a simulated world has its own.
 *
 * The state of an image is on disk beside it, because an image does not show what it is: a half-copied one boots, and so does one of
 * last week. disk-rules.ts says which state allows what.
 *
 * The order in which a node writes it:
 * - `target`, before anything of a resync touches the image, and before a blank one is made.
 * - `secondary`, when the first copy has committed.
 * - `promoting`, when the claim is won, before the overlays are written into the image.
 * - `complete`, when they are, after the overlays were removed; and whenever this node has won a change of the record that leaves it the primary.
 * - `lacking`, when QEMU reports a failed write to a primary's own image: the secondary's has it.
 */
import type { Disk } from './disk.ts';

/** What an image is. `generation`: of the pair's record, when that became true. */
export type DiskState =
  /** as the guest that ran on it left it */
  | { readonly state: 'complete'; readonly generation: number }
  /** being overwritten by the primary's: neither the old contents nor the new */
  | { readonly state: 'target'; readonly generation: number }
  /** follows the primary's */
  | { readonly state: 'secondary'; readonly generation: number }
  /** QEMU writes the overlays of the promoted VM into it */
  | { readonly state: 'promoting'; readonly generation: number }
  /** a write of its guest failed here and not at the secondary, so that QEMU has hidden it from the guest */
  | { readonly state: 'lacking'; readonly generation: number };

export type Overlays = { readonly active: string; readonly hidden: string };

/** Each method rejects with COLO_DISK_IMAGE, COLO_DISK_STATE, COLO_DISK_SPACE or COLO_DISK_TOOL: which disk, why, and what to do. */
export interface DiskStore {
  /** Rejects if the image is not there, or is not what the configuration says, or is another node's. */
  check(disk: Disk): Promise<void>;
  /** Returns the size that a guest sees, in bytes. */
  virtualBytes(disk: Disk): Promise<number>;
  /**
   * Makes this node a place for a copy of the primary's image, which has `bytes`: writes the state `target`, and then makes a blank
   * image if there is none. Rejects, with everything as it was, if the image there is another one than a copy can replace.
   */
  makeBlank(disk: Disk, bytes: number, generation: number): Promise<void>;
  /** Makes both overlays anew, empty, of `bytes`; returns their paths. */
  makeOverlays(disk: Disk, bytes: number): Promise<Overlays>;
  /** Removes both if they are there. */
  removeOverlays(disk: Disk): Promise<void>;
  /** Returns null if there is no state file: an image that no node has used yet. */
  readState(disk: Disk): Promise<DiskState | null>;
  /** Resolves when the state would outlive a loss of power. */
  writeState(disk: Disk, state: DiskState): Promise<void>;
  /** Rejects as `admit` would with this generation, and changes nothing: a node whose images must not be booted claims nothing. */
  judge(disks: readonly Disk[], generation: number): Promise<void>;
  /**
   * Makes the images ready for a VM that boots on them alone, and writes their state `complete`; rejects if one of them must not be
   * booted. `generation`: of the record, which names this node as the one that has the VM.
   */
  admit(disks: readonly Disk[], generation: number): Promise<void>;
}
