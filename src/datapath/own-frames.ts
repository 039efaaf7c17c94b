/**
 * Frames that the primary's node makes itself: announcements to the network (pair/announce.ts), and queries to the VM
 * (pair/membership-query.ts), which are input: both VMs get them, in order with what clients send.
 */
import { NO_SLAB, type SlabPool } from '../frames/slabs.ts';
import type { Clock } from '../io/clock.ts';
import type { FramePort } from '../io/frame-port.ts';
import { Places } from '../pair/places.ts';
import type { Voice } from '../pair/voice.ts';
import type { SlabId } from '../units.ts';
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
  private readonly slabs: SlabPool;
  private readonly uplink: FramePort;
  private readonly voice: Voice;
  private readonly clock: Clock;
  private readonly way: InputWay;

  constructor(options: PrimaryPathOptions, way: InputWay) {
    this.slabs = options.slabs;
    this.uplink = options.uplink;
    this.voice = options.voice;
    this.clock = options.clock;
    this.places = options.places ?? new Places(options.mac, options.limits);
    this.way = way;
  }

  /** Sends a frame, with its length prefix, to the network, if this node may speak. */
  announce(frame: Uint8Array): void {
    if (this.voice.maySpeak(this.clock.now())) this.uplink.writeOwn(frame);
  }

  /** Gives the VM frames with their length prefixes, if there is memory for them: what asks again need not wait for it. */
  input(frames: readonly Uint8Array[]): void {
    const slab = this.voice.isFenced ? NO_SLAB : this.slabs.acquire();
    if (slab === NO_SLAB) return;
    const bytes = this.slabs.buffer(slab);
    let end = 0;
    for (const frame of frames) {
      if (end + frame.length > bytes.length) break;
      bytes.set(frame, end);
      this.inputFrames++;
      this.way.take(slab, end + PREFIX_BYTES, frame.length - PREFIX_BYTES);
      end += frame.length;
    }
    this.slabs.unref(slab);
    this.way.taken();
  }
}
