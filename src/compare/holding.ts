/**
 * The holding: PVM output that is held, SVM output without a counterpart, and the flows of both. It knows no protocol.
 *
 * Goal: rule 5 (bounded), and the acts of rule 1 (output commit): release, drop, confirm, diverge. When each of them is due
 * the rules decide (rules/), one for each protocol family. Here is what all of them share: rows of frames and flows, a
 * queue for each side of a flow, the sides' lists in order of arrival, limits, waits, and the commit.
 *
 * Limits: limits.ts. Full rows or a full flow table never lose PVM output: a frame without a flow is held until the next
 * commit, and `pressure` asks for a checkpoint. Only SVM frames may be dropped: their PVM counterparts then wait, and the
 * checkpoint, which is due anyway, releases them. A full table forgets a flow of which no frame is held; if that flow
 * continues, it is one first seen in its middle. Flows that their rule calls expendable go first, then those that have
 * been quiet for `flowQuietMsMin`: a flood of new flows evicts flows of the flood, not established connections.
 */

import { invariant } from '../error.ts';
import { FLOW_KEY_WORDS, haveOneDestination, writeOutputKey } from '../flow/key.ts';
import { FlowTable } from '../flow/table.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { Limits } from '../limits.ts';
import type { FlowId, FrameId, Instant, SlabId } from '../units.ts';
import type { PacketView } from '../wire/packet.ts';
import { RULE, RULES_MAX, type RuleNumber } from './classes.ts';
import { flowWords, HeldFlow } from './held-flow.ts';
import {
  type ArrivalList,
  AT,
  emptyArrivalList,
  FLOW,
  type FrameQueue,
  HeldFrames,
  INDEX,
  LENGTH,
  NO_FLOW,
  NO_FRAME,
  PAYLOAD,
  SLAB,
} from './held-frames.ts';
import { NO_OPERATOR_RULE, type OperatorRules } from './operator-rules.ts';
import type { Rule } from './rule.ts';
import type { ComparatorSink, Pressure } from './sink.ts';
import type { DivergenceReason, ReleaseCause } from './verdict.ts';

/** Flows examined for one to forget when the table is full. */
const EVICT_SCAN_MAX = 64;
/** Flows examined for expiry per new flow: more than one, so that expiry keeps ahead of arrivals. */
const SWEEP_SCAN = 8;

export class Holding {
  readonly frames: HeldFrames;
  /** The rows of the flows, for cursors of a rule's own (`HeldTcpFlow`). */
  readonly flowWords: Int32Array;
  readonly primary: ArrivalList = emptyArrivalList();
  readonly secondary: ArrivalList = emptyArrivalList();
  readonly counters = {
    malformed: 0,
    /** released: nobody compares it */
    harmless: 0,
    /** those of them that the SVM sent (questions.ts) */
    questions: 0,
    /** released: the SVM has sent the same */
    matched: 0,
    /** released: the client had all of it already */
    repeated: 0,
    /** released: made by the comparator; and of those, ACKs that the PVM alone has said, at a commit */
    made: 0,
    madeByCommit: 0,
    /** not released: another frame says it */
    absorbed: 0,
    /** released: an operator's rule has exempted its flow */
    exempt: 0,
    /** released by a commit, without a counterpart */
    releasedByCommit: 0,
    /** released because there was nothing to compare with */
    releasedAlone: 0,
    secondaryDropped: 0,
    divergences: 0,
    flowsEvicted: 0,
  };
  readonly sink: ComparatorSink;
  readonly slabs: SlabPool;
  private readonly limits: Limits;
  /** by number; given by `useRules` */
  private rules: readonly Rule[] = [];
  readonly table: FlowTable<FlowId>;
  private readonly flowCounts = new Int32Array(RULES_MAX);
  /** the holding's own cursor; a rule that tracks more has one, too */
  private readonly flow: HeldFlow;
  private readonly key = new Int32Array(FLOW_KEY_WORDS);
  private readonly otherKey = new Int32Array(FLOW_KEY_WORDS);
  private evictAt = 0 as FlowId;
  /** a PVM frame is held without a flow */
  private flowless = false;
  /** an SVM frame found no flow: its PVM counterpart is only released by a commit */
  private svmFlowless = false;
  private shareReached = false;
  private operator: OperatorRules | null = null;

