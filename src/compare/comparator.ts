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
 * until the next commit, and `pressure` says that one is due. Only SVM frames may be dropped: the PVM's counterpart
 * then waits, and a checkpoint, which is due too, heals it. A full table forgets a flow of which nothing is held: if it
 * goes on, it is one first seen in its middle. Those go first that have least to say: datagrams, connections that are
 * over or half open. So a flood of new flows costs the flood's, not the established ones'.
 */

import { invariant } from '../error.ts';
import { FLOW_KEY_WORDS, ofOneFlow, PORTS_WORD, writeOutputKey } from '../flow/key.ts';
import { FlowTable } from '../flow/table.ts';
import { type Framing, vnetBytes } from '../frames/frame-reader.ts';
import type { SlabPool } from '../frames/slabs.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { FrameId, Instant, SlabId } from '../units.ts';
import { readU16 } from '../wire/bytes.ts';
import {
  PACKET,
  type PacketKind,
  PacketView,
  parseDatagram,
  parseGsoPacket,
  parsePacket,
} from '../wire/packet.ts';
import { parseQuickTcp } from '../wire/quick-tcp.ts';
import { isSigned, settledOptions, TCP, TCP_RST, TCP_SYN, TCP_URG } from '../wire/tcp.ts';
import { isGso, partialChecksumAt } from '../wire/virtio-net.ts';
import { COMPARE_AS, compareAs } from './classes.ts';
import { advanceDatagrams } from './datagram.ts';
import { ComparedFlow } from './flow-state.ts';
import { FRAGMENT, Fragments } from './fragments.ts';
import {
  ACK,
  type ArrivalList,
  AT,
  DATAGRAM_BYTES,
  emptyArrivalList,
  FLAGS,
  FLOW,
  type FrameQueue,
  HeldFrames,
  IN_PIECES,
  INDEX,
  LENGTH,
  NO_FRAME,
  NONE,
  PAYLOAD,
  PAYLOAD_BYTES,
  PIECE,
  QUOTES,
  SEQ,
  SEQ_END,
  SETTLES,
  SIGNED,
  SLAB,
  WAITS,
  WAITS_FOR,
} from './held-frames.ts';
import { LESSON, type Lesson } from './lesson.ts';
import { isPlainData, pairUnheld, pairWithPrimary, pairWithSecondary } from './lockstep.ts';
import {
  acceptSecondaryTcp,
  advanceTcp,
  noteCommitted,
  noteCopied,
  noteQueued,
  noteSvmUrgent,
} from './tcp.ts';
import { type DivergenceReason, type ReleaseCause, VERDICT, type Verdict } from './verdict.ts';

export type ComparatorSink = {
  /** A PVM frame may leave. Its slab is held until this call returns. */
  release(slab: SlabId, at: number, length: number, cause: ReleaseCause): void;
  /** A PVM frame that chooses a value, before it is released: the secondary maps its VM's own value to it. */
  teach(lesson: Lesson, slab: SlabId, at: number, length: number): void;
  /** The client has what this SVM frame said. */
  confirm(index: number): void;
  /**
   * The VMs diverge in a flow, for the first time since the last commit. `primary` is the held PVM frame (in
   * `Comparator.frames`), `secondary` the SVM frame that it differs from, or NO_FRAME where no one frame does.
   */
  diverged(key: Int32Array, reason: DivergenceReason, primary: FrameId, secondary: FrameId): void;
};

export type WaitLimits = { dataMs: number; ackMs: number; secondaryMs: number };
export type Overdue = 'wait-primary' | 'wait-secondary' | null;
/** Who has to go the way of a single frame, before anything else of its side: bits of what `pairOff` answers. */
export const APART = { none: 0, primary: 1, secondary: 2, both: 3 } as const;
export type Apart = (typeof APART)[keyof typeof APART];
export type Pressure =
  | 'limit-frames'
  | 'limit-bytes'
  | 'limit-flows'
  | 'limit-share'
  | 'limit-fragments'
  | null;

