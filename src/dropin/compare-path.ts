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
 *   phase        PVM frames   SVM frames   reading   meaning
 *   alone        released     dropped      yes       there is no secondary
 *   aloneAsking  released     dropped      no        the same, and the PVM has been resumed, maybe as a pair
 *   comparing    compared     compared     yes       both VMs run
 *   stopped      compared     set aside    yes       the PVM is stopped
 *   asking       compared     set aside    no        the PVM has been resumed; was that a checkpoint?
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
 * Limits: a stream is read while there is room for its frames; `earlyFramesMax` frames are set aside. Failure: a stream that
 * ends within a frame loses that frame only; the next stream's framing starts at its first byte. Frames that are released
 * while nobody is connected to `out` are dropped and counted, as by a network without a cable: the PVM's own protocols
 * send them again.
 */
import { Comparator, type Overdue, type Pressure, type WaitLimits } from '../compare/comparator.ts';
import { Turn } from '../compare/turn.ts';
import type { DivergenceReason } from '../compare/verdict.ts';
import { invariant } from '../error.ts';
import { describeFlowKey } from '../flow/key.ts';
import type { FrameHandler, Framing } from '../frames/frame-reader.ts';
import { RetainedFrames } from '../frames/retained-frames.ts';
import { SlabPool } from '../frames/slabs.ts';
import { BatchClock } from '../io/batch-clock.ts';
import type { Clock, Timers } from '../io/clock.ts';
import { FramePort } from '../io/frame-port.ts';
import { Valve } from '../io/seat.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { Instant, SlabId } from '../units.ts';

type Phase = 'alone' | 'aloneAsking' | 'comparing' | 'stopped' | 'asking';

