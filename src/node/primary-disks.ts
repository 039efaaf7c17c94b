/**
 * The disks of a primary's VM while it has, or gets, a secondary: the relays of their NBD streams, and the commands to QEMU.
 *
 * Whatever goes wrong, `close` comes first: it closes the relays, and with them every wait of QEMU and of its guest for the
 * secondary's images. What QEMU still has of the secondary is removed when the VM leaves COLO (guarded-vm.ts).
 *
 * Failure: `lost` is called once when a stream ends or stalls, or when a write did not reach the secondary. The session then ends.
 */
import type { Disk } from '../disk/disk.ts';
import { NbdRelay } from '../disk/nbd-relay.ts';
import type { ByteStream } from '../io/byte-stream.ts';
import type { Surroundings } from '../io/surroundings.ts';
import type { Limits } from '../limits.ts';
import { diskStreamOf } from '../link/copy.ts';
import type { VmDisks } from '../qemu/vm-disks.ts';

/** What a session needs of them. */
export type CopiedDisks = Pick<PrimaryDisks, 'copy' | 'attach' | 'lostWrite' | 'close'>;

export class PrimaryDisks {
  private readonly disks: readonly Disk[];
  private readonly vm: VmDisks;
  private readonly socketOf: (place: number) => string;
  private readonly surroundings: Surroundings;
  private readonly relays: readonly NbdRelay[];
  private readonly onLost: (cause: string) => void;
  private closed = false;

  constructor(options: {
    disks: readonly Disk[];
    vm: VmDisks;
    /** the link's streams, by the disks' ids */
    streams: ReadonlyMap<string, ByteStream>;
    /** where QEMU finds the secondary's image of a disk */
    socketOf: (place: number) => string;
    surroundings: Surroundings;
    limits: Limits;
    lost: (cause: string) => void;
  }) {
    const { clock, timers } = options.surroundings;
    const { limits, streams } = options;
    this.disks = options.disks;
    this.vm = options.vm;
    this.socketOf = options.socketOf;
    this.surroundings = options.surroundings;
    this.onLost = options.lost;
    this.relays = this.disks.map(({ id }) => {
      const peer = diskStreamOf({ disks: streams }, id);
      return new NbdRelay({ id, peer, clock, timers, limits, closed: (cause) => this.lost(cause) });
    });
  }

  /** Copies the disks to the secondary; resolves when both have the same, and every write goes to both. */
  async copy(): Promise<void> {
    const sockets = this.disks.map(({ id }, place) => ({ id, socket: this.socketOf(place) }));
    await Promise.all(
      this.relays.map((relay, place) => relay.listen(sockets[place].socket, this.surroundings.transports)),
    );
    await this.vm.copy(sockets, (waiter) => {
      for (const relay of this.relays) relay.waitedForBy(waiter);
    });
  }

  /** The guest stands, and COLO is about to begin: puts the replication in the place of the copy. */
  attach(): Promise<void> {
    return this.vm.attach();
  }

  /** In a checkpoint, when the guest stands: resolves with why a write of the epoch did not reach the secondary, or null. */
  lostWrite(): Promise<string | null> {
    return this.vm.lostWrite();
  }

  /** QEMU has reported that a write did not reach the secondary, or a relay has ended. */
  lost(cause: string): void {
    if (this.closed) return;
    this.close();
    this.onLost(cause);
  }

  /** Nothing passes to or from the secondary's images after this. */
  close(): void {
    this.closed = true;
    for (const relay of this.relays) relay.close();
  }
}
