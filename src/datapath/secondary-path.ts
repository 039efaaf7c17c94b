/**
 * The secondary's data path: link to SVM, SVM to link, and nothing to the uplink.
 *
 * Goal: the SVM hears what the PVM hears, in the same order (rule 3), and what it says reaches the comparator in the
 * PVM's numbers. For a failover it keeps the SVM's output that the client has not got from the PVM (kept-output.ts)
 * and the client's frames that its own uplink heard and the primary has not passed on (silent-input.ts).
 *
 * `offsets` is a copy of the primary's map for connections that lived through an earlier failover; inside, everything
 * is in the PVM's numbers, so what the silent uplink hears is translated when it is heard.
 *
 * Before the first commit (a first copy is under way) the SVM runs but its output is thrown away and it hears nothing.
 *
 * Limits: LIMITS of what is kept; a link that takes nothing stops the reading of the SVM.
 */

import { LESSON, type Lesson } from '../compare/lesson.ts';
import { invariant } from '../error.ts';
import type { SlabPool } from '../frames/slabs.ts';
import { BatchClock } from '../io/batch-clock.ts';
import type { Clock } from '../io/clock.ts';
import type { FramePort } from '../io/frame-port.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { LinkChannel } from '../link/link-channel.ts';
import { MESSAGE } from '../link/link-protocol.ts';
import type { OffsetMap } from '../translate/offset-map.ts';
import type { SvmTranslator } from '../translate/svm-translator.ts';
import type { SlabId } from '../units.ts';
import { InputFilter } from './input-filter.ts';
import { KeptOutput } from './kept-output.ts';
import { SilentInput } from './silent-input.ts';
import { TAP, type Tap } from './tap.ts';

/** What a promotion found. */
export type Takeover = { sentFrames: number; deliveredFrames: number; lostConnections: number };

export class SecondaryPath {
  readonly counters = { inputFrames: 0, outputFrames: 0, droppedFrames: 0 };
  readonly offsets: OffsetMap;
  readonly translator: SvmTranslator;
  tap: Tap | null = null;
  epoch = 0;
  private readonly limits: Limits;
  private readonly slabs: SlabPool;
  private readonly vm: FramePort;
  private readonly uplink: FramePort;
  private readonly link: LinkChannel;
  private readonly clock: Clock;
  private readonly filter: InputFilter;
  private readonly kept: KeptOutput;
  private readonly silent: SilentInput;
  private active = false;
  private vmHeld = false;
  private readingRest = false;
  private standing = false;
  /** taken over or discarded */
  private over = false;
  /** SYNs that are kept are not in the PVM's numbers yet: once for all that one read has told of */
  private synsToCorrect = false;
  private readonly batchClock: BatchClock;

  constructor(options: {
    slabs: SlabPool;
    vm: FramePort;
    uplink: FramePort;
    link: LinkChannel;
    clock: Clock;
    offsets: OffsetMap;
    translator: SvmTranslator;
    mac: string;
    limits?: Limits;
  }) {
    this.limits = options.limits ?? LIMITS;
    this.slabs = options.slabs;
    this.vm = options.vm;
    this.uplink = options.uplink;
    this.link = options.link;
    this.clock = options.clock;
    this.batchClock = new BatchClock(options.clock);
    this.offsets = options.offsets;
    this.translator = options.translator;
    // The primary tells of every SYN of the PVM before any client can answer it.
    this.translator.learnsPorts = false;
    this.filter = new InputFilter(options.mac);
    this.kept = new KeptOutput(options.slabs);
    this.silent = new SilentInput(options.slabs, this.limits);
    this.uplink.handler = {
      frame: (slab, at, length) => this.onHeard(slab, at, length),
      batchEnd: () => {},
    };
    this.vm.handler = {
      frame: (slab, at, length) => this.onOutput(slab, at, length),
      batchEnd: () => this.onOutputEnd(),
    };
  }

  /** A commit has happened: the SVM is as good as the PVM and may be promoted. */
  get isActive(): boolean {
    return this.active;
  }

  get keptFrames(): number {
    return this.kept.frames;
  }

  /** A mirrored client frame. */
  input(slab: SlabId, at: number, length: number): void {
    const bytes = this.slabs.buffer(slab);
    this.counters.inputFrames++;
    this.tap?.(TAP.uplinkIn, bytes, at, length, 'mirrored');
    this.silent.passedOn(bytes, at, length, this.batchClock.now());
    this.translator.input(bytes, at, length);
    this.vm.out.push(slab, at, length);
  }

  /**
   * The PVM's SYN or SYN-ACK. One of an epoch that is over comes late, on another connection than word of the commit:
   * the SVM has that connection already, and would pair the next one that it opens to the same place with it.
   */
  teach(epoch: number, lesson: Lesson, slab: SlabId, at: number, length: number): void {
    invariant(lesson === LESSON.tcpSyn, `the primary teaches ${lesson}, which nothing here maps`);
    const bytes = this.slabs.buffer(slab);
    this.offsets.noteSyn(bytes, at, length);
    if (epoch < this.epoch) {
      this.translator.olderPvmSyn(bytes, at, length);
      return;
    }
    if (this.translator.pvmSyn(bytes, at, length)) this.synsToCorrect = true;
  }

  confirm(epoch: number, from: number, to: number): void {
    if (epoch === this.epoch) this.kept.confirm(from, to);
  }