export type ComparePathEvents = {
  diverged(flow: string, reason: DivergenceReason): void;
};

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
    lateFrames: 0,
  };
  private readonly limits: Limits;
  private readonly slabs: SlabPool;
  private readonly timers: Pick<Timers, 'soon'>;
  /** Empty unless `isComparing`. */
  private readonly turn: Turn;
  private isTurnEndDue = false;
  private readonly events: ComparePathEvents;
  private phase: Phase;
  /** SVM frames of the next epoch. */
  private readonly early: RetainedFrames;
  private readonly primaryValve: Valve;
  private readonly secondaryValve: Valve;
  private readonly batchClock: BatchClock;

  constructor(options: {
    framing: Framing;
    phase: 'alone' | 'comparing';
    clock: Clock;
    timers: Pick<Timers, 'soon'>;
    hashSeed: number;
    events: ComparePathEvents;
    limits?: Limits;
  }) {
    const { framing } = options;
    this.batchClock = new BatchClock(options.clock);
    this.timers = options.timers;
    this.events = options.events;
    this.phase = options.phase;
    this.limits = options.limits ?? LIMITS;
    this.slabs = new SlabPool(this.limits.slabBytes, this.limits.slabsMax);
    const sink = {
      release: (slab: SlabId, at: number, length: number) => this.release(slab, at, length),
      teach: () => {},
      confirm: () => {},
      diverged: (key: Int32Array, reason: DivergenceReason) =>
        this.events.diverged(describeFlowKey(key), reason),
    };
    this.early = new RetainedFrames(this.slabs);
    this.comparator = new Comparator(this.slabs, sink, options.hashSeed, framing, this.limits);
    this.turn = new Turn(this.comparator, this.slabs, this.limits.turnFramesMax);
    this.primaryIn = new FramePort('primary-in', this.slabs, framing);
    this.secondaryIn = new FramePort('secondary-in', this.slabs, framing);
    this.out = new FramePort('out', this.slabs, framing);
    this.primaryValve = new Valve(this.primaryIn.seat({ handler: new FromPrimary(this) }));
    this.secondaryValve = new Valve(this.secondaryIn.seat({ handler: new FromSecondary(this) }));
    // The consumer of `out` is expected to send nothing; frames from it are dropped.
    const nothing = { frame: () => {}, batchEnd: () => {} };
    this.out.seat({ handler: nothing, written: () => this.regulate() });
  }

  get isComparing(): boolean {
    return this.phase !== 'alone' && this.phase !== 'aloneAsking';
  }

  get slabsInUse(): number {
    return this.slabs.inUse;
  }

  pvmStopped(): void {
    if (this.phase === 'comparing') this.phase = 'stopped';
  }

  /** Pauses reading until it is known whether the PVM was stopped for a checkpoint. */
  pvmResumed(): void {
    this.phase = this.isComparing ? 'asking' : 'aloneAsking';
    this.regulate();
  }

  /** The PVM runs, and no checkpoint was taken: the epoch continues. */
  unchanged(): void {
    if (this.phase === 'alone' || this.phase === 'comparing') return;
    // Frames that the SVM sent before those that were set aside.
    this.compareAll();
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

  overdue(nowMs: Instant, limits: WaitLimits): Overdue {
    return this.isComparing ? this.comparator.overdue(nowMs, limits) : null;
  }

  pressure(): Pressure {
    return this.isComparing ? this.comparator.pressure() : null;
  }

  close(): void {
    for (const port of [this.primaryIn, this.secondaryIn, this.out]) port.close();
    this.turn.clear();
    this.comparator.discard();
    this.early.clear();
  }

  /* For the two inputs' ports. */

  primaryFrame(slab: SlabId, at: number, length: number): void {
    this.counters.primaryFrames++;
    if (this.isComparing) this.turn.primaryFrame(slab, at, length, this.batchClock.now());
    else this.comparator.passAlone(slab, at, length, this.batchClock.now());
  }

  secondaryFrame(slab: SlabId, at: number, length: number): void {
    this.counters.secondaryFrames++;
    if (this.phase === 'comparing')
      this.turn.secondaryFrame(slab, at, length, this.counters.secondaryFrames, this.batchClock.now());
    else if (this.isComparing) this.setAside(slab, at, length);
  }

  batchEnd(): void {
    this.settle();
    if (this.turn.isEmpty || this.isTurnEndDue) return;
    this.isTurnEndDue = true;
    this.timers.soon(() => {
      this.isTurnEndDue = false;
      this.turn.end(this.batchClock.now());
      this.batchEnd();
    });
  }

  private setAside(slab: SlabId, at: number, length: number): void {
    if (this.early.frames < this.limits.earlyFramesMax) this.early.add(slab, at, length);
    else this.counters.lateFrames++;
  }

  /** Both VMs run, or one of them: the frames that were set aside are compared, or dropped. */
  private enter(phase: 'alone' | 'comparing'): void {
    this.phase = phase;
    this.early.drain((slab, at, length) => {
      if (phase === 'comparing') this.comparator.secondaryFrame(slab, at, length, 0, this.batchClock.now());
    });
    this.batchEnd();
  }

  /** Releases what was held. Frames that were read before this belong to the epoch that ends. */
  private endEpoch(): number {
    this.compareAll();
    invariant(this.turn.isEmpty, 'an epoch ended before all of its frames were compared');
    return this.comparator.commit();
  }

  private release(slab: SlabId, at: number, length: number): void {
    if (!this.out.isOpen) {
      this.counters.droppedFrames++;
      return;
    }
    this.counters.releasedFrames++;
    this.counters.releasedBytes += length;
    this.out.out.push(slab, at, length);
  }

  /** Compares every frame that was read. */
  private compareAll(): void {
    if (this.turn.isEmpty) return;
    this.turn.flush(this.batchClock.now());
    this.settle();
  }

  private settle(): void {
    this.out.flush();
    this.regulate();
    this.batchClock.end();
  }

  /** Pauses each input while there is no room for its frames, and both while an epoch may be about to end. */
  private regulate(): void {
    const { comparator, turn, limits, isComparing } = this;
    const isAsking = this.phase === 'asking' || this.phase === 'aloneAsking';
    const isFull = isComparing && comparator.isFull(turn.primaryFrames);
    this.primaryValve.shutIf(isAsking || isFull || this.out.queuedBytes >= limits.unsentBytesMax);
    // Half of the limit: one read may bring thousands of small frames, and they must stay below it. What the SVM sends
    // further ahead waits in its socket.
    const isSecondaryAhead =
      isComparing && comparator.secondary.frames + turn.secondaryFrames >= limits.heldSecondaryMax / 2;
    this.secondaryValve.shutIf(isAsking || isSecondaryAhead);
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
