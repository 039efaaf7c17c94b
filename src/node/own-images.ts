/**
 * Whether a primary's images are whole. Those of a node that was promoted are so when QEMU has written the overlays into them,
 * which it does while the guest runs and of which nothing notifies.
 *
 * Until then the images are `promoting`: half the one VM's and half the other's. No new secondary gets a copy meanwhile, and the
 * overlays are removed as soon as QEMU has ended: a node that starts again takes that as the sign that the images are whole.
 *
 * Images that lack a write are whole never again. The secondary's have it; only a copy of those makes these of use.
 */
import { messageOf } from '../error.ts';
import type { Surroundings } from '../io/surroundings.ts';
import type { EventSink } from '../observe/events.ts';
import type { VmDisks } from '../qemu/vm-disks.ts';
import type { NodeDisks } from './node-disks.ts';

export class OwnImages {
  private readonly disks: NodeDisks;
  private readonly events: EventSink;
  private readonly surroundings: Surroundings;
  private whole: Promise<boolean> = Promise.resolve(true);
  private committing = false;
  private lacking = false;
  private generation: number;

  /** `generation`: of the record that makes this node's images what clients know */
  constructor(
    parts: { disks: NodeDisks; events: EventSink; surroundings: Surroundings },
    generation: number,
  ) {
    this.generation = generation;
    this.disks = parts.disks;
    this.events = parts.events;
    this.surroundings = parts.surroundings;
  }

  /** Whether overlays are being written into the images. */
  get isCommitting(): boolean {
    return this.committing;
  }

  /** The VM is about to be promoted. Resolves when that is on record. */
  async beginPromotion(generation: number): Promise<void> {
    await this.disks.record('promoting', generation);
  }

  /** The VM was promoted: QEMU writes the overlays into the images. `vm`: null without disks. */
  promoted(vm: VmDisks | null, generation: number): void {
    if (vm !== null) this.whole = this.commit(vm, generation);
  }

  /** This node's images are what clients know, as of this generation; on record as soon as they are whole. */
  async record(generation: number): Promise<void> {
    this.generation = generation;
    if ((await this.whole) && !this.lacking) await this.disks.record('complete', generation);
  }

  /** A write of the guest did not reach the images, and the guest takes it for done. */
  lack(): void {
    this.lacking = true;
    void this.disks.record('lacking', this.generation);
  }

  /** Resolves when the images are whole, or never will be. */
  async areWhole(): Promise<boolean> {
    return (await this.whole) && !this.lacking;
  }

  private async commit(vm: VmDisks, generation: number): Promise<boolean> {
    const { clock } = this.surroundings;
    const startMs = clock.now();
    this.committing = true;
    try {
      await vm.committed();
      // From now on the guest writes into the images: overlays that a start found beside them would be older than these.
      await this.disks.removeOverlays();
      await this.disks.record('complete', generation);
      this.events.emit('disk.committed', { generation, tookMs: clock.now() - startMs });
      return true;
    } catch (cause) {
      this.events.emit('disk.commit-failed', { message: messageOf(cause) });
      return false;
    } finally {
      this.committing = false;
    }
  }
}
