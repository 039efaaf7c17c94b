/**
 * The comparator: holds what the PVM says until the SVM has said the same.
 *
 * Goal: rule 1 (output commit) and rule 5 (bounded). PVM frames come in from the VM port, SVM frames from the link,
 * both already in one sequence space. A PVM frame leaves through `sink.release` on a match, or at a commit, or at once
 * when its kind is harmless (classes.ts). An SVM frame leaves nothing behind but a `confirm` of its index, once the
 * client has what it said: the secondary need not keep it for a failover any longer.
 *
 * Events: a frame of either side; `commit` (a checkpoint has made both VMs equal: release everything in order of
 * arrival, forget the SVM's frames); `overdue` (asked by whoever owns the clock: has anything waited too long?).
 *
 * Limits: limits.ts. Full columns or a full flow table never lose PVM output: a frame without a flow is held
 * until the next commit, and `pressure` says that one is due. Only SVM frames may be dropped (the PVM's counterpart
 * then waits, and a checkpoint heals it).
 */

import { invariant } from '../error.ts';
import { FLOW_KEY_WORDS, writeFlowKey } from '../flow/key.ts';
import { FlowTable } from '../flow/table.ts';
import { type Framing, vnetBytes } from '../frames/frame-reader.ts';
import type { SlabPool } from '../frames/slabs.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { PACKET, type PacketKind, PacketView, parsePacket } from '../wire/packet.ts';
import { parseQuickTcp } from '../wire/quick-tcp.ts';
import { TCP_SYN } from '../wire/tcp.ts';
import { COMPARE_AS, type CompareAs, compareAs } from './classes.ts';
import { advanceDatagrams } from './datagram.ts';
import { ComparedFlow } from './flow-state.ts';
import {
  ACK,
  type ArrivalList,
  AT,
  emptyArrivalList,
  FLAGS,
  FLOW,
  HeldFrames,
  INDEX,
  LENGTH,
  NONE,
  PAYLOAD,
  PAYLOAD_BYTES,
  SEQ,
  SEQ_END,
  SLAB,
  WAITS,
  WAITS_FOR,
} from './held-frames.ts';
import { pairWithPrimary, pairWithSecondary } from './lockstep.ts';
import { acceptSecondaryTcp, advanceTcp, noteCommitted, noteCopied } from './tcp.ts';
import { type DivergenceReason, type ReleaseCause, VERDICT, type Verdict } from './verdict.ts';

export type ComparatorSink = {
  /** A PVM frame may leave. Its slab is held until this call returns. */
  release(slab: number, at: number, length: number, cause: ReleaseCause): void;
  /** A SYN or SYN-ACK of the PVM, before it can be released: the secondary translates by it. */
  primarySyn(slab: number, at: number, length: number): void;
  /** The client has what this SVM frame said. */
  confirm(index: number): void;
  /** First difference of a flow since the last commit. */
  diverged(key: Int32Array, reason: DivergenceReason): void;
};

export type WaitLimits = { dataMs: number; ackMs: number; secondaryMs: number };
export type Overdue = 'wait-primary' | 'wait-secondary' | null;
export type Pressure = 'limit-frames' | 'limit-bytes' | 'limit-flows' | null;

/** Heads looked at per question: an older one that waits for data is always before a younger one. */
const OVERDUE_SCAN_MAX = 256;
/** Flows looked at for an idle one when the table is full. */
const EVICT_SCAN_MAX = 64;

export class Comparator {
  readonly frames: HeldFrames;
  readonly primary: ArrivalList = emptyArrivalList();
  readonly secondary: ArrivalList = emptyArrivalList();
  readonly counters = {
    malformed: 0,
    harmless: 0,
    matched: 0,
    secondaryDropped: 0,
    divergences: 0,
    flowsEvicted: 0,
  };
  private readonly limits: Limits;
  private readonly slabs: SlabPool;
  private readonly sink: ComparatorSink;
  private readonly table: FlowTable;
  private readonly flows: (ComparedFlow | undefined)[] = [];
  private readonly view = new PacketView();
  private readonly key = new Int32Array(FLOW_KEY_WORDS);
  /** flows that are TCP connections */
  tcpFlows = 0;
  private readonly vnet: boolean;
  private evictAt = 0;
  private flowless = false;

