/**
 * A node's images and their state files, as its roles use them. system-store.ts has the real one; a simulated world has its own.
 *
 * The state of an image is on disk beside it, because an image does not show what it is: a half-copied one boots, and so does one of
 * last week. disk-rules.ts says which state allows what.
 *
 * The order in which a node writes it:
 * - `target`, before anything of a resync touches the image, and before a blank one is made.
 * - `secondary`, when the first copy has committed, before the primary may rely on it.
 * - `promoting`, when the claim is won, before the overlays are written into the image.
 * - `complete`, when they are; and whenever this node has won a change of the record that leaves it the primary.
 */
import type { Disk } from './disk.ts';

/** What an image is. `generation`: of the pair's record, when that became true. */
export type DiskState =
  /** as the guest that ran on it left it */
  | { readonly state: 'complete'; readonly generation: number }
  /** being overwritten by the primary's: neither the old contents nor the new */
  | { readonly state: 'target'; readonly generation: number }
  /** follows the primary's, with all that its guest has flushed */
  | { readonly state: 'secondary'; readonly generation: number }
  /** the overlays of the promoted VM are being written into it: whole only together with them */
  | { readonly state: 'promoting'; readonly generation: number };

export type Overlays = { readonly active: string; readonly hidden: string };

/** What the arbiter's record says: it is the first one of the pair, or it names this node as the one that has the VM. */
export type Membership = { readonly is: 'first' | 'primary'; readonly generation: number };

/** Each method rejects with COLO_DISK_IMAGE, COLO_DISK_STATE, COLO_DISK_SPACE or COLO_DISK_TOOL: which disk, why, and what to do. */
export interface DiskStore {
  /** Rejects if the image is not there, or is not what the configuration says. Sees also an image that another QEMU has open. */
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
  /**
   * Makes the images ready for a VM that boots on them alone, and writes their state `complete`; rejects if one of them must not be
   * booted. Overlays of a promotion that QEMU did not finish are written into their image first, which may take a minute.
   */
  admit(disks: readonly Disk[], membership: Membership): Promise<void>;
}
