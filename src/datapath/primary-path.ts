/**
 * The primary's data path: uplink to VM (and to the link), VM to comparator, comparator to uplink.
 *
 * Goal: rules 1, 2 and 3 of docs/architecture.md. Input goes to the PVM and, mirrored, to the link, from one slab.
 * Output is held by the comparator while the pair is protected, and passes at once while the VM is alone.
 *
 * One space of sequence numbers inside: the PVM's. For connections that lived through a failover the client knows
 * other numbers; `offsets` translates at the uplink's edge, in place, on the way in and at release.
 *
 * May this node speak? `speakUntilMs` is the end of what it can prove by its own clock (pair/lease.ts). After it,
 * released frames stay in the uplink's queue; `fence` drops them for good. The clock is asked before each write. What
 * a write leaves in this process because the socket is full would leave later, unasked: when the process was paused,
 * before any of its code runs. So a write is short, and the next one waits until the socket has taken all of it.
 *
 * Gate: while a checkpoint is drained and taken, input is kept back, in order, and delivered to both VMs afterwards.
 *
 * Limits: input that waits (gated, or not taken by VM or link) stops the reading of the uplink; output that waits (not
 * taken by the uplink, or held up to where a checkpoint is forced, Comparator.pressure) stops the reading of the VM.
 */
import {
  Comparator,
  type ComparatorSink,
  type Overdue,
  type Pressure,
  type WaitLimits,
} from '../compare/comparator.ts';
import type { Lesson } from '../compare/lesson.ts';
import type { DivergenceReason, ReleaseCause } from '../compare/verdict.ts';
import { invariant } from '../error.ts';
import { describeFlowKey } from '../flow/key.ts';
import { RunQueue } from '../frames/run-queue.ts';
import type { SlabPool } from '../frames/slabs.ts';
import { BatchClock } from '../io/batch-clock.ts';
import type { Clock } from '../io/clock.ts';
import type { FramePort } from '../io/frame-port.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { LinkChannel } from '../link/link-channel.ts';
import { MESSAGE } from '../link/link-protocol.ts';
import type { OffsetMap } from '../translate/offset-map.ts';
import type { Instant, SlabId } from '../units.ts';
import { InputFilter } from './input-filter.ts';
import { TAP, type Tap } from './tap.ts';

export type PrimaryPathEvents = {
  /** A flow differs: only a checkpoint heals it. */
  diverged(flow: string, reason: DivergenceReason): void;
};

type EarlyFrame = { slab: SlabId; at: number; length: number; index: number };

export class PrimaryPath {
  readonly counters = {
    inputFrames: 0,
    inputBytes: 0,
    foreignFrames: 0,
    releasedFrames: 0,
    releasedBytes: 0,
    peerFrames: 0,
    droppedFrames: 0,
  };
  readonly comparator: Comparator;
  readonly offsets: OffsetMap;
  tap: Tap | null = null;
  /** the end of what this node can prove of its right to speak; Infinity while it is alone by the arbiter's word */
  speakUntilMs = Number.POSITIVE_INFINITY;
  epoch = 0;
  private readonly limits: Limits;
  private readonly slabs: SlabPool;
  private readonly vm: FramePort;
  private readonly uplink: FramePort;
  private readonly clock: Clock;
  private readonly events: PrimaryPathEvents;
  private readonly filter: InputFilter;
  private readonly gated: RunQueue;
  private link: LinkChannel | null = null;
  private mirroring = false;
  private comparing = false;
  private gateClosed = false;
  private fenced = false;
  private uplinkHeld = false;
  private vmHeld = false;
  private readingRest = false;
  private sending = false;
  private inputIndex = 0;
  /** Output of the epoch after this one, which overtook word of the commit. */
  private early: EarlyFrame[] = [];
  private readonly batchClock: BatchClock;