  constructor(slabs: SlabPool, sink: ComparatorSink, hashSeed: number, limits: Limits) {
    this.limits = limits;
    this.slabs = slabs;
    this.sink = sink;
    this.frames = new HeldFrames(limits.heldFramesMax, slabs);
    this.table = new FlowTable<FlowId>(limits.flowsMax, hashSeed);
    this.flowWords = flowWords(limits.flowsMax);
    this.flow = new HeldFlow(this.flowWords);
  }

  /** Before the first frame: the rules, by their numbers. */
  useRules(rules: readonly Rule[]): void {
    invariant(rules.length <= RULES_MAX, 'there are more rules than a flow can name');
    this.rules = rules;
  }

  get operatorRules(): OperatorRules | null {
    return this.operator;
  }

  /** From now on these are in force, also for flows that are known: those that begin or end to be exempt are forgotten. */
  useOperatorRules(rules: OperatorRules): void {
    invariant(
      this.primary.frames === 0 && this.secondary.frames === 0,
      "the operator's rules changed while output was held",
    );
    this.operator = rules;
    for (let id = 0 as FlowId; id < this.table.idsEnd; id++) {
      const flow = this.flow.moveTo(id);
      if (!flow.isUsed) continue;
      this.table.readKey(id, this.key);
      const number = rules.numberOf(this.key);
      if (flow.rule === RULE.exempt || rules.exempts(number)) this.forgetFlow(id);
      else flow.operatorRule = number;
    }
  }

  get flowCount(): number {
    return this.table.size;
  }

  /** Returns how many flows have this rule. */
  flowCountOf(rule: RuleNumber): number {
    return this.flowCounts[rule];
  }

  /* Holding frames. */

  /** Adds a PVM frame, which is in no queue yet. */
  hold(slab: SlabId, at: number, length: number, nowMs: Instant): FrameId {
    const id = this.frames.add(this.primary, slab, at, length, nowMs);
    invariant(id !== NO_FRAME, 'PVM frames kept coming while all held frames were in use');
    return id;
  }

  /** Adds a PVM frame that found no flow: only a commit releases it. */
  holdFlowless(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    this.hold(slab, at, length, nowMs);
    this.flowless = true;
  }

  /** Adds an SVM frame to a queue, or to none; returns NO_FRAME if there was no room and it is dropped. */
  holdSecondary(
    queue: FrameQueue | null,
    slab: SlabId,
    at: number,
    length: number,
    index: number,
    nowMs: Instant,
  ): FrameId {
    const full =
      this.secondary.frames >= this.limits.heldSecondaryMax ||
      (queue !== null && queue.head !== NO_FRAME && this.noteShare(queue));
    const id = full ? NO_FRAME : this.frames.add(this.secondary, slab, at, length, nowMs);
    if (id === NO_FRAME) {
      this.counters.secondaryDropped++;
      return NO_FRAME;
    }
    this.frames.words[id + INDEX] = index;
    if (queue !== null) this.frames.enqueue(queue, id);
    return id;
  }

  /** An SVM frame found no flow: it is dropped. */
  dropFlowless(): void {
    this.counters.secondaryDropped++;
    this.svmFlowless = true;
  }

  /** One flow must not take the room of all: returns true, and asks for a checkpoint, if this queue has its whole share. */
  noteShare(queue: FrameQueue): boolean {
    const { flowFramesMax, flowBytesMax } = this.limits;
    if (queue.framesAfterHead < flowFramesMax - 1 && queue.bytesAfterHead < flowBytesMax) return false;
    this.shareReached = true;
    return true;
  }

  /** Frames without a flow of `side` are held: its flows must wait for a commit that makes room. */
  noteFlowless(side: ArrivalList): void {
    if (side === this.primary) this.flowless = true;
    else this.svmFlowless = true;
  }

  /* Comparing bytes. */