  constructor(
    slabs: SlabPool,
    sink: ComparatorSink,
    hashSeed: number,
    framing: Framing = 'plain',
    limits: Limits = LIMITS,
  ) {
    this.limits = limits;
    this.slabs = slabs;
    this.vnet = framing === 'vnet';
    this.sink = sink;
    this.frames = new HeldFrames(limits.heldFramesMax, slabs);
    this.table = new FlowTable(limits.flowsMax, hashSeed);
  }

  get flowCount(): number {
    return this.table.size;
  }

  /** A PVM frame: released now, held, or (only if its lengths lie) dropped and counted. */
  primaryFrame(slab: number, at: number, length: number, nowMs: number): void {
    const { view } = this;
    const bytes = this.slabs.buffer(slab);
    if (this.parse(slab, at, length) === PACKET.malformed) {
      this.counters.malformed++;
      return;
    }
    const as = compareAs(view);
    if (as === COMPARE_AS.harmless) {
      this.counters.harmless++;
      this.sink.release(slab, at, length, 'harmless');
      return;
    }
    if ((view.tcpFlags & TCP_SYN) !== 0) this.sink.primarySyn(slab, at, length);
    const flowId = this.flowOf(bytes, nowMs);
    const flow = flowId === NONE ? null : this.flows[flowId]!;
    const first = flow !== null && flow.primary.head === NONE;
    if (first && as === COMPARE_AS.stream && pairWithSecondary(this, flow, view, slab, at, length)) return;
    const id = this.frames.add(this.primary, slab, at, length, nowMs);
    invariant(id !== NONE, 'PVM frames kept coming while all held frames were in use');
    if (flow === null) {
      this.flowless = true;
      return;
    }
    this.describe(id, flowId);
    this.frames.enqueue(flow.primary, id);
    // Behind another held frame it can only leave after that one.
    if (first) this.advance(flow, as);
  }

  /** An SVM frame; `index` is its number in the epoch. */
  secondaryFrame(slab: number, at: number, length: number, index: number, nowMs: number): void {
    const { view } = this;
    const bytes = this.slabs.buffer(slab);
    if (this.parse(slab, at, length) === PACKET.malformed || compareAs(view) === COMPARE_AS.harmless) {
      this.sink.confirm(index);
      return;
    }
    const flowId = this.flowOf(bytes, nowMs);
    if (flowId === NONE) {
      this.counters.secondaryDropped++;
      return;
    }
    const flow = this.flows[flowId]!;
    const tcp = view.kind === PACKET.tcp;
    if (tcp && flow.secondary.head === NONE && pairWithPrimary(this, flow, view, slab, index)) return;
    const end = (view.seq + view.seqLength) | 0;
    if (!tcp || acceptSecondaryTcp(this, flow, index, view.tcpFlags, view.seq, end, view.ack)) {
      const full = this.secondary.frames >= this.limits.heldSecondaryMax;
      const id = full ? NONE : this.frames.add(this.secondary, slab, at, length, nowMs);
      if (id === NONE) {
        this.counters.secondaryDropped++;
        return;
      }
      this.describe(id, flowId);
      this.frames.words[id + INDEX] = index;
      this.frames.enqueue(flow.secondary, id);
    }
    if (flow.primary.head !== NONE) this.advance(flow, tcp ? COMPARE_AS.stream : COMPARE_AS.whole);
  }

