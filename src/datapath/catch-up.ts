/**
 * Catching up: a client's input waits until the SVM has sent, in that flow, all that the PVM has sent.
 *
 * Goal: rule 3 made stronger. A client that has the reply of both VMs goes on, while the PVM has sent more after that reply (it has
 * closed the connection, say) and the slower SVM has not. If the client's next data reach both VMs now, they meet two states of one
 * connection: the PVM sends its FIN and then an RST, the SVM only an RST, and the held FIN never finds a counterpart. So what gives
 * a flow's process work waits as long as the comparator holds PVM output of that flow without a counterpart. It is a matter of
 * speed only: the comparator decides what leaves.
 *
 * What waits: TCP segments with data, SYN, FIN or RST, and bare ACKs only behind such a segment of their flow. Order within a flow is
 * kept; other flows are not touched. Datagrams do not wait: each is a request of its own. Nor do fragments, and input of a connection
 * that clients know by another port of the VM after a failover (offset-map.ts).
 *
 * Where: in front of the portions (portions.ts), to which input goes from here. The calls of PrimaryPath for the gate and the end of the
 * path pass through here.
 *
 * | event                                           | what goes on to the portions                             |
 * |-------------------------------------------------|----------------------------------------------------------|
 * | a segment comes, the SVM is not behind in it  | the segment                                              |
 * | output of either VM was compared                | all that waits of flows in which the SVM has caught up   |
 * | a checkpoint commits, `goAlone`                 | all: nothing is held any more                            |
 * | a segment has waited `catchUpMsMax`             | all that waits of its flow                               |
 * | `letGo`: the pair ends in order                 | all that waits, and what comes, until `goAlone`          |
 * | `catchUpBytesMax` wait                          | all that waits of the flow whose segment comes, and that |
 * | `discard`                                       | nothing: it is dropped                                   |
 *
 * Limits: a segment waits at most `catchUpMsMax`, beside what a checkpoint's gate takes; `catchUpBytesMax` wait in all. A client whose
 * flow never matches makes nobody else wait. The comparator does not forget a flow of which input waits, so an id is one flow's.
 * Failover: as with portions, what waits was not mirrored, and the secondary's own uplink has received it.
 */
import type { Comparator } from '../compare/comparator.ts';
import { NO_FLOW } from '../compare/held-frames.ts';
import { invariant } from '../error.ts';
import { RetainedFrames } from '../frames/retained-frames.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { Clock, Timers } from '../io/clock.ts';
import type { Limits } from '../limits.ts';
import type { FlowId, Instant, SlabId } from '../units.ts';
import { InputFlow, SEGMENT } from './input-flow.ts';
import type { Portions } from './portions.ts';

export type CatchUpStatus = {
  /** frames that waited until the SVM had caught up, or a checkpoint committed */
  readonly caughtUpFrames: number;
  /** frames that waited as long as they may, or were too many */
  readonly boundFrames: number;
};

/** The next place of input; and `delivered` writes what the portions have delivered. */
export type CatchUpNext = Pick<
  Portions,
  | 'take'
  | 'taken'
  | 'closeGate'
  | 'openGate'
  | 'goAlone'
  | 'discard'
  | 'isGated'
  | 'waitClock'
  | 'waitingBytes'
>;

export class CatchUp {
  private readonly limits: Limits;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly comparator: Comparator;
  private readonly next: CatchUpNext;
  private readonly delivered: () => void;
  private readonly input: InputFlow;
  /** the tag is the flow's id; times are those of `next.waitClock` */
  private readonly waiting: RetainedFrames;
  /** by flow: how many of its frames wait, and whether they go on though the SVM is behind */
  private readonly waitingFrames: Int32Array;
  private readonly isDue: Uint8Array;
  private cancelBound: (() => void) | null = null;
  private waits: 'for the SVM' | 'for nobody' = 'for the SVM';
  private readonly counts = { caughtUpFrames: 0, boundFrames: 0 };

  constructor(options: {
    slabs: SlabPool;
    limits: Limits;
    clock: Clock;
    timers: Timers;
    comparator: Comparator;
    next: CatchUpNext;
    delivered: () => void;
  }) {
    this.limits = options.limits;
    this.clock = options.clock;
    this.timers = options.timers;
    this.comparator = options.comparator;
    this.next = options.next;
    this.delivered = options.delivered;
    this.input = new InputFlow(options.slabs);
    this.waiting = new RetainedFrames(options.slabs);
    this.waitingFrames = new Int32Array(this.limits.flowsMax);
    this.isDue = new Uint8Array(this.limits.flowsMax);
  }

  /** Bytes that wait, here and further on. */
  get waitingBytes(): number {
    return this.waiting.bytes + this.next.waitingBytes;
  }

