/**
 * The comparator: holds what the PVM sends until the SVM has sent the same.
 *
 * Goal: rule 1 (output commit). PVM frames arrive from the VM port, SVM frames from the link, both in one sequence space. A
 * PVM frame leaves through `sink.release` on a match, or at a commit, or at once if its kind is harmless (classes.ts); so does
 * what the SVM asks of its neighbours, if the PVM does not (questions.ts). Any other SVM frame leaves nothing behind but a
 * `confirm` of its index, once the client has what it carries: the secondary then need not retain it for a failover.
 *
 * This file parses frames and hands each to the rule of its flow (rules/table.ts). What is held, its limits and its waits
 * are the holding's (holding.ts). TCP segments go to their rule first and directly: nearly all of them take its lock-step lane.
 *
 * Events: a frame of either side, or one of each (`pairOff`); `commit` (a checkpoint has made both VMs equal: release all held
 * frames in order of arrival, forget the SVM's); `releaseDue` and `overdue` (asked by the owner of the clock: what leaves because it has
 * waited long enough, and has a frame waited too long?).
 */

import { ofOneFlow } from '../flow/key.ts';
import { type Framing, vnetBytes } from '../frames/frame-reader.ts';
import type { SlabPool } from '../frames/slabs.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { Instant, SlabId } from '../units.ts';
import { PACKET, type PacketKind, PacketView, parseGsoPacket, parsePacket } from '../wire/packet.ts';
import { parseQuickTcp } from '../wire/quick-tcp.ts';
import { isGso } from '../wire/virtio-net.ts';
import { COMPARE_AS, compareAs, RULE, ruleOf } from './classes.ts';
import { type ArrivalList, type HeldFrames, NO_FLOW, NO_FRAME } from './held-frames.ts';
import { Holding } from './holding.ts';
import { Questions } from './questions.ts';
import type { Rule } from './rule.ts';
import { isPlainData, type LockstepLane } from './rules/lockstep.ts';
import { Reassembly } from './rules/reassembly.ts';
import { makeRules } from './rules/table.ts';
import type { TcpRule } from './rules/tcp.ts';
import type { HeldTcpFlow } from './rules/tcp-flow.ts';
import type { ComparatorSink, Overdue, Pressure, WaitLimits } from './sink.ts';

export type { ComparatorSink, Overdue, Pressure, WaitLimits } from './sink.ts';

/** Result of `pairOff`: which sides' frames the caller must now hand in by themselves, before any later one of their side. */
export const STEP = { bothDone: 0, primaryAlone: 1, secondaryAlone: 2, bothAlone: 3 } as const;
export type Step = (typeof STEP)[keyof typeof STEP];

export class Comparator {
  readonly frames: HeldFrames;
  readonly primary: ArrivalList;
  readonly secondary: ArrivalList;
  readonly counters: Holding['counters'];
  private readonly slabs: SlabPool;
  private readonly sink: ComparatorSink;
  private readonly holding: Holding;
  private readonly rules: readonly Rule[];
  private readonly tcp: TcpRule;
  private readonly reassembly: Reassembly;
  private readonly questions: Questions;
  /** TCP's cursor and lane, of which each pair of frames asks */
  private readonly flow: HeldTcpFlow;
  private readonly lane: LockstepLane | null;
  private readonly vnet: boolean;
  private readonly view = new PacketView();
  /** of a PVM frame, while one of the SVM is in `view` */
  private readonly primaryView = new PacketView();

  /** `lane`: tests switch the lock-step lane off, to compare it with the general way. */
  constructor(
    slabs: SlabPool,
    sink: ComparatorSink,
    hashSeed: number,
    framing: Framing = 'plain',
    limits: Limits = LIMITS,
    lane: 'lane' | 'no-lane' = 'lane',
  ) {
    this.slabs = slabs;
    this.sink = sink;
    this.vnet = framing === 'vnet';
    const holding = new Holding(slabs, sink, hashSeed, limits);
    const { rules, tcp } = makeRules(holding, { framing, limits, lane });
    holding.useRules(rules);
    this.holding = holding;
    this.rules = rules;
    this.tcp = tcp;
    this.flow = tcp.flow;
    this.lane = tcp.lane;
    this.reassembly = new Reassembly(holding, rules, hashSeed, limits);
    this.questions = new Questions(slabs, {
      release: (slab, at, length) => {
        this.counters.questions++;
        this.releaseHarmless(slab, at, length);
      },
      confirm: (index) => sink.confirm(index),
    });
    this.frames = holding.frames;
    this.primary = holding.primary;
    this.secondary = holding.secondary;
    this.counters = holding.counters;
  }