  /** Whether `bytes` bytes of two held frames' payloads are the same, each from its own offset on. */
  samePayload(id: FrameId, offset: number, other: FrameId, otherOffset: number, bytes: number): boolean {
    const { words } = this.frames;
    return this.slabs.same(
      words[id + SLAB] as SlabId,
      words[id + PAYLOAD] + offset,
      words[other + SLAB] as SlabId,
      words[other + PAYLOAD] + otherOffset,
      bytes,
    );
  }

  /** The same for frames of which one is held. */
  sameAsHeld(id: FrameId, slab: SlabId, at: number, bytes: number): boolean {
    const { words } = this.frames;
    return this.slabs.same(words[id + SLAB] as SlabId, words[id + PAYLOAD], slab, at, bytes);
  }

  /* Releasing, dropping, confirming. */

  /** Releases a PVM frame that was never held. */
  releaseUnheld(slab: SlabId, at: number, length: number): void {
    this.counters.matched++;
    this.sink.release(slab, at, length, 'match');
  }

  /** The same for one that carries nothing that the client lacks. */
  releaseUnheldRepeated(slab: SlabId, at: number, length: number): void {
    this.counters.repeated++;
    this.sink.release(slab, at, length, 'repeat');
  }

  /** Releases a PVM frame of an exempt flow, which was never held. */
  releaseExempt(slab: SlabId, at: number, length: number): void {
    this.counters.exempt++;
    this.sink.release(slab, at, length, 'exempt');
  }

  /** The same for one that was held, and is in no queue any more. */
  releaseExemptHeld(id: FrameId): void {
    this.counters.exempt++;
    this.releaseHeld(id, 'exempt');
  }

  /** Releases a frame that the comparator has made. */
  releaseMade(slab: SlabId, at: number, length: number): void {
    this.counters.made++;
    this.sink.release(slab, at, length, 'made');
  }

  /** Drops a PVM frame that was never held and says nothing that another one does not say. */
  absorb(slab: SlabId, at: number, length: number): void {
    this.counters.absorbed++;
    this.sink.absorb(slab, at, length);
  }

  /** Releases the head of a queue of PVM frames. */
  releaseHead(queue: FrameQueue): void {
    this.releaseMatched(this.frames.dequeue(queue));
  }

  /** Releases a held PVM frame that is in no queue any more. */
  releaseMatched(id: FrameId): void {
    this.counters.matched++;
    this.releaseHeld(id, 'match');
  }

  /** Releases the head of a queue of PVM frames, which carries nothing that the client lacks. */
  releaseRepeated(queue: FrameQueue): void {
    this.counters.repeated++;
    this.releaseHeld(this.frames.dequeue(queue), 'repeat');
  }

  /** Confirms and drops the head of a queue of SVM frames: the client has what it carries. */
  confirmHead(queue: FrameQueue): void {
    this.confirmHeld(this.frames.dequeue(queue));
  }

  /** Confirms and drops a held SVM frame that is in no queue any more. */
  confirmHeld(id: FrameId): void {
    this.sink.confirm(this.frames.words[id + INDEX]);
    this.frames.remove(this.secondary, id);
  }

  /** Drops the head of a queue of SVM frames; its rule confirms it now or later. */
  dropHead(queue: FrameQueue): void {
    this.frames.remove(this.secondary, this.frames.dequeue(queue));
  }

  /** Reports a divergence of a flow, which releases nothing more until the next commit. */
  diverge(flow: HeldFlow, reason: DivergenceReason, id: FrameId, other: FrameId): void {
    flow.diverged = true;
    this.table.readKey(this.frames.words[id + FLOW] as FlowId, this.key);
    this.reportDivergence(this.key, reason, id, other);
  }

  reportDivergence(key: Int32Array, reason: DivergenceReason, id: FrameId, other: FrameId): void {
    this.counters.divergences++;
    this.sink.diverged(key, reason, id, other);
  }