  constructor(options: {
    slabs: SlabPool;
    vm: FramePort;
    uplink: FramePort;
    clock: Clock;
    offsets: OffsetMap;
    mac: string;
    hashSeed: number;
    events: PrimaryPathEvents;
    limits?: Limits;
  }) {
    this.limits = options.limits ?? LIMITS;
    this.slabs = options.slabs;
    this.vm = options.vm;
    this.uplink = options.uplink;
    this.clock = options.clock;
    this.batchClock = new BatchClock(options.clock);
    this.offsets = options.offsets;
    this.events = options.events;
    this.filter = new InputFilter(options.mac);
    this.gated = new RunQueue(options.slabs, options.slabs.slabBytes);
    const sink: ComparatorSink = {
      release: (slab, at, length, cause) => this.release(slab, at, length, cause),
      teach: (lesson, slab, at, length) => this.teach(lesson, slab, at, length),
      confirm: (index) => this.link?.pushConfirm(this.epoch, index),
      diverged: (key, reason) => this.events.diverged(describeFlowKey(key), reason),
    };
    this.comparator = new Comparator(options.slabs, sink, options.hashSeed, 'plain', this.limits);
    this.comparator.taught = true;
    this.uplink.handler = {
      frame: (slab, at, length) => this.onInput(slab, at, length),
      batchEnd: () => this.onInputEnd(),
    };
    this.vm.handler = {
      frame: (slab, at, length) => this.onOutput(slab, at, length),
      batchEnd: () => this.onOutputEnd(),
    };
    this.uplink.onWritten = () => {
      this.sendOut();
      this.regulate();
    };
    // No client has heard it. Unconfirmed, the secondary keeps it until the next checkpoint.
    this.uplink.onLost = () => this.link?.dropConfirms();
    this.vm.onWritten = () => this.regulate();
  }

  /** The link's frames of this epoch's SVM output, and of the next one's when they overtook the commit. */
  peerFrame(epoch: number, index: number, slab: SlabId, at: number, length: number): void {
    // Nobody would let go of it any more.
    if (this.fenced) return;
    if (epoch > this.epoch) {
      this.keepEarly(slab, at, length, index);
      return;
    }
    if (this.comparing && epoch === this.epoch) this.onPeerOutput(index, slab, at, length);
  }

  peerBatchEnd(): void {
    this.onOutputEnd();
  }

  /** Input is kept back until `openGate`. */
  closeGate(): void {
    this.gateClosed = true;
  }

  openGate(): void {
    this.gateClosed = false;
    this.gated.drain((slab, start, end) => {
      this.forEachFrame(slab, start, end, (at, length) => this.deliver(slab, at, length));
      this.slabs.unref(slab);
    });
    this.onInputEnd();
  }

  /** Every input has been taken by the VM. */
  get inputDrained(): boolean {
    return this.vm.drained;
  }

  /** Every output of the VM has been seen. */
  get outputExhausted(): boolean {
    return this.vm.exhausted;
  }

  /**
   * The VM stands, and what it still said belongs to the epoch that ends: it is read even when a limit had stopped
   * the reading. It is no more than a socket holds.
   */
  readRest(): void {
    this.readingRest = true;
    this.regulate();
  }

  /**
   * A checkpoint committed: both VMs are equal. Everything held leaves, the epoch ends. After the first one,
   * input is mirrored and output compared.
   */
  commit(link: LinkChannel): number {
    invariant(this.gateClosed, 'a checkpoint committed while the input gate was open');
    this.readingRest = false;
    this.link = link;
    link.onWritten = () => this.regulate();
    const released = this.comparator.commit();
    link.dropConfirms();
    this.epoch++;
    this.mirroring = true;
    this.comparing = true;
    this.inputIndex = 0;
    const early = this.early;
    this.early = [];
    for (const { index, slab, at, length } of early) {
      this.onPeerOutput(index, slab, at, length);
      this.slabs.unref(slab);
    }
    this.onOutputEnd();
    return released;
  }

