/**
 * The names of QEMU's block nodes and devices of one disk, by its place in `vm.disks`.
 *
 * QEMU takes 31 characters for a node's name, so the disk's own id is not part of it. Both nodes of a pair have the same disks in
 * the same order, and thereby the same names.
 */

/** The block nodes of one disk; which of them are there depends on the VM's role (disk-graph.ts). */
export type DiskNodes = {
  /** what the guest's device uses: a quorum, the only node that is always there with `parent` */
  readonly quorum: string;
  /** the image in its format, and its file */
  readonly parent: string;
  readonly parentFile: string;
  /** a secondary's: what the primary's writes replace since the last checkpoint */
  readonly hidden: string;
  readonly hiddenFile: string;
  /** a secondary's: what its own guest has written since the last checkpoint */
  readonly active: string;
  readonly activeFile: string;
  /** a secondary's replication, the quorum's only child */
  readonly follower: string;
  /** a primary's connection to the secondary's image, and its replication, the quorum's second child */
  readonly remote: string;
  readonly leader: string;
  /** the guest's device */
  readonly device: string;
};

/** Returns the names for the disk at this place. */
export function diskNodes(place: number): DiskNodes {
  return {
    quorum: `colo-disk${place}`,
    parent: `colo-parent${place}`,
    parentFile: `colo-parent${place}-file`,
    hidden: `colo-hidden${place}`,
    hiddenFile: `colo-hidden${place}-file`,
    active: `colo-active${place}`,
    activeFile: `colo-active${place}-file`,
    follower: `colo-follower${place}`,
    remote: `colo-remote${place}`,
    leader: `colo-leader${place}`,
    device: `colo-device${place}`,
  };
}
