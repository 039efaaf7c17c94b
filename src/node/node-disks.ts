/**
 * A node's images: what the file beside each one says of it (disk/store.ts), and what a candidate prepares before its VM starts.
 *
 * The files are written one after the other, in the order of the calls. One that cannot be written is an event: the node goes on, for
 * the VM runs, and the node's next start refuses an image of which it does not know that it is whole.
 */
import type { NodeConfig } from '../config/node-config.ts';
import type { Disk } from '../disk/disk.ts';
import type { DiskState, DiskStore } from '../disk/store.ts';
import { systemDiskStore } from '../disk/system-store.ts';
import { ColoError, errorText, messageOf } from '../error.ts';
import type { DiskSize } from '../link/link-protocol.ts';
import type { EventSink } from '../observe/events.ts';
import type { Pair } from '../pair/machine.ts';
import type { FollowedDisk } from '../qemu/vm-disks.ts';

/** `store`: in place of the host's own files. */
export function nodeDisksOf(config: NodeConfig, store: DiskStore | undefined, events: EventSink): NodeDisks {
  return new NodeDisks(config.vm.disks, store ?? systemDiskStore(config), events);
}

export class NodeDisks {
  private readonly disks: readonly Disk[];
  private readonly store: DiskStore;
  private readonly events: EventSink;
  private last: Promise<void> = Promise.resolve();

  constructor(disks: readonly Disk[], store: DiskStore, events: EventSink) {
    this.disks = disks;
    this.store = store;
    this.events = events;
  }

  /** Returns the disks with their sizes, as the guest sees them. */
  sizes(): Promise<DiskSize[]> {
    return Promise.all(
      this.disks.map(async (disk) => ({ id: disk.id, bytes: await this.store.virtualBytes(disk) })),
    );
  }

  /**
   * Returns why a VM must not boot on the images, or null. A node that is about to claim that it does, with this generation, must not
   * then: the other node may have whole ones.
   */
  async unfit({ state }: Pair, generation: number): Promise<string | null> {
    if (this.disks.length === 0 || state.name !== 'claiming' || state.purpose !== 'boot') return null;
    try {
      await this.store.judge(this.disks, generation);
      return null;
    } catch (cause) {
      return errorText(cause);
    }
  }

  /** Makes the images ready for a VM that boots on them, as of the record that this node has just won; rejects if it must not. */
  async admit(generation: number): Promise<void> {
    if (this.disks.length === 0) return;
    await this.store.admit(this.disks, generation);
  }

  /** Writes what every image is from now on. Never rejects. */
  record(state: DiskState['state'], generation: number): Promise<void> {
    this.last = this.last.then(async () => {
      for (const disk of this.disks) {
        try {
          await this.store.writeState(disk, { state, generation });
        } catch (cause) {
          this.events.emit('disk.state-failed', { disk: disk.id, state, message: messageOf(cause) });
        }
      }
    });
    return this.last;
  }

  /**
   * Makes the images those of a first copy, with new overlays. Rejects if the primary has other disks, or an image cannot be what
   * the primary's is.
   */
  async prepareCopy(theirs: readonly DiskSize[], generation: number): Promise<FollowedDisk[]> {
    const list = (ids: readonly string[]) => (ids.length === 0 ? 'none' : ids.join(', '));
    const ids = this.disks.map(({ id }) => id);
    const wanted = theirs.map(({ id }) => id);
    if (ids.join() !== wanted.join()) {
      throw new ColoError(
        'COLO_DISK_OTHER',
        `the primary's disks are ${list(wanted)}, this node's ${list(ids)}; give both nodes the same vm.disks in the same order`,
      );
    }
    // What this node was before must not be written after what it is now.
    await this.last;
    const followed: FollowedDisk[] = [];
    for (const [place, disk] of this.disks.entries()) {
      const { bytes } = theirs[place];
      await this.store.makeBlank(disk, bytes, generation);
      followed.push({ id: disk.id, ...(await this.store.makeOverlays(disk, bytes)) });
    }
    return followed;
  }

  /** The images are whole without their overlays. */
  async removeOverlays(): Promise<void> {
    for (const disk of this.disks) await this.store.removeOverlays(disk);
  }
}