  /** The SVM now equals the PVM: everything held leaves, in order of arrival. Returns how many frames. */
  commit(): number {
    const { frames } = this;
    let released = 0;
    while (this.secondary.oldest !== NONE) {
      const id = this.secondary.oldest;
      const flow = this.flows[frames.words[id + FLOW]]!;
      flow.secondary.head = NONE;
      flow.secondary.tail = NONE;
      frames.remove(this.secondary, id);
    }
    while (this.primary.oldest !== NONE) {
      const id = this.primary.oldest;
      const flowId = frames.words[id + FLOW];
      if (flowId !== NONE) {
        const flow = this.flows[flowId]!;
        flow.primary.head = NONE;
        flow.primary.tail = NONE;
        if (this.keyKind(flowId) === PACKET.tcp) {
          noteCommitted(
            flow,
            frames.words[id + FLAGS],
            frames.words[id + SEQ],
            frames.words[id + SEQ_END],
            frames.words[id + ACK],
          );
        }
      }
      this.sink.release(frames.words[id + SLAB], frames.words[id + AT], frames.words[id + LENGTH], 'commit');
      frames.remove(this.primary, id);
      released++;
    }
    for (const flow of this.flows) {
      if (flow === undefined) continue;
      flow.diverged = false;
      noteCopied(flow);
    }
    // A commit makes room for whatever had none. A flow that goes on is one that is first seen in its middle.
    if (this.flowless) this.forgetFlows();
    invariant(this.primary.frames === 0 && this.secondary.frames === 0, 'a commit left frames behind');
    return released;
  }

  /** Lets go of everything; nothing of it leaves. */
  discard(): void {
    for (const list of [this.primary, this.secondary]) {
      while (list.oldest !== NONE) this.frames.remove(list, list.oldest);
    }
    this.forgetFlows();
  }

  /**
   * Alone, there is nothing to compare with: the frame leaves. What it says is remembered all the same,
   * so that the comparator knows every stream's place when the VM is protected again.
   */
  passAlone(slab: number, at: number, length: number, nowMs: number): void {
    const { view } = this;
    const bytes = this.slabs.buffer(slab);
    if (this.parse(slab, at, length) === PACKET.malformed) {
      this.counters.malformed++;
      return;
    }
    if (view.kind === PACKET.tcp) {
      const flowId = this.flowOf(bytes, nowMs);
      if (flowId !== NONE) {
        const end = (view.seq + view.seqLength) | 0;
        noteCommitted(this.flows[flowId]!, view.tcpFlags, view.seq, end, view.ack);
      }
    }
    this.sink.release(slab, at, length, 'alone');
  }

  /** Has held output waited longer than it should? */
  overdue(nowMs: number, limits: WaitLimits): Overdue {
    const { frames } = this;
    let id = this.primary.oldest;
    for (let seen = 0; id !== NONE && seen < OVERDUE_SCAN_MAX; seen++, id = frames.newerThan(id)) {
      const age = nowMs - frames.since(id);
      if (age < limits.dataMs) break;
      if (frames.words[id + WAITS] === WAITS_FOR.bytes || age >= limits.ackMs) return 'wait-primary';
    }
    const oldest = this.secondary.oldest;
    if (oldest !== NONE && nowMs - frames.since(oldest) >= limits.secondaryMs) return 'wait-secondary';
    return null;
  }

  /** How long the oldest held PVM frame has waited. */
  oldestWaitMs(nowMs: number): number {
    return this.primary.oldest === NONE ? 0 : nowMs - this.frames.since(this.primary.oldest);
  }

  /** Is a limit near enough that a checkpoint should free things? */
  pressure(): Pressure {
    if (this.primary.frames + this.secondary.frames >= this.limits.heldFramesCheckpoint)
      return 'limit-frames';
    if (this.secondary.frames >= this.limits.heldSecondaryMax) return 'limit-frames';
    if (this.slabs.inUse >= this.limits.heldSlabsMax) return 'limit-bytes';
    if (this.flowless) return 'limit-flows';
    return null;
  }

  /* For the protocol families (tcp.ts, datagram.ts). */

  /** Whether `bytes` bytes of two held frames' payloads are the same, each from its own offset on. */
  samePayload(id: number, offset: number, other: number, otherOffset: number, bytes: number): boolean {
    const { words } = this.frames;
    return this.slabs.same(
      words[id + SLAB],
      words[id + PAYLOAD] + offset,
      words[other + SLAB],
      words[other + PAYLOAD] + otherOffset,
      bytes,
    );
  }

  /** The same for a frame that is not held. */
  sameAsHeld(id: number, slab: number, at: number, bytes: number): boolean {
    const { words } = this.frames;
    return this.slabs.same(words[id + SLAB], words[id + PAYLOAD], slab, at, bytes);
  }

  releaseUnheld(slab: number, at: number, length: number): void {
    this.counters.matched++;
    this.sink.release(slab, at, length, 'match');
  }