  /** The SVM now equals the PVM: releases everything held, in order of arrival. Returns how many frames. */
  commit(): number {
    const { frames } = this;
    let released = 0;
    while (this.secondary.oldest !== NO_FRAME) {
      const id = this.secondary.oldest;
      const flowId = frames.words[id + FLOW] as FlowId;
      if (flowId !== NO_FLOW) this.flow.moveTo(flowId).secondary.clear();
      frames.remove(this.secondary, id);
    }
    while (this.primary.oldest !== NO_FRAME) {
      const id = this.primary.oldest;
      const flowId = frames.words[id + FLOW] as FlowId;
      if (flowId !== NO_FLOW) {
        const flow = this.flow.moveTo(flowId);
        flow.primary.clear();
        this.rules[flow.rule].noteCommitted(flowId, id);
      }
      this.releaseHeld(id, 'commit');
      released++;
    }
    this.counters.releasedByCommit += released;
    for (let id = 0 as FlowId; id < this.table.idsEnd; id++) {
      const flow = this.flow.moveTo(id);
      if (!flow.isUsed) continue;
      invariant(flow.isEmpty, 'a commit left frames in the queue of a flow');
      flow.diverged = false;
      if (this.rules[flow.rule].noteCopied(id) && !flow.awaited) this.forgetFlow(id);
    }
    // Now no frame of any flow is held, so a full table has flows to forget.
    this.endEpoch();
    invariant(this.primary.frames === 0 && this.secondary.frames === 0, 'a commit left frames behind');
    invariant(
      this.primary.bytes === 0 && this.secondary.bytes === 0,
      'no frame is held, but bytes are counted',
    );
    return released;
  }

  /** The caller compares a flow no longer: releases its held PVM frames, drops its SVM frames, and forgets it. Not for fragments. */
  abandon(key: Int32Array): void {
    const id = this.table.find(key);
    if (id === NO_FLOW) return;
    const flow = this.flow.moveTo(id);
    while (flow.primary.head !== NO_FRAME) this.releaseHeld(this.frames.dequeue(flow.primary), 'commit');
    while (flow.secondary.head !== NO_FRAME) this.dropHead(flow.secondary);
    this.forgetFlow(id);
  }

  /** Drops everything; nothing of it is released. */
  discard(): void {
    for (const list of [this.primary, this.secondary]) {
      while (list.oldest !== NO_FRAME) this.frames.remove(list, list.oldest);
    }
    this.table.clear();
    this.flowCounts.fill(0);
    this.evictAt = 0 as FlowId;
    this.endEpoch();
  }

  /* Limits. */

  /** Returns the limit that is near enough for a checkpoint to be due, or null. */
  pressure(): Pressure {
    return this.svmFlowless ? 'limit-flows' : this.fullness(0);
  }

  /** As `pressure`, for the reading of PVM output, of which `read` frames were read and are yet to be handed in. */
  fullness(read: number): Pressure {
    if (this.primary.frames + this.secondary.frames + read >= this.limits.heldFramesCheckpoint)
      return 'limit-frames';
    if (this.secondary.frames >= this.limits.heldSecondaryMax) return 'limit-frames';
    if (this.slabs.inUse >= this.limits.heldSlabsMax) return 'limit-bytes';
    if (this.flowless) return 'limit-flows';
    if (this.shareReached) return 'limit-share';
    return null;
  }

  private releaseHeld(id: FrameId, cause: ReleaseCause): void {
    const { frames } = this;
    const { words } = frames;
    this.sink.release(words[id + SLAB] as SlabId, words[id + AT], words[id + LENGTH], cause);
    frames.remove(this.primary, id);
  }

  private endEpoch(): void {
    this.flowless = false;
    this.svmFlowless = false;
    this.shareReached = false;
  }

  /* Flows. */

  /**
   * Returns the flow of a VM's packet, a new one of `rule` if there is none, or NO_FLOW if there is no room for it. `likely`
   * is the list of the other side: VMs in lock-step use the same flows in the same order, so its oldest frame's flow is tried first.
   */
  flowOf(packet: PacketView, slab: SlabId, rule: RuleNumber, likely: ArrivalList, nowMs: Instant): FlowId {
    let id = this.knownFlowOf(this.slabs.buffer(slab), packet, likely);
    if (id === NO_FLOW) {
      id = this.newFlow(rule, nowMs);
      if (id === NO_FLOW) return NO_FLOW;
    }
    this.flow.moveTo(id).lastSeenMs = nowMs;
    return id;
  }

