/**
 * The frames of `colo compare`: two streams of VM output in, one stream out.
 *
 * Goal: rules 1 and 5 of docs/architecture.md in place of QEMU's colo-compare. The SVM's frames come in the client's
 * sequence space already (from filter-rewriter or `colo rewrite`). The comparator decides about each PVM frame; this file
 * moves the bytes and keeps the epochs apart.
 *
 * Epochs: nothing gates input here, and a checkpoint is seen only from outside. QEMU stops the SVM, then the PVM, and
 * resumes the SVM before the PVM. SVM frames that arrive while the PVM is stopped therefore belong to the next epoch: they
 * are set aside and compared after the commit, which is known when the PVM is resumed. If they were compared at once, the
 * commit would drop the SVM's first output after each checkpoint, and that would cost the next checkpoint.
 *
 *   phase        PVM frames   SVM frames   meaning
 *   alone        released     ignored      there is no secondary
 *   aloneAsking  set aside    set aside    the same, and the PVM has been resumed, maybe as a pair
 *   comparing    compared     compared     both VMs run
 *   stopped      compared     set aside    the PVM is stopped
 *   asking       set aside    set aside    the PVM has been resumed; was that a checkpoint?
 *
 *   phase        pvmStopped   pvmResumed   unchanged  commit     goAlone
 *   alone        -            aloneAsking  -          comparing  alone
 *   aloneAsking  -            -            alone      comparing  alone
 *   comparing    stopped      asking       -          comparing  alone
 *   stopped      -            asking       comparing  comparing  alone
 *   asking       -            -            comparing  comparing  alone
 *
 * Frames are compared at the end of the turn of the event loop in which they were read, or soon after (compare/turn.ts), and
 * always before their epoch ends.
 *
 * Reading never pauses. One thread of the PVM's QEMU writes what we read, reads what we write, and replies over QMP: while
 * that thread waits for us to read, nothing that we could wait for happens. Frames that cannot be compared yet are therefore
 * set aside here, and above a limit the newest ones are dropped and counted, whole, as by a network:
 *
 *   place         what waits                                           limit
 *   primary-in    PVM frames that are held                             heldFramesMax - heldSecondaryMax
 *                 PVM frames that are set aside                        asideFramesMax
 *                 slabs of all PVM frames, those of `out` included     three quarters of the pool
 *   secondary-in  SVM frames that are held, before more are set aside  half of heldSecondaryMax
 *                 SVM frames that are set aside                        asideFramesMax
 *                 slabs of all SVM frames                              a quarter of the pool
 *   out           released bytes that were not read                    dropInUnsentBytesMax
 *
 * A checkpoint has been asked for long before a PVM frame is dropped (`pressure`). Its counterpart, if the SVM sends it, is
 * held until that checkpoint, or matches when the PVM's protocol sends the frame again. An SVM frame that is dropped makes its
 * counterpart wait for a checkpoint. In a flow of datagrams either drop shows as a divergence.
 *
 * Failure: a stream that ends within a frame loses that frame only; the next stream's framing starts at its first byte.
 * Frames that are released while nobody is connected to `out` are dropped and counted, as by a network without a cable: the
 * PVM's own protocols send them again.
 */
import { Comparator, type Overdue, type Pressure, type WaitLimits } from '../compare/comparator.ts';
import { Turn } from '../compare/turn.ts';
import type { DivergenceReason } from '../compare/verdict.ts';
import type { Divergence } from '../divergence/explained.ts';
import { Explainer } from '../divergence/explainer.ts';
import { invariant } from '../error.ts';
import type { FrameHandler, Framing } from '../frames/frame-reader.ts';
import { RetainedFrames } from '../frames/retained-frames.ts';
import { SlabPool, type SlabUser } from '../frames/slabs.ts';
import { BatchClock } from '../io/batch-clock.ts';
import type { Clock, Timers } from '../io/clock.ts';
import { FramePort, SLABS_PER_READER } from '../io/frame-port.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { FrameId, Instant, SlabId } from '../units.ts';
import { type DropEvents, Drops } from './drops.ts';

type Phase = 'alone' | 'aloneAsking' | 'comparing' | 'stopped' | 'asking';

export type ComparePathEvents = DropEvents & {
  diverged(divergence: Divergence): void;
};

