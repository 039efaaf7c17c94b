/**
 * The second half of an orderly move, at the node that has taken over: client frames that the former primary's uplink still hears
 * come over the link, and the VM gets each of them once.
 *
 * Goal: no frame that either uplink heard is lost, and none counts twice. On a bridge that learns, each frame is heard by one of the
 * two uplinks, and a few more by the former one until the announcements have moved the VM's address. On a network that floods, both
 * hear every frame. So a frame that the one way has brought is dropped when the other way brings it, one for one.
 *
 * Numbers: the former primary sends frames in its own VM's numbers, as before. The translator of the secondary that this node was
 * still knows those connections.
 *
 * Limits: a frame is remembered for `silentUplinkMsMax`, and forgotten early only after many others (frame-hashes.ts): the VM then
 * gets it twice. So does it with a segment of a connection that outlived an earlier failover, which has the former VM's numbers on the
 * link and the client's at the uplink: TCP drops the second one. Two equal frames of which each uplink heard another one count as one.
 * The link ends soon after the move (`end`); what it has brought is dropped when this node's uplink, which may be late, brings it after
 * that.
 */
import type { SlabPool } from '../frames/slabs.ts';
import type { Clock } from '../io/clock.ts';
import type { FramePort } from '../io/frame-port.ts';
import type { Limits } from '../limits.ts';
import type { SvmTranslator } from '../translate/svm-translator.ts';
import type { SlabId } from '../units.ts';
import { FrameHashes, hashFrame } from './frame-hashes.ts';
import type { AcceptsInput, InputFilter } from './input-filter.ts';

export class PassedOn implements AcceptsInput {
  /** that the VM was given */
  frames = 0;
  private readonly slabs: SlabPool;
  private readonly vm: FramePort;
  private readonly clock: Clock;
  private readonly filter: InputFilter;
  private readonly translator: SvmTranslator;
  private readonly limits: Limits;
  private readonly byLink: FrameHashes;
  private readonly byUplink: FrameHashes;
  /** `late`: the link has ended, and the uplink may still bring what the link has brought */
  private phase: 'expected' | 'late' | 'over' = 'expected';
  private lateUntilMs = 0;

  /** `byLink`: frames that the link has brought before this node's uplink did. */
  constructor(options: {
    slabs: SlabPool;
    vm: FramePort;
    clock: Clock;
    filter: InputFilter;
    translator: SvmTranslator;
    byLink: FrameHashes;
    limits: Limits;
  }) {
    this.slabs = options.slabs;
    this.vm = options.vm;
    this.clock = options.clock;
    this.filter = options.filter;
    this.translator = options.translator;
    this.limits = options.limits;
    this.byLink = options.byLink;
    this.byUplink = new FrameHashes(options.limits);
  }

  /** The uplink brings a frame. Returns false if it is not for the VM, or if the VM has it by the link. */
  accepts(bytes: Uint8Array, at: number, length: number): boolean {
    if (!this.filter.accepts(bytes, at, length)) return false;
    switch (this.phase) {
      case 'expected':
        return !this.isSecond(this.byLink, this.byUplink, bytes, at, length);
      case 'late':
        return !this.isLate(bytes, at, length);
      case 'over':
        return true;
    }
  }

  /** The link brings a frame. */
  take(slab: SlabId, at: number, length: number): void {
    const bytes = this.slabs.buffer(slab);
    if (this.phase !== 'expected' || this.isSecond(this.byUplink, this.byLink, bytes, at, length)) return;
    this.frames++;
    this.translator.input(bytes, at, length);
    this.vm.out.push(slab, at, length);
  }

  /** All frames of one read of the link were taken. */
  taken(): void {
    if (this.phase === 'expected') this.vm.flush();
  }

  /** The link has ended. */
  end(): void {
    this.phase = 'late';
    this.lateUntilMs = this.clock.now() + this.limits.silentUplinkMsMax;
    this.translator.clear();
  }

  private isLate(bytes: Uint8Array, at: number, length: number): boolean {
    const nowMs = this.clock.now();
    if (nowMs > this.lateUntilMs) this.phase = 'over';
    return this.byLink.take(hashFrame(bytes, at, length), nowMs);
  }

  private isSecond(
    others: FrameHashes,
    own: FrameHashes,
    bytes: Uint8Array,
    at: number,
    length: number,
  ): boolean {
    const hash = hashFrame(bytes, at, length);
    const nowMs = this.clock.now();
    if (others.take(hash, nowMs)) return true;
    own.note(hash, nowMs);
    return false;
  }
}