  /** As `flowOf`, but returns NO_FLOW for a flow that is not known; leaves the packet's key in `key`. */
  knownFlowOf(bytes: Uint8Array, packet: PacketView, likely: ArrivalList): FlowId {
    writeOutputKey(bytes, packet, this.key);
    const guess = likely.oldest === NO_FRAME ? NO_FLOW : (this.frames.words[likely.oldest + FLOW] as FlowId);
    return this.table.findNear(this.key, guess);
  }

  /** Returns true if two flows differ in nothing but the VM's port. */
  haveOneDestination(id: FlowId, other: FlowId): boolean {
    this.table.readKey(id, this.key);
    this.table.readKey(other, this.otherKey);
    return haveOneDestination(this.key, this.otherKey);
  }

  /** Returns the key of a flow, or null for NO_FLOW; it is void after the next call that finds one. */
  keyOf(id: FlowId): Int32Array | null {
    if (id === NO_FLOW) return null;
    this.table.readKey(id, this.key);
    return this.key;
  }

  private newFlow(rule: RuleNumber, nowMs: Instant): FlowId {
    // A frame that comes after one without a flow must not overtake it.
    if (this.flowless) return NO_FLOW;
    if (this.table.size === this.table.flowsMax) this.evictOne(nowMs);
    else if (this.table.size > 0) this.sweep(nowMs);
    const id = this.table.insert(this.key);
    if (id === NO_FLOW) return NO_FLOW;
    const operatorRule = this.operator?.numberOf(this.key) ?? NO_OPERATOR_RULE;
    const number = this.operator?.exempts(operatorRule) === true ? RULE.exempt : rule;
    const flow = this.flow.moveTo(id);
    flow.begin(number);
    flow.operatorRule = operatorRule;
    this.flowCounts[number]++;
    this.rules[number].begin(id);
    return id;
  }

  /** Makes room in a full table, if one of the flows that it examines may be forgotten. */
  private evictOne(nowMs: Instant): void {
    let oldest = NO_FLOW;
    let oldestMs = this.limits.flowQuietMsMin;
    for (let seen = 0; seen < EVICT_SCAN_MAX; seen++) {
      const id = this.nextFlow();
      const flow = this.flow.moveTo(id);
      if (!flow.mayBeForgotten) continue;
      if (this.rules[flow.rule].isExpendable(id)) {
        oldest = id;
        break;
      }
      const idleMs = flow.idleMs(nowMs);
      if (idleMs < oldestMs) continue;
      oldest = id;
      oldestMs = idleMs;
    }
    if (oldest === NO_FLOW) return;
    this.counters.flowsEvicted++;
    this.forgetFlow(oldest);
  }

  /** Forgets flows that are over, and when the table is half full those that have been idle. */
  private sweep(nowMs: Instant): void {
    const halfFull = this.table.size * 2 >= this.table.flowsMax;
    for (let seen = 0; seen < SWEEP_SCAN; seen++) {
      const id = this.nextFlow();
      const flow = this.flow.moveTo(id);
      if (!flow.isUsed || !flow.mayBeForgotten) continue;
      const rule = this.rules[flow.rule];
      if (rule.owesConfirm(id)) continue;
      const idleMs = flow.idleMs(nowMs);
      if (!rule.isOver(id, idleMs) && !(halfFull && idleMs >= this.limits.flowIdleMsMax)) continue;
      this.counters.flowsEvicted++;
      this.forgetFlow(id);
    }
  }

  private nextFlow(): FlowId {
    this.evictAt = (this.evictAt + 1 < this.table.idsEnd ? this.evictAt + 1 : 0) as FlowId;
    return this.evictAt;
  }

  private forgetFlow(id: FlowId): void {
    const flow = this.flow.moveTo(id);
    invariant(flow.mayBeForgotten, 'a flow was forgotten while frames of it are held, or wait');
    this.flowCounts[flow.rule]--;
    this.rules[flow.rule].end(id);
    flow.end();
    this.table.remove(id);
  }
}