/** Whom a slab was acquired for. */
const PVM = 0;
const SVM = 1;
const CONSUMER = 2;
const READERS = 3;
/** The PVM's frames are the ones that are held, and that wait for `out`. */
const PVM_SHARE = 0.75;

const NO_LIMIT = 0x3fff_ffff;

export class ComparePath {
  readonly primaryIn: FramePort;
  readonly secondaryIn: FramePort;
  readonly out: FramePort;
  readonly comparator: Comparator;
  readonly counters = {
    primaryFrames: 0,
    secondaryFrames: 0,
    releasedFrames: 0,
    releasedBytes: 0,
    droppedFrames: 0,
  };
  /** Frames that were dropped for want of room, by place. */
  readonly drops: { readonly primary: Drops; readonly secondary: Drops; readonly out: Drops };
  private readonly limits: Limits;
  private readonly slabs: SlabPool;
  private readonly primarySlabsMax: number;
  private readonly secondarySlabsMax: number;
  private readonly timers: Pick<Timers, 'soon' | 'after'>;
  /** Empty unless `isComparing`. */
  private readonly turn: Turn;
  private isTurnEndDue = false;
  private readonly events: ComparePathEvents;
  private readonly explainer: Explainer;
  private phase: Phase;
  /** PVM frames that arrive in `asking` and `aloneAsking`. */
  private readonly primaryAside: RetainedFrames;
  /** SVM frames of this epoch that wait for the PVM to catch up, */
  private ahead: RetainedFrames;
  /** and those that belong to the next one, if it begins. */
  private early: RetainedFrames;
  /* How many more frames, or bytes, there is room for; measured once for each read. */
  private primaryRoom = 0;
  private secondaryRoom = 0;
  private asideRoom = 0;
  private outRoomBytes = 0;
  private readonly batchClock: BatchClock;

  constructor(options: {
    framing: Framing;
    phase: 'alone' | 'comparing';
    clock: Clock;
    timers: Pick<Timers, 'soon' | 'after'>;
    hashSeed: number;
    events: ComparePathEvents;
    limits?: Limits;
  }) {
    const { framing, events, timers } = options;
    this.batchClock = new BatchClock(options.clock);
    this.timers = timers;
    this.events = events;
    this.phase = options.phase;
    this.limits = options.limits ?? LIMITS;
    this.slabs = new SlabPool(this.limits.slabBytes, this.limits.slabsMax);
    const shared = this.limits.slabsMax - READERS * SLABS_PER_READER;
    this.primarySlabsMax = Math.floor(PVM_SHARE * shared);
    this.secondarySlabsMax = shared - this.primarySlabsMax;
    const sink = {
      release: (slab: SlabId, at: number, length: number) => this.release(slab, at, length),
      absorb: () => {},
      teach: () => {},
      confirm: () => {},
      diverged: (key: Int32Array, reason: DivergenceReason, primary: FrameId, secondary: FrameId) =>
        this.events.diverged(this.explainer.explain(key, reason, primary, secondary)),
    };
    this.primaryAside = new RetainedFrames(this.slabs);
    this.ahead = new RetainedFrames(this.slabs);
    this.early = new RetainedFrames(this.slabs);
    this.comparator = new Comparator(this.slabs, sink, options.hashSeed, framing, this.limits);
    this.explainer = new Explainer(this.comparator, this.slabs, framing);
    // The PVM's port of a connection that the guest opens becomes known to `colo rewrite` by the reply to its SYN.
    this.comparator.pairOpenings();
    this.turn = new Turn(this.comparator, this.slabs, this.limits.turnFramesMax);
    const port = (name: string, slabUser: SlabUser) =>
      new FramePort(name, this.slabs, framing, 0, { kind: 'always', slabUser });
    this.primaryIn = port('primary-in', PVM);
    this.secondaryIn = port('secondary-in', SVM);
    this.out = port('out', CONSUMER);
    this.drops = {
      primary: new Drops('primary-in', timers, events),
      secondary: new Drops('secondary-in', timers, events),
      out: new Drops('out', timers, events),
    };
    this.primaryIn.seat({ handler: new FromPrimary(this) });
    this.secondaryIn.seat({ handler: new FromSecondary(this) });
    // The consumer of `out` is expected to send nothing; frames from it are dropped.
    const nothing = { frame: () => {}, batchEnd: () => {} };
    this.out.seat({
      handler: nothing,
      written: () => this.measureRoom(),
      unsent: (frames, bytes) => this.notReleased(frames, bytes),
    });
    this.measureRoom();
  }

