/**
 * The frames of `colo compare`: two streams of VM output in, one out.
 *
 * Goal: rules 1 and 5 where QEMU's colo-compare stands. The SVM's frames come already in the client's sequence space
 * (from filter-rewriter or `colo rewrite`). What becomes of each PVM frame is the comparator's to say
 * (compare/comparator.ts); this file moves the bytes and keeps the two VMs' epochs apart.
 *
 * Epochs: nobody gates input here, and a checkpoint is only seen from outside. QEMU stops the SVM, then the PVM, and
 * starts the SVM before the PVM. So what the SVM says while the PVM stands belongs to the next epoch: it is kept
 * aside (`stand`) and compared after the commit, which comes when the PVM is about to run (`commit`). Without that,
 * the SVM's first answers after a checkpoint would be forgotten, and each would cost the next checkpoint.
 *
 * What is read is compared at the end of the event loop's turn or soon after (compare/turn.ts), and before an epoch ends.
 *
 * Alone (before COLO has begun and after it has ended) everything of the PVM leaves at once.
 *
 * Limits: a stream is read as long as there is room behind it. Failure: a stream that ends in mid-frame loses that
 * frame alone; its successor starts afresh. What is released while nobody takes it is dropped and counted, as by a
 * network without a cable: the PVM's own protocols repeat it.
 */
import { Comparator, type Overdue, type Pressure, type WaitLimits } from '../compare/comparator.ts';
import { Turn } from '../compare/turn.ts';
import type { DivergenceReason } from '../compare/verdict.ts';
import { describeFlowKey } from '../flow/key.ts';
import type { FrameHandler, Framing } from '../frames/frame-reader.ts';
import { SlabPool } from '../frames/slabs.ts';
import { BatchClock } from '../io/batch-clock.ts';
import type { Clock, Timers } from '../io/clock.ts';
import { FramePort } from '../io/frame-port.ts';
import { Valve } from '../io/seat.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { Instant, SlabId } from '../units.ts';