  get flowCount(): number {
    return this.holding.flowCount;
  }

  get tcpFlows(): number {
    return this.holding.flowCountOf(RULE.tcp);
  }

  /** As `TcpJudge.taught`: the secondary knows every SYN of the PVM. */
  get taught(): boolean {
    return this.tcp.judge.taught;
  }
  set taught(taught: boolean) {
    this.tcp.judge.taught = taught;
  }

  /** As `TcpRule.pairOpenings`: SYNs of different ports may be counterparts, and nobody teaches the secondary the PVM's. */
  pairOpenings(): void {
    this.tcp.pairOpenings();
  }

  /** Held TCP segments examined in searches. */
  get visits(): number {
    return this.tcp.queue.visits + this.tcp.held.visits;
  }

  /** Connections whose client is owed an ACK. */
  get owedAcks(): number {
    return this.tcp.exit.owed.rows;
  }

  /** Returns for how long the SVM has been silent where a client is owed what it does not acknowledge. */
  owedMs(nowMs: Instant): number {
    return this.tcp.exit.owed.oldestMs(nowMs);
  }

  /** Returns the key of the flow in which the SVM has been silent for longest about an ACK that is owed, or null. */
  oldestOwedKey(): Int32Array | null {
    return this.holding.keyOf(this.tcp.exit.owed.oldestFlow());
  }

  /** Slabs that no frame of a VM is in. */
  get ownSlabs(): number {
    return this.tcp.exit.made.ownSlabs;
  }

  /** A PVM frame: released now, held, or (only if its lengths contradict each other) dropped and counted. */
  primaryFrame(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const { view } = this;
    if (this.parse(slab, at, length, view) === PACKET.tcp) {
      this.tcp.primaryFrame(view, slab, at, length, nowMs);
      return;
    }
    if (view.kind === PACKET.malformed) {
      this.counters.malformed++;
      return;
    }
    const as = compareAs(view);
    if (as === COMPARE_AS.harmless) {
      this.questions.noteAsked(view, slab, nowMs);
      this.releaseHarmless(slab, at, length);
    } else if (as === COMPARE_AS.pieces) this.reassembly.primaryFragment(view, slab, at, length, nowMs);
    else this.rules[ruleOf(view)].primaryFrame(view, slab, at, length, nowMs);
  }

  /** An SVM frame; `index` is its number in the epoch. */
  secondaryFrame(slab: SlabId, at: number, length: number, index: number, nowMs: Instant): void {
    const { view } = this;
    if (this.parse(slab, at, length, view) === PACKET.tcp) {
      this.tcp.secondaryFrame(view, slab, at, length, index, nowMs);
      return;
    }
    const as = compareAs(view);
    if (view.kind === PACKET.malformed) this.sink.confirm(index);
    else if (as === COMPARE_AS.harmless) this.questions.ask(view, slab, at, length, index, nowMs);
    else if (as === COMPARE_AS.pieces)
      this.reassembly.secondaryFragment(view, slab, at, length, index, nowMs);
    else this.rules[ruleOf(view)].secondaryFrame(view, slab, at, length, index, nowMs);
  }

  /**
   * Tries to match one PVM frame against one SVM frame, neither of which was handed in before. On `bothDone` both are
   * finished. Any other result changes nothing, except that the SVM's ACK may have been recorded.
   */
  pairOff(
    slab: SlabId,
    at: number,
    length: number,
    svmSlab: SlabId,
    svmAt: number,
    svmLength: number,
    svmIndex: number,
    nowMs: Instant,
  ): Step {
    const { view, primaryView, holding } = this;
    const { flow, lane } = this;
    if (lane === null) return STEP.bothAlone;
    const svmBytes = this.slabs.buffer(svmSlab);
    if (this.parse(svmSlab, svmAt, svmLength, view) !== PACKET.tcp || !isPlainData(view, svmBytes))
      return STEP.secondaryAlone;
    const flowId = holding.knownFlowOf(svmBytes, view, holding.primary);
    if (flowId === NO_FLOW) return STEP.bothAlone;
    flow.moveTo(flowId);
    // One side is ahead: the other continues alone until it has caught up.
    if (flow.primary.head !== NO_FRAME) return STEP.secondaryAlone;
    if (flow.secondary.head !== NO_FRAME) return STEP.primaryAlone;
    const bytes = this.slabs.buffer(slab);
    if (this.parse(slab, at, length, primaryView) !== PACKET.tcp || !isPlainData(primaryView, bytes))
      return STEP.primaryAlone;
    if (!ofOneFlow(bytes, primaryView, svmBytes, view)) return STEP.primaryAlone;
    flow.lastSeenMs = nowMs;
    if (!lane.takePair(flow, primaryView, slab, at, length, view, svmSlab, svmIndex)) return STEP.bothAlone;
    return STEP.bothDone;
  }