  /** The arbiter said alone(primary): what was held leaves, and nothing is held from now on. */
  goAlone(): number {
    this.speakUntilMs = Number.POSITIVE_INFINITY;
    this.link = null;
    this.mirroring = false;
    this.dropEarly();
    const released = this.comparing ? this.comparator.commit() : 0;
    this.comparing = false;
    this.readingRest = false;
    this.openGate();
    this.onOutputEnd();
    return released;
  }

  /** The right to speak is lost for good: nothing leaves any more. */
  fence(): void {
    this.fenced = true;
    this.speakUntilMs = Number.NEGATIVE_INFINITY;
    this.counters.droppedFrames += this.uplink.out.frames;
    this.uplink.out.clear();
    // What its socket has not taken yet would still leave, whenever it does. The uplink's keeper opens another.
    if (this.uplink.queuedBytes > 0) this.uplink.close();
    this.gated.clear();
    this.dropEarly();
    this.comparator.discard();
    // The ports outlive this path: its holds must not.
    this.regulate();
  }

  /** Sends what this VM said before it was the one VM (a promotion). The frame is in the client's numbers. */
  sendAsIs(slab: SlabId, at: number, length: number): void {
    this.countReleased(length);
    this.tap?.(TAP.released, this.slabs.buffer(slab), at, length, 'promotion');
    this.uplink.out.push(slab, at, length);
  }

  /** Sends a frame that the node itself made. */
  announce(frame: Uint8Array): void {
    if (this.maySpeak()) this.uplink.writeOwn(frame);
  }

  overdue(nowMs: Instant, limits: WaitLimits): Overdue {
    return this.comparing ? this.comparator.overdue(nowMs, limits) : null;
  }

  pressure(): Pressure {
    return this.comparing ? this.comparator.pressure() : null;
  }

  /** Called when the lease was renewed: frames that waited for it may go. */
  flush(): void {
    this.onOutputEnd();
  }

  private onInput(slab: SlabId, at: number, length: number): void {
    const bytes = this.slabs.buffer(slab);
    if (!this.filter.accepts(bytes, at, length)) {
      this.counters.foreignFrames++;
      return;
    }
    this.counters.inputFrames++;
    this.counters.inputBytes += length;
    if (this.tap !== null) this.tap(TAP.uplinkIn, bytes, at, length, this.gateClosed ? 'gated' : 'input');
    if (this.fenced) return;
    if (!this.gateClosed) {
      this.deliver(slab, at, length);
      return;
    }
    this.gated.push(slab, at, length);
  }

  private deliver(slab: SlabId, at: number, length: number): void {
    this.offsets.input(this.slabs.buffer(slab), at, length);
    this.vm.out.push(slab, at, length);
    if (this.mirroring) this.link?.pushFrame(MESSAGE.input, this.epoch, this.inputIndex++, slab, at, length);
  }

  private onInputEnd(): void {
    this.link?.flush();
    this.vm.flush();
    this.regulate();
  }

  private onOutput(slab: SlabId, at: number, length: number): void {
    if (this.tap !== null)
      this.tap(TAP.primaryVm, this.slabs.buffer(slab), at, length, `epoch ${this.epoch}`);
    if (this.fenced) return;
    if (this.comparing) this.comparator.primaryFrame(slab, at, length, this.batchClock.now());
    else this.comparator.passAlone(slab, at, length, this.batchClock.now());
  }

  /** Of the SVM, in this epoch. */
  private onPeerOutput(index: number, slab: SlabId, at: number, length: number): void {
    this.counters.peerFrames++;
    if (this.tap !== null)
      this.tap(TAP.secondaryVm, this.slabs.buffer(slab), at, length, `epoch ${this.epoch} index ${index}`);
    this.comparator.secondaryFrame(slab, at, length, index, this.batchClock.now());
  }

