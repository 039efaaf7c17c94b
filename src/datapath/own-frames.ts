/**
 * Frames that the primary's node makes itself: announcements to the network (pair/announce.ts), and queries to the VM
 * (pair/membership-query.ts), which are input: both VMs get them, in order with what clients send.
 *
 * Both are repeated in rounds (node/announcer.ts), so either may be left out. Limits: queries lie one behind the other in one slab, so
 * that those which a VM does not read pin no slab each. An announcement is left out at an uplink with `unsentBytesMax` that its socket
 * has not taken. Under a lease any such byte is too many: what waits in this process leaves without another look at the clock, and after
 * the lease it would bring the VM's traffic to the wrong host.
 */
import { OwnSlab } from '../frames/own-slab.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { Clock } from '../io/clock.ts';
import type { FramePort } from '../io/frame-port.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { Places } from '../pair/places.ts';
import type { Voice } from '../pair/voice.ts';
import { NONE, type SlabId } from '../units.ts';
import type { PrimaryPathOptions } from './primary-path-options.ts';

const PREFIX_BYTES = 4;

/** Where input goes on the path. */
type InputWay = {
  take(slab: SlabId, at: number, length: number): void;
  /** All frames were taken. */
  taken(): void;
};

export class OwnFrames {
  /** frames that were given to the VM */
  inputFrames = 0;
  /** Where the VM is in the network: the path feeds it. */
  readonly places: Places;
  private readonly limits: Limits;
  private readonly slabs: SlabPool;
  private readonly queries: OwnSlab;
  private readonly uplink: FramePort;
  private readonly voice: Voice;
  private readonly clock: Clock;
  private readonly way: InputWay;

  constructor(options: PrimaryPathOptions, way: InputWay) {
    this.limits = options.limits ?? LIMITS;
    this.slabs = options.slabs;
    this.queries = new OwnSlab(options.slabs);
    this.uplink = options.uplink;
    this.voice = options.voice;
    this.clock = options.clock;
    this.places = options.places ?? new Places(options.mac, options.limits);
    this.way = way;
  }

  /** Sends a frame, with its length prefix, to the network, if this node may speak and the network reads. */
  announce(frame: Uint8Array): void {
    const { voice, uplink } = this;
    const unsentMax = voice.isLeased ? 0 : this.limits.unsentBytesMax;
    if (voice.maySpeak(this.clock.now()) && uplink.queuedBytes <= unsentMax) uplink.writeOwn(frame);
  }

  /** Gives the VM frames with their length prefixes, if there is memory for them: what asks again need not wait for it. */
  input(frames: readonly Uint8Array[]): void {
    if (this.voice.isFenced) return;
    const { slabs, queries, way } = this;
    for (const frame of frames) {
      const at = queries.take(frame.length);
      if (at === NONE) break;
      slabs.buffer(queries.slab).set(frame, at);
      this.inputFrames++;
      way.take(queries.slab, at + PREFIX_BYTES, frame.length - PREFIX_BYTES);
    }
    way.taken();
  }

  /** The path is over. */
  end(): void {
    this.queries.clear();
  }
}