type KeptFrame = { slab: SlabId; at: number; length: number };

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
  /** Empty while nothing is compared. */
  private readonly turn: Turn;
  private turnEndComes = false;
  private readonly events: ComparePathEvents;
  private comparing: boolean;
  private standing = false;
  private paused = false;
  private readonly early: KeptFrame[] = [];
  private readonly primaryValve: Valve;
  private readonly secondaryValve: Valve;
  private readonly batchClock: BatchClock;

  constructor(options: {
    framing: Framing;
    comparing: boolean;
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
    this.comparing = options.comparing;
    this.limits = options.limits ?? LIMITS;
    this.slabs = new SlabPool(this.limits.slabBytes, this.limits.slabsMax);
    const sink = {
      release: (slab: SlabId, at: number, length: number) => this.release(slab, at, length),
      teach: () => {},
      confirm: () => {},
      diverged: (key: Int32Array, reason: DivergenceReason) =>
        this.events.diverged(describeFlowKey(key), reason),
    };
    this.comparator = new Comparator(this.slabs, sink, options.hashSeed, framing, this.limits);
    this.turn = new Turn(this.comparator, this.slabs, this.limits.turnFramesMax);
    this.primaryIn = new FramePort('primary-in', this.slabs, framing);
    this.secondaryIn = new FramePort('secondary-in', this.slabs, framing);
    this.out = new FramePort('out', this.slabs, framing);
    this.primaryValve = new Valve(this.primaryIn.seat({ handler: new FromPrimary(this) }));
    this.secondaryValve = new Valve(this.secondaryIn.seat({ handler: new FromSecondary(this) }));
    // Nothing is expected from there: what comes is read and dropped.
    const nothing = { frame: () => {}, batchEnd: () => {} };
    this.out.seat({ handler: nothing, written: () => this.regulate() });
  }

  get isComparing(): boolean {
    return this.comparing;
  }

  get slabsInUse(): number {
    return this.slabs.inUse;
  }

  /** The PVM has stopped. */
  stand(): void {
    this.standing = true;
  }

  /** The PVM runs on, and whether a checkpoint was taken is not known yet: nothing more is read until it is. */
  pause(): void {
    this.paused = true;
    this.regulate();
  }

  /** The PVM runs on: what has not been committed goes on as it was. */
  runOn(): void {
    if (!this.standing && !this.paused) return;
    // The SVM said it before what was kept aside.
    this.handOn();
    this.standing = false;
    this.paused = false;
    this.replayEarly();
    this.batchEnd();
  }

  /** A checkpoint has made both VMs equal: what was held leaves, in order. Returns how many frames. */
  commit(): number {
    this.handOn();
    const released = this.comparator.commit();
    this.comparing = true;
    this.standing = true;
    this.runOn();
    return released;
  }

  /** There is no secondary: what was held leaves, and what comes leaves at once. Returns how many were held. */
  goAlone(): number {
    this.handOn();
    const released = this.comparator.commit();
    this.comparing = false;
    this.standing = true;
    this.runOn();
    return released;
  }

  overdue(nowMs: Instant, limits: WaitLimits): Overdue {
    return this.comparing ? this.comparator.overdue(nowMs, limits) : null;
  }

  pressure(): Pressure {
    return this.comparing ? this.comparator.pressure() : null;
  }

  close(): void {
    for (const port of [this.primaryIn, this.secondaryIn, this.out]) port.close();
    this.turn.clear();
    this.comparator.discard();
    for (const { slab } of this.early.splice(0)) this.slabs.unref(slab);
  }

  /* For the two inputs' ports. */

  primaryFrame(slab: SlabId, at: number, length: number): void {
    this.counters.primaryFrames++;
    if (this.comparing) this.turn.primaryFrame(slab, at, length, this.batchClock.now());
    else this.comparator.passAlone(slab, at, length, this.batchClock.now());
  }

  secondaryFrame(slab: SlabId, at: number, length: number): void {
    this.counters.secondaryFrames++;
    if (!this.comparing) return;
    if (!this.standing) {
      this.turn.secondaryFrame(slab, at, length, this.batchClock.now());
      return;
    }
    if (this.early.length >= this.limits.earlyFramesMax) {
      this.counters.lateFrames++;
      return;
    }
    this.slabs.ref(slab);
    this.early.push({ slab, at, length });
  }

  batchEnd(): void {
    this.settle();
    if (this.turn.isEmpty || this.turnEndComes) return;
    this.turnEndComes = true;
    this.timers.soon(() => {
      this.turnEndComes = false;
      this.turn.end(this.batchClock.now());
      this.batchEnd();
    });
  }

  private replayEarly(): void {
    for (const { slab, at, length } of this.early.splice(0)) {
      if (this.comparing) this.comparator.secondaryFrame(slab, at, length, 0, this.batchClock.now());
      this.slabs.unref(slab);
    }
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

  /** All that was read is compared now. */
  private handOn(): void {
    if (this.turn.isEmpty) return;
    this.turn.handOn(this.batchClock.now());
    this.settle();
  }

  private settle(): void {
    this.out.flush();
    this.regulate();
    this.batchClock.end();
  }

  private regulate(): void {
    const full = this.comparing && this.comparator.isFull(this.turn.primaryFrames);
    this.primaryValve.shutIf(this.paused || full || this.out.queuedBytes >= this.limits.unsentBytesMax);
    // The SVM may be ahead by as much as its socket holds, too.
    // One read may bring thousands of small frames: stopping at half keeps them below the limit.
    const secondaryAhead =
      this.comparing &&
      this.comparator.secondary.frames + this.turn.secondaryFrames >= this.limits.heldSecondaryMax / 2;
    this.secondaryValve.shutIf(this.paused || secondaryAhead);
  }
}

/* A class for each input: of what a reader calls for every frame, V8 makes one piece only where types tell it which. */

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