  releaseHead(flow: ComparedFlow, cause: ReleaseCause): void {
    const { frames } = this;
    const id = frames.dequeue(flow.primary);
    this.counters.matched++;
    this.sink.release(frames.words[id + SLAB], frames.words[id + AT], frames.words[id + LENGTH], cause);
    frames.remove(this.primary, id);
  }

  /** The client has all that the SVM's oldest frame said. */
  dropSecondaryHead(flow: ComparedFlow): void {
    this.sink.confirm(this.frames.words[flow.secondary.head + INDEX]);
    this.forgetSecondaryHead(flow);
  }

  /** Holds the SVM's oldest frame no longer; whether it is confirmed is the caller's business. */
  forgetSecondaryHead(flow: ComparedFlow): void {
    this.frames.remove(this.secondary, this.frames.dequeue(flow.secondary));
  }

  confirm(index: number): void {
    this.sink.confirm(index);
  }

  diverged(flow: ComparedFlow, id: number, reason: DivergenceReason): Verdict {
    flow.diverged = true;
    this.counters.divergences++;
    this.table.readKey(this.frames.words[id + FLOW], this.key);
    this.sink.diverged(this.key, reason);
    return VERDICT.diverged;
  }

  private advance(flow: ComparedFlow, as: CompareAs): void {
    if (as === COMPARE_AS.stream) advanceTcp(this, flow);
    else advanceDatagrams(this, flow);
  }

  /** A virtio-net header is neither part of the packet nor compared: only the driver beside the VM sees it. */
  private parse(slab: number, at: number, length: number): PacketKind {
    const { slabs, view } = this;
    const bytes = slabs.buffer(slab);
    const skip = this.vnet ? vnetBytes(bytes, at) : 0;
    if (parseQuickTcp(slabs.view(slab), at + skip, length - skip, view)) return PACKET.tcp;
    return parsePacket(bytes, at + skip, length - skip, view);
  }

  /** Copies what the view says into the frame's columns. */
  private describe(id: number, flowId: number): void {
    const { frames, view } = this;
    frames.words[id + FLOW] = flowId;
    frames.words[id + PAYLOAD] = view.payload;
    frames.words[id + PAYLOAD_BYTES] = view.payloadBytes;
    frames.words[id + FLAGS] = view.tcpFlags;
    if (view.kind === PACKET.tcp) {
      frames.words[id + SEQ] = view.seq;
      frames.words[id + SEQ_END] = (view.seq + view.seqLength) | 0;
      frames.words[id + ACK] = view.ack;
    }
  }

  /** The flow of the frame in the view, made when it is new; NONE when there is no room for another. */
  private flowOf(bytes: Uint8Array, nowMs: number): number {
    writeFlowKey(bytes, this.view, true, this.key);
    let id = this.table.find(this.key);
    if (id === NONE) {
      if (this.table.size * 2 >= this.table.flowsMax) this.evictIdle(nowMs);
      id = this.table.insert(this.key);
      if (id === NONE) return NONE;
      this.flows[id] = new ComparedFlow();
      if (this.view.kind === PACKET.tcp) this.tcpFlows++;
    }
    this.flows[id]!.lastSeenMs = nowMs;
    return id;
  }

  private evictIdle(nowMs: number): void {
    for (let seen = 0; seen < EVICT_SCAN_MAX; seen++) {
      this.evictAt = (this.evictAt + 1) % this.flows.length;
      const flow = this.flows[this.evictAt];
      if (flow?.idle === true && nowMs - flow.lastSeenMs >= this.limits.flowIdleMsMax) {
        if (this.keyKind(this.evictAt) === PACKET.tcp) this.tcpFlows--;
        this.table.remove(this.evictAt);
        this.flows[this.evictAt] = undefined;
        this.counters.flowsEvicted++;
      }
    }
  }

  private forgetFlows(): void {
    this.table.clear();
    this.flows.length = 0;
    this.tcpFlows = 0;
    this.evictAt = 0;
    this.flowless = false;
  }

  private keyKind(flowId: number): number {
    this.table.readKey(flowId, this.key);
    return this.key[1] >>> 24;
  }
}