  /** Returns how long input has waited for the SVM to catch up. */
  waitedMs(nowMs: Instant): number {
    return this.waiting.frames === 0 ? 0 : this.next.waitClock(nowMs) - this.oldestSinceMs;
  }

  get status(): CatchUpStatus {
    return { ...this.counts };
  }

  /** Takes a frame of a client. */
  take(slab: SlabId, at: number, length: number): void {
    const { comparator, waiting } = this;
    const mayWait = comparator.primary.frames > 0 || waiting.frames > 0;
    if (mayWait && this.waits === 'for the SVM' && this.retains(slab, at, length)) return;
    this.next.take(slab, at, length);
  }

  /** All frames of one read were taken, and what was delivered is written. */
  taken(): void {
    this.next.taken();
  }

  /** The comparator was given output, or released it. */
  compared(): void {
    if (this.waiting.frames > 0) this.passOn();
  }

  closeGate(): void {
    this.stopBound();
    this.next.closeGate();
  }

  openGate(): void {
    this.next.openGate();
    this.armBound();
  }

  /** The other node is about to take over: both VMs get at once what they were to get. */
  letGo(): void {
    const { waiting, isDue } = this;
    this.waits = 'for nobody';
    for (let number = waiting.oldest; number < waiting.next; number++)
      if (waiting.has(number)) isDue[waiting.tagOf(number)] = 1;
    if (waiting.frames > 0) this.passOn();
    this.next.goAlone();
  }

  /** There is no SVM any more, and nothing is held. */
  goAlone(): void {
    this.waits = 'for the SVM';
    this.compared();
    invariant(this.waiting.frames === 0, 'input of a lone VM waits for the SVM');
    this.next.goAlone();
  }

  /** Drops everything: the path is over. */
  discard(): void {
    this.stopBound();
    this.waiting.clear();
    this.next.discard();
  }

  private get oldestSinceMs(): number {
    return this.waiting.sinceOf(this.waiting.oldest);
  }

  /** Retains a segment if it must wait; returns false if it goes on. */
  private retains(slab: SlabId, at: number, length: number): boolean {
    const { comparator, waiting, waitingFrames } = this;
    const segment = this.input.segmentOf(slab, at, length);
    if (segment === SEGMENT.none) return false;
    const flow = comparator.flowWithKey(this.input.key);
    if (flow === NO_FLOW) return false;
    const isFirst = waitingFrames[flow] === 0;
    if (isFirst && (segment === SEGMENT.bareAck || !comparator.svmIsBehind(flow))) return false;
    if (waiting.bytes + length > this.limits.catchUpBytesMax) {
      if (!isFirst) this.isDue[flow] = 1;
      waiting.takeWhere(this.goesOn, this.giveOn);
      return false;
    }
    waiting.add(slab, at, length, flow, this.next.waitClock(this.clock.now()));
    waitingFrames[flow]++;
    if (isFirst) comparator.noteAwaited(flow, 'awaited');
    this.armBound();
    return true;
  }

  /** Passes on what need not wait any more. */
  private passOn(): void {
    const { frames } = this.waiting;
    this.waiting.takeWhere(this.goesOn, this.giveOn);
    if (this.waiting.frames === 0) this.stopBound();
    if (this.waiting.frames === frames) return;
    this.delivered();
    this.next.taken();
  }

  private readonly goesOn = (flow: number): boolean =>
    this.isDue[flow] === 1 || !this.comparator.svmIsBehind(flow as FlowId);

  private readonly giveOn = (slab: SlabId, at: number, length: number, flow: number): void => {
    if (this.isDue[flow] === 1) this.counts.boundFrames++;
    else this.counts.caughtUpFrames++;
    if (--this.waitingFrames[flow] === 0) {
      this.isDue[flow] = 0;
      this.comparator.noteAwaited(flow as FlowId, 'not-awaited');
    }
    this.next.take(slab, at, length);
  };

  private onBound(): void {
    this.cancelBound = null;
    const { waiting, isDue } = this;
    const sinceMax = this.next.waitClock(this.clock.now()) - this.limits.catchUpMsMax;
    for (let number = waiting.oldest; number < waiting.next; number++) {
      if (!waiting.has(number)) continue;
      if (waiting.sinceOf(number) > sinceMax) break;
      isDue[waiting.tagOf(number)] = 1;
    }
    if (waiting.frames > 0) this.passOn();
    this.armBound();
  }

  private armBound(): void {
    if (this.cancelBound !== null || this.waiting.frames === 0 || this.next.isGated) return;
    const ms = this.oldestSinceMs + this.limits.catchUpMsMax - this.next.waitClock(this.clock.now());
    this.cancelBound = this.timers.after(Math.max(0, ms), () => this.onBound());
  }

  private stopBound(): void {
    this.cancelBound?.();
    this.cancelBound = null;
  }
}