/** Heads looked at per question: an older one that waits for data is always before a younger one. */
const OVERDUE_SCAN_MAX = 256;
/** Flows looked at for one to forget when the table is full. */
const EVICT_SCAN_MAX = 64;
/** Flows looked at for one that is over, whenever a new one comes: more than come. */
const SWEEP_SCAN = 8;
/** Segments with one of these have more to them than their place in the stream. */
const RARE = TCP_SYN | TCP_RST | TCP_URG;

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
  /** stands at the flow in question */
  private readonly flow: ComparedFlow;
  private readonly view = new PacketView();
  /** of a PVM frame, where one of the SVM is in `view` */
  private readonly primaryView = new PacketView();
  private readonly key = new Int32Array(FLOW_KEY_WORDS);
  /** flows that are TCP connections */
  tcpFlows = 0;
  /** held frames that were looked at in search of one: bounded per frame, whatever the VMs send */
  visits = 0;
  readonly vnet: boolean;
  /**
   * The secondary knows every SYN of the PVM and says its VM's own in the PVM's number: then a SYN of the PVM leaves only
   * against one with that number, which proves that the secondary could go on with the connection (rule 1).
   */
  taught = false;
  private readonly primaryFragments: Fragments;
  private readonly secondaryFragments: Fragments;
  private evictAt = 0;
  /** a PVM frame is held without a flow */
  private flowless = false;
  /** of the SVM there is a frame without one: the PVM's waits in vain */
  private svmFlowless = false;
  private fragmentsFull = false;
  private shareReached = false;

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
    this.flow = new ComparedFlow(limits.flowsMax);
    this.primaryFragments = new Fragments(this.frames, hashSeed, limits);
    this.secondaryFragments = new Fragments(this.frames, hashSeed, limits);
  }

  get flowCount(): number {
    return this.table.size;
  }

  /** A PVM frame: released now, held, or (only if its lengths lie) dropped and counted. */
  primaryFrame(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const { view } = this;
    const bytes = this.slabs.buffer(slab);
    const tcp = this.parse(slab, at, length) === PACKET.tcp;
    if (!tcp && this.isPrimaryDone(slab, at, length, nowMs)) return;
    if ((view.tcpFlags & TCP_SYN) !== 0) this.sink.teach(LESSON.tcpSyn, slab, at, length);
    const flowId = this.flowOf(bytes, this.secondary, nowMs);
    const flow = flowId === NONE ? null : this.flow.moveTo(flowId);
    const first = flow !== null && flow.primary.head === NONE;
    if (first && tcp && pairWithSecondary(this, flow, view, slab, at, length)) return;
    const id = this.frames.add(this.primary, slab, at, length, nowMs);
    invariant(id !== NONE, 'PVM frames kept coming while all held frames were in use');
    if (flow === null) {
      this.flowless = true;
      return;
    }
    this.describe(id, flowId);
    this.frames.enqueue(flow.primary, id);
    // Behind another held frame it can only leave after that one.
    if (first) this.advance(flow);
    else this.checkShare(flow.primary);
  }

  /** An SVM frame; `index` is its number in the epoch. */
  secondaryFrame(slab: SlabId, at: number, length: number, index: number, nowMs: Instant): void {
    const { view } = this;
    const bytes = this.slabs.buffer(slab);
    const tcp = this.parse(slab, at, length) === PACKET.tcp;
    if (!tcp && this.isSecondaryDone(slab, at, length, index, nowMs)) return;
    const flowId = this.flowOf(bytes, this.primary, nowMs);
    if (flowId === NONE) {
      this.counters.secondaryDropped++;
      this.svmFlowless = true;
      return;
    }
    const flow = this.flow.moveTo(flowId);
    if (tcp && flow.secondary.head === NONE && pairWithPrimary(this, flow, view, slab, index)) return;
    const end = (view.seq + view.seqLength) | 0;
    const rare = (view.tcpFlags & RARE) !== 0;
    if (rare) this.noteUrgent(flow, bytes);
    if (!tcp || acceptSecondaryTcp(this, flow, index, view.tcpFlags, view.seq, end, view.ack)) {
      const full =
        this.secondary.frames >= this.limits.heldSecondaryMax ||
        (flow.secondary.head !== NONE && this.checkShare(flow.secondary));
      const id = full ? NONE : this.frames.add(this.secondary, slab, at, length, nowMs);
      if (id === NONE) {
        this.counters.secondaryDropped++;
        return;
      }
      this.describe(id, flowId);
      this.frames.words[id + INDEX] = index;
      this.frames.enqueue(flow.secondary, id);
      if (rare) noteQueued(flow, view.tcpFlags);
    }
    if (flow.primary.head !== NONE) this.advance(flow);
  }

  /**
   * A frame of each VM (the PVM's first), of which neither was handed in before: if they are segments that pair off, both
   * are done. The other answers leave everything as it was, but for what the SVM's ACK has said.
   */
  pairOff(
    slab: SlabId,
    at: number,
    length: number,
    svmSlab: SlabId,
    svmAt: number,
    svmLength: number,
    nowMs: Instant,
  ): Apart {
    const { view, primaryView } = this;
    if (this.parse(svmSlab, svmAt, svmLength) !== PACKET.tcp || !isPlainData(view)) return APART.secondary;
    const svmBytes = this.slabs.buffer(svmSlab);
    const flowId = this.knownFlowOf(svmBytes, this.primary);
    if (flowId === NONE) return APART.both;
    const flow = this.flow.moveTo(flowId);
    // One side is ahead: the other goes on until it has caught up.
    if (flow.primary.head !== NONE) return APART.secondary;
    if (flow.secondary.head !== NONE) return APART.primary;
    if (this.parse(slab, at, length, primaryView) !== PACKET.tcp || !isPlainData(primaryView))
      return APART.primary;
    if (!ofOneFlow(this.slabs.buffer(slab), primaryView, svmBytes, view)) return APART.primary;
    if (!pairUnheld(this, flow, primaryView, slab, at, length, view, svmSlab)) return APART.both;
    flow.lastSeenMs = nowMs;
    return APART.none;
  }

  /** The SVM now equals the PVM: everything held leaves, in order of arrival. Returns how many frames. */
  commit(): number {
    const { frames } = this;
    let released = 0;
    while (this.secondary.oldest !== NONE) {
      const id = this.secondary.oldest;
      const flowId = frames.words[id + FLOW];
      if (flowId !== NONE) this.flow.moveTo(flowId).secondary.clear();
      frames.remove(this.secondary, id);
    }
    while (this.primary.oldest !== NONE) {
      const id = this.primary.oldest;
      const flowId = frames.words[id + FLOW];
      if (flowId !== NONE) {
        const flow = this.flow.moveTo(flowId);
        flow.primary.clear();
        if (flow.tcp) {
          noteCommitted(
            flow,
            frames.words[id + FLAGS],
            frames.words[id + SEQ],
            frames.words[id + SEQ_END],
            frames.words[id + ACK],
          );
        }
      }
      this.sink.release(
        frames.words[id + SLAB] as SlabId,
        frames.words[id + AT],
        frames.words[id + LENGTH],
        'commit',
      );
      frames.remove(this.primary, id);
      released++;
    }
    for (let id = 0; id < this.table.idsEnd; id++) {
      const flow = this.flow.moveTo(id);
      if (!flow.used) continue;
      flow.diverged = false;
      noteCopied(flow);
      if (flow.closed) this.forgetFlow(id);
    }
    // Now nothing is held of any flow, so a full table has some to forget.
    this.endEpoch();
    invariant(this.primary.frames === 0 && this.secondary.frames === 0, 'a commit left frames behind');
    return released;
  }

  /** Lets go of everything; nothing of it leaves. */
  discard(): void {
    for (const list of [this.primary, this.secondary]) {
      while (list.oldest !== NONE) this.frames.remove(list, list.oldest);
    }
    this.table.clear();
    this.tcpFlows = 0;
    this.evictAt = 0;
    this.endEpoch();
  }

  /**
   * Alone, there is nothing to compare with: the frame leaves. What it says is remembered all the same,
   * so that the comparator knows every stream's place when the VM is protected again.
   */
  passAlone(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const { view } = this;
    const bytes = this.slabs.buffer(slab);
    if (this.parse(slab, at, length) === PACKET.malformed) {
      this.counters.malformed++;
      return;
    }
    if (view.kind === PACKET.tcp) {
      const flowId = this.flowOf(bytes, this.secondary, nowMs);
      if (flowId !== NONE) {
        const end = (view.seq + view.seqLength) | 0;
        noteCommitted(this.flow.moveTo(flowId), view.tcpFlags, dataSeq(view), end, view.ack);
      }
    }
    this.sink.release(slab, at, length, 'alone');
  }

  /** Has held output waited longer than it should? */
  overdue(nowMs: Instant, limits: WaitLimits): Overdue {
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
  oldestWaitMs(nowMs: Instant): number {
    return this.primary.oldest === NONE ? 0 : nowMs - this.frames.since(this.primary.oldest);
  }

  /** Is a limit near enough that a checkpoint should free things? */
  pressure(): Pressure {
    return this.svmFlowless ? 'limit-flows' : this.fullness(0);
  }

  /** Should no more of the PVM's output be read until then? `read` frames of it were, and are yet to be handed in. */
  isFull(read: number): boolean {
    return this.fullness(read) !== null;
  }

  private fullness(read: number): Pressure {
    if (this.primary.frames + this.secondary.frames + read >= this.limits.heldFramesCheckpoint)
      return 'limit-frames';
    if (this.secondary.frames >= this.limits.heldSecondaryMax) return 'limit-frames';
    if (this.slabs.inUse >= this.limits.heldSlabsMax) return 'limit-bytes';
    if (this.flowless) return 'limit-flows';
    if (this.shareReached) return 'limit-share';
    if (this.fragmentsFull) return 'limit-fragments';
    return null;
  }

  /* For the protocol families (tcp.ts, datagram.ts). */

  /** Whether `bytes` bytes of two held frames' payloads are the same, each from its own offset on. */
  samePayload(id: number, offset: number, other: number, otherOffset: number, bytes: number): boolean {
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
  sameAsHeld(id: number, slab: SlabId, at: number, bytes: number): boolean {
    const { words } = this.frames;
    return this.slabs.same(words[id + SLAB] as SlabId, words[id + PAYLOAD], slab, at, bytes);
  }

  /** The same for frames that are not held. */
  sameUnheld(slab: SlabId, at: number, other: SlabId, otherAt: number, bytes: number): boolean {
    return this.slabs.same(slab, at, other, otherAt, bytes);
  }

  releaseUnheld(slab: SlabId, at: number, length: number): void {
    this.counters.matched++;
    this.sink.release(slab, at, length, 'match');
  }

  releaseHead(flow: ComparedFlow, cause: ReleaseCause): void {
    const { frames } = this;
    const id = frames.dequeue(flow.primary);
    this.counters.matched++;
    this.sink.release(
      frames.words[id + SLAB] as SlabId,
      frames.words[id + AT],
      frames.words[id + LENGTH],
      cause,
    );
    frames.remove(this.primary, id);
  }

  /** The same for a datagram in fragments. */
  releasePieces(flow: ComparedFlow): void {
    const { frames } = this;
    for (let id = frames.dequeue(flow.primary); id !== NONE; ) {
      const next = frames.words[id + PIECE];
      this.counters.matched++;
      this.sink.release(
        frames.words[id + SLAB] as SlabId,
        frames.words[id + AT],
        frames.words[id + LENGTH],
        'match',
      );
      frames.remove(this.primary, id);
      id = next;
    }
  }

  dropSecondaryPieces(flow: ComparedFlow): void {
    const { frames } = this;
    for (let id = frames.dequeue(flow.secondary); id !== NONE; ) {
      const next = frames.words[id + PIECE];
      this.sink.confirm(frames.words[id + INDEX]);
      frames.remove(this.secondary, id);
      id = next;
    }
  }

  bytesOf(slab: SlabId): Uint8Array {
    return this.slabs.buffer(slab);
  }

  /** Where in a held frame's payload its incomplete checksum lies, or -1. */
  partialChecksumIn(id: number): number {
    const { words } = this.frames;
    const bytes = this.slabs.buffer(words[id + SLAB] as SlabId);
    const at = words[id + AT];
    const field = partialChecksumAt(bytes, at, words[id + LENGTH], vnetBytes(bytes, at));
    return field < words[id + PAYLOAD] ? -1 : field - words[id + PAYLOAD];
  }

  /** The client has all that the SVM's oldest frame said. */
  dropSecondaryHead(flow: ComparedFlow): void {
    this.sink.confirm(this.frames.words[flow.secondary.head + INDEX]);
    this.forgetSecondaryHead(flow);
  }

  /** Holds the SVM's oldest frame no longer; whether it is confirmed is the caller's business. */
  forgetSecondaryHead(flow: ComparedFlow): void {
    const id = this.frames.dequeue(flow.secondary);
    if (flow.cursor === id) flow.cursor = NONE;
    this.frames.remove(this.secondary, id);
  }

  confirm(index: number): void {
    this.sink.confirm(index);
  }

  diverged(flow: ComparedFlow, reason: DivergenceReason, id: number, other: number = NO_FRAME): Verdict {
    flow.diverged = true;
    this.counters.divergences++;
    this.table.readKey(this.frames.words[id + FLOW], this.key);
    this.sink.diverged(this.key, reason, id as FrameId, other as FrameId);
    return VERDICT.diverged;
  }

  private advance(flow: ComparedFlow): void {
    if (flow.tcp) advanceTcp(this, flow);
    else advanceDatagrams(this, flow);
  }

  private endEpoch(): void {
    this.primaryFragments.clear();
    this.secondaryFragments.clear();
    this.flowless = false;
    this.svmFlowless = false;
    this.shareReached = false;
    this.fragmentsFull = false;
  }

  /** A PVM frame that is not TCP: is it one that no flow has to be found for? */
  private isPrimaryDone(slab: SlabId, at: number, length: number, nowMs: Instant): boolean {
    if (this.view.kind === PACKET.malformed) {
      this.counters.malformed++;
      return true;
    }
    const as = compareAs(this.view);
    if (as === COMPARE_AS.harmless) {
      this.counters.harmless++;
      this.sink.release(slab, at, length, 'harmless');
    } else if (as === COMPARE_AS.pieces) this.primaryFragment(slab, at, length, nowMs);
    return as === COMPARE_AS.harmless || as === COMPARE_AS.pieces;
  }

  private isSecondaryDone(slab: SlabId, at: number, length: number, index: number, nowMs: Instant): boolean {
    const malformed = this.view.kind === PACKET.malformed;
    const as = compareAs(this.view);
    if (malformed || as === COMPARE_AS.harmless) this.sink.confirm(index);
    else if (as === COMPARE_AS.pieces) this.secondaryFragment(slab, at, length, index, nowMs);
    else return false;
    return true;
  }

  private noteUrgent(flow: ComparedFlow, bytes: Uint8Array): void {
    if ((this.view.tcpFlags & TCP_URG) !== 0) noteSvmUrgent(flow, urgentEnd(bytes, this.view));
  }

  private primaryFragment(slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const id = this.frames.add(this.primary, slab, at, length, nowMs);
    invariant(id !== NONE, 'PVM frames kept coming while all held frames were in use');
    this.describeFragment(id);
    const fate = this.primaryFragments.add(this.key, id, this.view.moreFragments);
    if (fate === FRAGMENT.full) this.fragmentsFull = true;
    else if (fate === FRAGMENT.refused) {
      this.counters.divergences++;
      this.key[PORTS_WORD] = 0;
      this.sink.diverged(this.key, 'diverged-fragments', id as FrameId, NO_FRAME);
    } else if (fate === FRAGMENT.complete) {
      const head = this.primaryFragments.take(this.key);
      const flowId = this.datagramFlow(head, this.slabs.buffer(slab), nowMs);
      if (flowId === NONE) {
        this.flowless = true;
        return;
      }
      const flow = this.flow.moveTo(flowId);
      this.frames.enqueue(flow.primary, head);
      this.checkShare(flow.primary);
      this.advance(flow);
    }
  }

  private secondaryFragment(slab: SlabId, at: number, length: number, index: number, nowMs: Instant): void {
    const full = this.secondary.frames >= this.limits.heldSecondaryMax;
    const id = full ? NONE : this.frames.add(this.secondary, slab, at, length, nowMs);
    if (id === NONE) {
      this.counters.secondaryDropped++;
      return;
    }
    this.describeFragment(id);
    this.frames.words[id + INDEX] = index;
    const fate = this.secondaryFragments.add(this.key, id, this.view.moreFragments);
    if (fate === FRAGMENT.full) this.fragmentsFull = true;
    if (fate !== FRAGMENT.complete) return;
    const head = this.secondaryFragments.take(this.key);
    const flowId = this.datagramFlow(head, this.slabs.buffer(slab), nowMs);
    if (flowId === NONE) {
      // Its frames stay held until the commit that makes room for a flow.
      this.svmFlowless = true;
      return;
    }
    const flow = this.flow.moveTo(flowId);
    this.frames.enqueue(flow.secondary, head);
    this.checkShare(flow.secondary);
    if (flow.primary.head !== NONE) this.advance(flow);
  }

  /** Copies what the view says of a fragment into its columns, and leaves its datagram's key. */
  private describeFragment(id: number): void {
    const { view } = this;
    const { words } = this.frames;
    words[id + PAYLOAD] = view.payload;
    words[id + PAYLOAD_BYTES] = view.payloadBytes;
    words[id + FLAGS] = 0;
    words[id + SEQ] = view.fragmentOffset;
    words[id + SEQ_END] = view.fragmentOffset + view.payloadBytes;
    words[id + WAITS] = WAITS_FOR.bytes;
    writeOutputKey(this.slabs.buffer(words[id + SLAB] as SlabId), view, this.key);
    this.key[PORTS_WORD] = view.fragmentId;
  }

  /**
   * The flow of a complete datagram, which is that of the same datagram in one frame (but for TCP, whose segments in
   * fragments are compared whole). The view is that of its last fragment to come, in `bytes`.
   */
  private datagramFlow(head: number, bytes: Uint8Array, nowMs: Instant): number {
    const { view } = this;
    const { words } = this.frames;
    const first = this.slabs.buffer(words[head + SLAB] as SlabId);
    let total = 0;
    for (let id = head; id !== NONE; id = words[id + PIECE]) total += words[id + PAYLOAD_BYTES];
    const l4 = words[head + PAYLOAD];
    const headerBytes = parseDatagram(first, l4, words[head + PAYLOAD_BYTES], total, view);
    words[head + PAYLOAD] += headerBytes;
    words[head + PAYLOAD_BYTES] -= headerBytes;
    words[head + DATAGRAM_BYTES] = total - headerBytes;
    words[head + FLAGS] = IN_PIECES;
    const flowId = this.flowOf(bytes, this.secondary, nowMs);
    for (let id = head; id !== NONE; id = words[id + PIECE]) words[id + FLOW] = flowId;
    return flowId;
  }

  /** A virtio-net header is neither part of the packet nor compared: only the driver beside the VM sees it. */
  private parse(slab: SlabId, at: number, length: number, view = this.view): PacketKind {
    const { slabs } = this;
    const bytes = slabs.buffer(slab);
    const skip = this.vnet ? vnetBytes(bytes, at) : 0;
    if (parseQuickTcp(slabs.view(slab), at + skip, length - skip, view)) return PACKET.tcp;
    if (isGso(bytes, at, skip)) return parseGsoPacket(bytes, at + skip, length - skip, view);
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
      if ((view.tcpFlags & RARE) !== 0) this.describeRare(id);
    } else if (compareAs(view) === COMPARE_AS.quote) frames.words[id + FLAGS] = QUOTES;
  }

  private describeRare(id: number): void {
    const { view } = this;
    const { words } = this.frames;
    const bytes = this.slabs.buffer(words[id + SLAB] as SlabId);
    if ((view.tcpFlags & TCP_URG) !== 0) words[id + INDEX] = urgentEnd(bytes, view);
    if ((view.tcpFlags & TCP_SYN) === 0) return;
    words[id + SEQ] = dataSeq(view);
    if (isSigned(bytes, view.l4 + TCP.headerBytesMin, view.payload)) words[id + FLAGS] |= SIGNED;
    words[id + SETTLES] = settledOptions(bytes, view.l4 + TCP.headerBytesMin, view.payload);
  }

  /** One flow must not take the room of all: has it more than its share? */
  private checkShare(queue: FrameQueue): boolean {
    const { flowFramesMax, flowBytesMax } = this.limits;
    if (queue.framesBehind < flowFramesMax - 1 && queue.bytesBehind < flowBytesMax) return false;
    this.shareReached = true;
    return true;
  }

  /** The flow of the frame in the view, made when it is new; NONE when there is no room for another. */
  private flowOf(bytes: Uint8Array, other: ArrivalList, nowMs: Instant): number {
    let id = this.knownFlowOf(bytes, other);
    if (id === NONE) {
      id = this.newFlow(nowMs);
      if (id === NONE) return NONE;
    }
    this.flow.moveTo(id).lastSeenMs = nowMs;
    return id;
  }

  /** The same for flows that there are; leaves the key. */
  private knownFlowOf(bytes: Uint8Array, other: ArrivalList): number {
    writeOutputKey(bytes, this.view, this.key);
    // Two VMs in step speak of the same flows in the same order: no need to look it up twice.
    const guess = other.oldest === NONE ? NONE : this.frames.words[other.oldest + FLOW];
    return this.table.findNear(this.key, guess);
  }

  private newFlow(nowMs: Instant): number {
    // What comes behind a frame without a flow must not overtake it.
    if (this.flowless) return NONE;
    if (this.table.size === this.table.flowsMax) this.evictOne(nowMs);
    else if (this.table.size > 0) this.sweep(nowMs);
    const id = this.table.insert(this.key);
    if (id === NONE) return NONE;
    const tcp = this.view.kind === PACKET.tcp;
    this.flow.moveTo(id).begin(tcp);
    if (tcp) this.tcpFlows++;
    return id;
  }

  /** Makes room in a full table, if any flow that is looked at may be spared. */
  private evictOne(nowMs: Instant): void {
    let oldest = NONE;
    let oldestMs = this.limits.flowQuietMsMin;
    for (let seen = 0; seen < EVICT_SCAN_MAX; seen++) {
      const id = this.nextFlow();
      const flow = this.flow.moveTo(id);
      if (!flow.empty) continue;
      if (flow.expendable) {
        oldest = id;
        break;
      }
      const idleMs = flow.idleMs(nowMs);
      if (idleMs < oldestMs) continue;
      oldest = id;
      oldestMs = idleMs;
    }
    if (oldest === NONE) return;
    this.counters.flowsEvicted++;
    this.forgetFlow(oldest);
  }

  /** Forgets connections that are over, and when the table is half full those that say nothing. */
  private sweep(nowMs: Instant): void {
    const { flowClosedMsMax, flowIdleMsMax } = this.limits;
    const halfFull = this.table.size * 2 >= this.table.flowsMax;
    for (let seen = 0; seen < SWEEP_SCAN; seen++) {
      const id = this.nextFlow();
      const flow = this.flow.moveTo(id);
      if (!flow.used || !flow.empty || flow.pendingAckIndex !== NONE) continue;
      const idleMs = flow.idleMs(nowMs);
      const over = flow.closed || (flow.finReleased && idleMs >= flowClosedMsMax);
      if (!over && !(halfFull && idleMs >= flowIdleMsMax)) continue;
      this.counters.flowsEvicted++;
      this.forgetFlow(id);
    }
  }

  private nextFlow(): number {
    this.evictAt = this.evictAt + 1 < this.table.idsEnd ? this.evictAt + 1 : 0;
    return this.evictAt;
  }

  private forgetFlow(id: number): void {
    const flow = this.flow.moveTo(id);
    if (flow.tcp) this.tcpFlows--;
    flow.end();
    this.table.remove(id);
  }
}

/** Where a segment's data is in the stream: behind its SYN. */
function dataSeq(view: PacketView): number {
  return (view.tcpFlags & TCP_SYN) === 0 ? view.seq : (view.seq + 1) | 0;
}

function urgentEnd(bytes: Uint8Array, view: PacketView): number {
  return (view.seq + readU16(bytes, view.l4 + TCP.urgent)) | 0;
}