  linkBatchEnd(): void {
    if (this.synsToCorrect) this.sendCorrectedSyns();
    this.vm.flush();
    if (this.link.queuedBytes < this.limits.unsentBytesMax) this.resumeVm();
    this.batchClock.end();
  }

  /** Every input has been taken by the SVM. */
  get inputDrained(): boolean {
    return this.vm.drained;
  }

  /** Every output of the SVM has been seen. */
  get outputExhausted(): boolean {
    return this.vm.exhausted;
  }

  /** The SVM has stopped, and what it still said belongs to the epoch that ends: it is read past every limit. */
  readRest(): void {
    this.readingRest = true;
    this.resumeVm();
  }

  /** The SVM stands and all it said was read: what comes next it says from the PVM's state, after `commit`. */
  stand(): void {
    this.readingRest = false;
    // A barrier may come to this point when the session has ended and the port is another path's.
    if (this.standing || this.over) return;
    this.standing = true;
    this.vm.pauseReading();
  }

  /** The primary says which epoch is about to end: before the first commit this is how the numbers are agreed. */
  endOfEpoch(epoch: number): void {
    if (!this.active) this.epoch = epoch;
    invariant(epoch === this.epoch, `the primary ends epoch ${epoch}, this node is in ${this.epoch}`);
  }

  /** The SVM holds the PVM's whole state: what it said before is void (rule 6). */
  commit(): void {
    this.translator.clear();
    this.kept.clear();
    this.epoch++;
    this.active = true;
    this.goOn();
  }

  /**
   * The SVM is the one VM now. Both ports go to whoever is given them next; what was kept leaves through `send`, in the
   * client's numbers, and what the SVM has not heard goes to it. Afterwards `offsets` maps the SVM's numbers.
   */
  takeOver(send: (slab: SlabId, at: number, length: number) => void): Takeover {
    const takeover: Takeover = { sentFrames: 0, deliveredFrames: 0, lostConnections: 0 };
    this.translator.learnsPorts = true;
    this.silent.drain((slab, at, length) => {
      this.translator.input(this.slabs.buffer(slab), at, length);
      this.vm.out.push(slab, at, length);
      takeover.deliveredFrames++;
    });
    this.kept.drain((slab, at, length) => {
      const bytes = this.slabs.buffer(slab);
      this.translator.correctSyn(bytes, at, length);
      this.translator.correctTime(bytes, at, length);
      this.offsets.output(bytes, at, length);
      send(slab, at, length);
      takeover.sentFrames++;
    });
    takeover.lostConnections = this.translator.carryOver(this.offsets);
    this.translator.clear();
    this.vm.flush();
    // Whoever gets the port next knows nothing of holds for the sake of a link that is gone.
    this.over = true;
    this.goOn();
    this.resumeVm();
    return takeover;
  }

  /** Not to be promoted any more: forget everything. */
  discard(): void {
    this.active = false;
    this.kept.clear();
    this.silent.clear();
    this.over = true;
    this.goOn();
    this.resumeVm();
  }

  private onHeard(slab: SlabId, at: number, length: number): void {
    const bytes = this.slabs.buffer(slab);
    if (!this.active || !this.filter.accepts(bytes, at, length)) return;
    this.offsets.input(bytes, at, length);
    this.silent.heard(slab, at, length, this.clock.now());
  }

  private onOutput(slab: SlabId, at: number, length: number): void {
    if (!this.active) {
      this.counters.droppedFrames++;
      return;
    }
    const bytes = this.slabs.buffer(slab);
    this.counters.outputFrames++;
    this.tap?.(TAP.secondaryVm, bytes, at, length, `epoch ${this.epoch}`);
    this.translator.output(bytes, at, length);
    const index = this.kept.add(slab, at, length);
    this.link.pushFrame(MESSAGE.output, this.epoch, index, slab, at, length);
  }

  /**
   * A SYN that has left in the SVM's own number, or under its own port, is no counterpart of the PVM's: it is sent again.
   * By its number the primary knows that this node knows the PVM's, and lets that one out.
   * In place: should the first one still wait in a socket, it is sent corrected twice, which is as good.
   */
  private sendCorrectedSyns(): void {
    this.synsToCorrect = false;
    const frames: [index: number, slab: SlabId, at: number, length: number][] = [];
    this.kept.forEach((index, slab, at, length) => {
      if (this.translator.correctSyn(this.slabs.buffer(slab), at, length))
        frames.push([index, slab, at, length]);
    });
    for (const [index, slab, at, length] of frames) {
      this.link.pushFrame(MESSAGE.output, this.epoch, this.kept.add(slab, at, length), slab, at, length);
      this.kept.confirm(index, index);
    }
    this.link.flush();
  }

  private onOutputEnd(): void {
    this.link.flush();
    if (!this.vmHeld && !this.readingRest && this.link.queuedBytes >= this.limits.unsentBytesMax) {
      this.vmHeld = true;
      this.vm.pauseReading();
    }
  }

  private goOn(): void {
    this.readingRest = false;
    if (!this.standing) return;
    this.standing = false;
    this.vm.resumeReading();
  }

  private resumeVm(): void {
    if (!this.vmHeld) return;
    this.vmHeld = false;
    this.vm.resumeReading();
  }
}