  get isComparing(): boolean {
    return this.phase !== 'alone' && this.phase !== 'aloneAsking';
  }

  private get isAsking(): boolean {
    return this.phase === 'asking' || this.phase === 'aloneAsking';
  }

  get slabsInUse(): number {
    return this.slabs.inUse;
  }

  pvmStopped(): void {
    if (this.phase === 'comparing') this.phase = 'stopped';
  }

  /** Sets the frames of both VMs aside until it is known whether the PVM was stopped for a checkpoint. */
  pvmResumed(): void {
    this.phase = this.isComparing ? 'asking' : 'aloneAsking';
    this.measureRoom();
  }

  /** The PVM runs, and no checkpoint was taken: the epoch continues. */
  unchanged(): void {
    if (this.phase === 'alone' || this.phase === 'comparing') return;
    this.early.drain((slab, at, length) => this.ahead.add(slab, at, length));
    this.enter(this.isComparing ? 'comparing' : 'alone');
  }

  /** A checkpoint has made the VMs equal: releases what was held, in order. Returns the number of frames. */
  commit(): number {
    const released = this.endEpoch();
    this.enter('comparing');
    return released;
  }

  /** There is no secondary: releases what was held, and from now on every PVM frame at once. Returns as `commit`. */
  goAlone(): number {
    const released = this.endEpoch();
    this.enter('alone');
    return released;
  }

  releaseDue(nowMs: Instant): void {
    if (this.isComparing && this.comparator.releaseDue(nowMs) > 0) this.batchEnd();
  }

  overdue(nowMs: Instant, limits: WaitLimits): Overdue {
    return this.isComparing ? this.comparator.overdue(nowMs, limits) : null;
  }

  pressure(): Pressure {
    if (!this.isComparing) return null;
    if (this.slabs.inUseOf(SVM) >= this.secondarySlabsMax) return 'limit-bytes';
    const pressure = this.comparator.pressure();
    // Memory that waits for a consumer who does not read: no checkpoint frees it.
    if (pressure === 'limit-bytes' && this.out.queuedBytes >= this.limits.unsentBytesMax) return null;
    return pressure;
  }

  close(): void {
    for (const port of [this.primaryIn, this.secondaryIn, this.out]) port.close();
    this.turn.clear();
    this.comparator.discard();
    for (const frames of [this.primaryAside, this.ahead, this.early]) frames.clear();
    for (const drops of Object.values(this.drops)) drops.close();
  }

  /* For the two inputs' ports. */

  primaryFrame(slab: SlabId, at: number, length: number): void {
    this.counters.primaryFrames++;
    this.takePrimary(slab, at, length);
  }

  secondaryFrame(slab: SlabId, at: number, length: number): void {
    this.counters.secondaryFrames++;
    const { phase } = this;
    if (phase === 'comparing' && this.ahead.frames === 0 && this.secondaryRoom > 0) {
      this.secondaryRoom--;
      this.turn.secondaryFrame(slab, at, length, this.counters.secondaryFrames, this.batchClock.now());
    } else if (phase !== 'alone')
      this.setAside(phase === 'comparing' ? this.ahead : this.early, slab, at, length);
  }

  batchEnd(): void {
    this.settle();
    this.catchUp();
    if (this.turn.isEmpty || this.isTurnEndDue) return;
    this.isTurnEndDue = true;
    this.timers.soon(() => {
      this.isTurnEndDue = false;
      this.turn.end(this.batchClock.now());
      this.batchEnd();
    });
  }

  private takePrimary(slab: SlabId, at: number, length: number): void {
    if (this.primaryRoom <= 0) {
      this.drops.primary.add();
      return;
    }
    this.primaryRoom--;
    const { phase } = this;
    if (phase === 'comparing' || phase === 'stopped')
      this.turn.primaryFrame(slab, at, length, this.batchClock.now());
    else if (phase === 'alone') this.comparator.passAlone(slab, at, length, this.batchClock.now());
    else this.primaryAside.add(slab, at, length);
  }

  /** Sets an SVM frame aside. */
  private setAside(frames: RetainedFrames, slab: SlabId, at: number, length: number): void {
    if (this.asideRoom <= 0) {
      this.drops.secondary.add();
      return;
    }
    this.asideRoom--;
    frames.add(slab, at, length);
  }