  /**
   * Releases what waits for a time, and for nothing else: what the SVM has asked of its neighbours and the PVM has not
   * (questions.ts), and ACKs of segments that wait (rules/tcp-exit.ts). Returns how many frames.
   */
  releaseDue(nowMs: Instant): number {
    return this.questions.release(nowMs) + this.tcp.exit.releaseHeldAcks(nowMs);
  }

  /** How many frames left by a commit, without a counterpart: the PVM's, and ACKs that were owed. */
  get releasedWithoutMatch(): number {
    return this.counters.releasedByCommit + this.counters.madeByCommit;
  }

  /** How many of the SVM's questions wait. */
  get questionsWaiting(): number {
    return this.questions.size;
  }

  /** The SVM now equals the PVM: releases everything held, in order of arrival. Returns how many frames. */
  commit(): number {
    const made = this.tcp.exit.commit();
    const released = this.holding.commit();
    this.tcp.exit.discard();
    this.reassembly.clear();
    this.questions.clear();
    return made + released;
  }

  /** A TCP flow is compared no longer (a recording does not have all of it): its held PVM frames leave, and it is forgotten. */
  abandon(key: Int32Array): void {
    this.holding.abandon(key);
  }

  /** Drops everything; nothing of it is released. */
  discard(): void {
    this.holding.discard();
    this.tcp.exit.discard();
    this.reassembly.clear();
    this.questions.clear();
  }

  /**
   * Alone, there is nothing to compare with: the frame is released. Its rule records it all the same, so that the
   * comparator knows every stream's place when the VM is protected again.
   */
  passAlone(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const { view } = this;
    if (this.parse(slab, at, length, view) === PACKET.malformed) {
      this.counters.malformed++;
      return;
    }
    this.rules[ruleOf(view)].noteAlone(view, slab, nowMs);
    this.counters.releasedAlone++;
    this.sink.release(slab, at, length, 'alone');
  }

  /** Returns which side has held output for longer than `limits`, or null. */
  overdue(nowMs: Instant, limits: WaitLimits): Overdue {
    const { holding } = this;
    const overdue = holding.overdue(nowMs, limits);
    if (overdue !== null || this.owedMs(nowMs) < limits.owedMs) return overdue;
    holding.overdueFlow = this.tcp.exit.owed.oldestFlow();
    return 'wait-primary';
  }

  /** Right after `overdue` returned a reason: returns the key of the flow that waits, or null if the frame has none. */
  overdueFlow(): Int32Array | null {
    return this.holding.keyOf(this.holding.overdueFlow);
  }

  /** Returns how long the oldest held PVM frame has waited. */
  oldestWaitMs(nowMs: Instant): number {
    return this.holding.oldestWaitMs(nowMs);
  }

  /** Returns the limit that is near enough for a checkpoint to be due, or null. */
  pressure(): Pressure {
    return this.holding.pressure() ?? (this.reassembly.isFull ? 'limit-fragments' : null);
  }

  /** Returns true if no more PVM output should be read before a checkpoint; `read` frames of it are yet to be handed in. */
  isFull(read: number): boolean {
    return this.holding.fullness(read) !== null || this.reassembly.isFull;
  }

  private releaseHarmless(slab: SlabId, at: number, length: number): void {
    this.counters.harmless++;
    this.sink.release(slab, at, length, 'harmless');
  }

  /** A virtio-net header is neither part of the packet nor compared: only the driver beside the VM reads it. */
  private parse(slab: SlabId, at: number, length: number, view: PacketView): PacketKind {
    const { slabs } = this;
    const bytes = slabs.buffer(slab);
    const skip = this.vnet ? vnetBytes(bytes, at) : 0;
    if (parseQuickTcp(slabs.view(slab), at + skip, length - skip, view)) return PACKET.tcp;
    if (isGso(bytes, at, skip)) return parseGsoPacket(bytes, at + skip, length - skip, view);
    return parsePacket(bytes, at + skip, length - skip, view);
  }
}