  private onOutputEnd(): void {
    // What the secondary must know before the client can answer goes first.
    this.link?.flush();
    this.sendOut();
    this.regulate();
    if (this.offsets.size > 0) this.offsets.sweep(this.batchClock.now());
    this.batchClock.end();
  }

  /** As much as the uplink's socket takes; the rest follows from `onWritten`. */
  private sendOut(): void {
    const { uplink } = this;
    // A stream may say within a write that some of it has left.
    if (this.sending) return;
    this.sending = true;
    while (uplink.out.runs > 0 && uplink.queuedBytes === 0 && this.maySpeak())
      uplink.flush(this.limits.uplinkWriteBytesMax);
    this.sending = false;
    this.confirmSent();
  }

  /** The secondary keeps its frame until the client's copy is out of this process: this node may die in between. */
  private confirmSent(): void {
    if (!this.fenced && this.uplink.out.runs === 0 && this.uplink.queuedBytes === 0)
      this.link?.flushConfirms();
  }

  /** Back-pressure: a source is read as long as there is room behind it. */
  private regulate(): void {
    const inputFull =
      !this.fenced &&
      (this.gated.bytes >= this.limits.gatedBytesMax ||
        this.vm.queuedBytes >= this.limits.unsentBytesMax ||
        (this.link?.queuedBytes ?? 0) >= this.limits.unsentBytesMax);
    if (inputFull !== this.uplinkHeld) {
      this.uplinkHeld = inputFull;
      if (inputFull) this.uplink.pauseReading();
      else this.uplink.resumeReading();
    }
    const outputFull =
      !this.fenced &&
      !this.readingRest &&
      (this.uplink.queuedBytes + this.uplink.out.bytes >= this.limits.unsentBytesMax ||
        (this.comparing && this.comparator.isFull(0)));
    if (outputFull !== this.vmHeld) {
      this.vmHeld = outputFull;
      if (outputFull) this.vm.pauseReading();
      else this.vm.resumeReading();
    }
  }

  private release(slab: SlabId, at: number, length: number, cause: ReleaseCause): void {
    const bytes = this.slabs.buffer(slab);
    this.offsets.output(bytes, at, length);
    this.countReleased(length);
    if (this.tap !== null) this.tap(TAP.released, bytes, at, length, cause);
    this.uplink.out.push(slab, at, length);
  }

  /** The secondary hears the PVM's own numbers: release may translate the frame, where it lies, before the link is written. */
  private teach(lesson: Lesson, slab: SlabId, at: number, length: number): void {
    if (this.offsets.size === 0) this.link?.pushFrame(MESSAGE.teach, this.epoch, lesson, slab, at, length);
    else
      this.link?.sendFrame(
        MESSAGE.teach,
        this.epoch,
        lesson,
        this.slabs.buffer(slab).subarray(at, at + length),
      );
  }

  private countReleased(length: number): void {
    this.counters.releasedFrames++;
    this.counters.releasedBytes += length;
  }

  /** Rule 2: a node that cannot prove by its own clock that it may speak stays silent. */
  private maySpeak(): boolean {
    return !this.fenced && this.clock.now() < this.speakUntilMs;
  }

  private keepEarly(slab: SlabId, at: number, length: number, index: number): void {
    // Beyond the limit the frame is not kept: its PVM counterpart waits, and a checkpoint heals it.
    if (this.early.length >= this.limits.earlyFramesMax) return;
    this.slabs.ref(slab);
    this.early.push({ slab, at, length, index });
  }

  private dropEarly(): void {
    for (const frame of this.early) this.slabs.unref(frame.slab);
    this.early = [];
  }

  private forEachFrame(
    slab: SlabId,
    start: number,
    end: number,
    visit: (at: number, length: number) => void,
  ): void {
    const bytes = this.slabs.buffer(slab);
    for (let at = start + 4; at <= end; ) {
      const length = bytes.readUInt32BE(at - 4);
      visit(at, length);
      at += length + 4;
    }
  }
}