  /** Both VMs run, or one of them: the frames that were set aside take their way. */
  private enter(phase: 'alone' | 'comparing'): void {
    this.phase = phase;
    if (phase === 'alone') this.ahead.clear();
    this.measureRoom();
    this.primaryAside.drain((slab, at, length) => this.takePrimary(slab, at, length));
    this.batchEnd();
  }

  /** Releases what was held. Frames that were read before this belong to the epoch that ends. */
  private endEpoch(): number {
    this.compareAll();
    invariant(this.turn.isEmpty, 'an epoch ended before all of its frames were compared');
    const released = this.comparator.commit();
    this.explainer.forget();
    this.ahead.clear();
    [this.ahead, this.early] = [this.early, this.ahead];
    return released;
  }

  private release(slab: SlabId, at: number, length: number): void {
    if (!this.out.isOpen) {
      this.counters.droppedFrames++;
      return;
    }
    if (length > this.outRoomBytes) {
      this.drops.out.add();
      return;
    }
    this.outRoomBytes -= length;
    this.counters.releasedFrames++;
    this.counters.releasedBytes += length;
    this.out.out.push(slab, at, length);
  }

  /** `out` ended before the kernel had taken these frames. */
  private notReleased(frames: number, bytes: number): void {
    this.counters.releasedFrames -= frames;
    this.counters.releasedBytes -= bytes;
    this.counters.droppedFrames += frames;
  }

  /** Compares every frame that was read and not set aside. */
  private compareAll(): void {
    if (this.turn.isEmpty) return;
    this.turn.flush(this.batchClock.now());
    this.settle();
  }

  private settle(): void {
    this.out.flush();
    this.measureRoom();
    this.batchClock.end();
  }

  /** Takes SVM frames that were set aside because the SVM was ahead, as far as the PVM has caught up. */
  private catchUp(): void {
    if (this.ahead.frames === 0 || !this.isComparing) return;
    const nowMs = this.batchClock.now();
    this.ahead.takeOldest(this.aheadRoom(), (slab, at, length) =>
      this.turn.secondaryFrame(slab, at, length, 0, nowMs),
    );
    this.measureRoom();
  }

  /** Returns how many more SVM frames may be compared. Half of the limit: the frames of one turn must stay below it. */
  private aheadRoom(): number {
    return this.limits.heldSecondaryMax / 2 - this.comparator.secondary.frames - this.turn.secondaryFrames;
  }

  /** Measures how much room there is for the frames of the next read. */
  private measureRoom(): void {
    const { comparator, turn, limits, slabs, phase } = this;
    const hasPrimarySlabs = slabs.inUseOf(PVM) < this.primarySlabsMax;
    const hasSecondarySlabs = slabs.inUseOf(SVM) < this.secondarySlabsMax;
    const held = limits.heldFramesMax - limits.heldSecondaryMax;
    const heldRoom = held - comparator.primary.frames - turn.primaryFrames;
    const primaryRoom =
      phase === 'alone'
        ? NO_LIMIT
        : this.isAsking
          ? limits.asideFramesMax - this.primaryAside.frames
          : heldRoom;
    this.primaryRoom = hasPrimarySlabs ? primaryRoom : 0;
    this.secondaryRoom = hasSecondarySlabs ? this.aheadRoom() : 0;
    const asideRoom = limits.asideFramesMax - this.ahead.frames - this.early.frames;
    this.asideRoom = hasSecondarySlabs ? asideRoom : 0;
    this.outRoomBytes = limits.dropInUnsentBytesMax - this.out.queuedBytes - this.out.out.bytes;
  }
}

/* One class per input: V8 inlines a call that is made for every frame only if its type is known. */

class FromPrimary implements FrameHandler {
  private readonly path: ComparePath;

  constructor(path: ComparePath) {
    this.path = path;
  }

  frame(slab: SlabId, at: number, length: number): void {
    this.path.primaryFrame(slab, at, length);
  }

  batchEnd(): void {
    this.path.batchEnd();
  }
}

class FromSecondary implements FrameHandler {
  private readonly path: ComparePath;

  constructor(path: ComparePath) {
    this.path = path;
  }

  frame(slab: SlabId, at: number, length: number): void {
    this.path.secondaryFrame(slab, at, length);
  }

  batchEnd(): void {
    this.path.batchEnd();
  }
}
