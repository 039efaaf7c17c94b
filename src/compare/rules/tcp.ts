/**
 * TCP's rule: compare by byte stream.
 *
 * Goal: a PVM segment leaves when the SVM has produced the same bytes at the same place of the stream, whatever
 * the segmentation on either side; when its ACK is covered (ack-rule.ts); and when SYN, FIN, RST and urgent data match.
 *
 * Tracked per flow (tcp-flow.ts), in the client's sequence space: `verified`, `released`, `first`, `svmAck`. A FIN takes one
 * sequence number after the last byte and is compared like one; data on a SYN is compared like any other. SVM segments
 * stay queued until the client has their bytes from the PVM (tcp-queue.ts), and unconfirmed until it has their ACK (tcp-acks.ts).
 *
 * Tolerated, because a TCP receiver cannot tell or does not care: segmentation, overlap, retransmission, pushes,
 * windows, options (SACK is advice, RFC 2018 section 8), timestamps, IP ids, and an SVM that is ahead. Not tolerated:
 * different bytes at one place, a FIN where the other has data, or the reverse; a SYN with ACK against one without, or
 * with options that settle something else (as SYN cookies do, which a flood makes one VM use before the other); urgent
 * data that ends elsewhere.
 *
 * Trusted: a VM's TCP retransmits what it sent before. Released bytes are not retained, so a retransmission of them is not
 * compared again.
 *
 * PVM segments of one flow leave in order. A segment whose place in the stream cannot be reached waits, and a wait that
 * exceeds its limit ends in a checkpoint, as does everything that this file does not understand.
 *
 * Segments that pair off one to one take the lock-step lane (lockstep.ts) instead.
 */

import { invariant } from '../../error.ts';
import {
  SEQ_WINDOW_MAX,
  seqAdd,
  seqAtOrBefore,
  seqBefore,
  seqDiff,
  seqMax,
  seqWithinWindowBefore,
} from '../../flow/sequence.ts';
import type { Limits } from '../../limits.ts';
import type { FlowId, FrameId, Instant, Seq, SlabId } from '../../units.ts';
import { readU16 } from '../../wire/bytes.ts';
import type { PacketView } from '../../wire/packet.ts';
import {
  isSigned,
  opensConnection,
  settledOptions,
  TCP,
  TCP_ACK,
  TCP_FIN,
  TCP_RST,
  TCP_SYN,
  TCP_URG,
} from '../../wire/tcp.ts';
import { ackMayLeave, noteSvmAck } from '../ack-rule.ts';
import { RULE } from '../classes.ts';
import { FLAGS, FLOW, INDEX, NO_FLOW, NO_FRAME, PAYLOAD, PAYLOAD_BYTES, WAITS } from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import { LESSON } from '../lesson.ts';
import type { Rule } from '../rule.ts';
import { type DivergenceReason, VERDICT, type Verdict } from '../verdict.ts';
import { bindAlike, bindingOf } from './binding.ts';
import { LockstepLane, TAKEN } from './lockstep.ts';
import { Openings } from './openings.ts';
import { noteReleasedAck, releaseAck, settleAck, settlePendingAck, settleSegment } from './tcp-acks.ts';
import { ACK, BINDING, HeldTcpFlow, NO_INDEX, OPTIONS, SEQ, SEQ_END, SIGNED } from './tcp-flow.ts';
import { isRepeatedSyn, TcpQueue } from './tcp-queue.ts';

/** Flags that need more than a byte comparison. */
const SPECIAL = TCP_SYN | TCP_RST | TCP_URG;
/** In a PVM segment, which has no index: where its urgent data ends. */
const URGENT_END = INDEX;

export class TcpRule implements Rule {
  /** This rule's cursor; each method that takes a flow or a packet moves it. */
  readonly flow: HeldTcpFlow;
  readonly lane: LockstepLane | null;
  /**
   * The secondary knows every SYN of the PVM and sends its VM's own in the PVM's number. A SYN of the PVM then leaves only
   * against one with that number, which proves that the secondary could continue the connection (rule 1).
   */
  taught = false;
  /** Without that: pairs SYNs of different ports (openings.ts). */
  private openings: Openings | null = null;
  readonly queue: TcpQueue;
  private readonly holding: Holding;
  private readonly limits: Limits;
  /* Of the last verdict `diverged`. */
  private reason: DivergenceReason = 'diverged-bytes';
  private different = NO_FRAME;

  constructor(holding: Holding, limits: Limits, lane: 'lane' | 'no-lane') {
    this.holding = holding;
    this.limits = limits;
    this.flow = new HeldTcpFlow(holding.flowWords);
    this.queue = new TcpQueue(holding, this.flow);
    this.lane = lane === 'lane' ? new LockstepLane(holding) : null;
  }

  begin(id: FlowId): void {
    const flow = this.flow.moveTo(id);
    flow.pendingAckIndex = NO_INDEX;
    flow.cursor = NO_FRAME;
  }

  primaryFrame(packet: PacketView, slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const { holding, lane } = this;
    if ((packet.tcpFlags & TCP_SYN) !== 0) holding.sink.teach(LESSON.tcpSyn, slab, at, length);
    const flowId = holding.flowOf(packet, slab, RULE.tcp, holding.secondary, nowMs);
    if (flowId === NO_FLOW) {
      holding.holdFlowless(slab, at, length, nowMs);
      return;
    }
    const flow = this.flow.moveTo(flowId);
    const first = flow.primary.head === NO_FRAME;
    if (first && lane !== null) {
      const taken = lane.takePrimary(flow, packet, slab, at, length);
      if (taken === TAKEN.more) this.queue.dropReleased();
      if (taken !== TAKEN.no) return;
    }
    const id = holding.hold(slab, at, length, nowMs);
    const bytes = holding.slabs.buffer(slab);
    this.describe(id, flowId, packet, bytes);
    if ((packet.tcpFlags & SPECIAL) !== 0) {
      if ((packet.tcpFlags & TCP_URG) !== 0) holding.frames.words[id + URGENT_END] = urgentEnd(bytes, packet);
      if ((packet.tcpFlags & TCP_SYN) !== 0) this.describeSyn(id, packet, bytes);
    }
    holding.frames.enqueue(flow.primary, id);
    // After another held segment it can only leave when that one has left.
    if (first) this.advanceHead();
    else holding.noteShare(flow.primary);
  }

  secondaryFrame(
    packet: PacketView,
    slab: SlabId,
    at: number,
    length: number,
    index: number,
    nowMs: Instant,
  ): void {
    const { holding, lane } = this;
    const flowId = holding.flowOf(packet, slab, RULE.tcp, holding.primary, nowMs);
    if (flowId === NO_FLOW) {
      holding.dropFlowless();
      return;
    }
    const flow = this.flow.moveTo(flowId);
    if (lane !== null && flow.secondary.head === NO_FRAME) {
      const taken = lane.takeSecondary(flow, packet, slab, index);
      if (taken === TAKEN.more) this.advanceHead();
      if (taken !== TAKEN.no) return;
    }
    const special = (packet.tcpFlags & SPECIAL) !== 0;
    const bytes = holding.slabs.buffer(slab);
    if (special && (packet.tcpFlags & TCP_URG) !== 0) {
      flow.svmUrgent = urgentEnd(bytes, packet);
      flow.svmUrgentKnown = true;
    }
    if (packet.seqLength === 0) flow.noteSvmBinding(bindingOf(bytes, packet));
    if (this.acceptSecondary(packet, index)) {
      const id = holding.holdSecondary(flow.secondary, slab, at, length, index, nowMs);
      if (id === NO_FRAME) return;
      this.describe(id, flowId, packet, bytes);
      if (special) {
        if ((packet.tcpFlags & TCP_SYN) !== 0) this.describeSyn(id, packet, bytes);
        this.queue.noteQueued(packet.tcpFlags);
      }
    }
    if (flow.primary.head !== NO_FRAME) this.advanceHead();
    if (this.openings !== null && opensConnection(packet.tcpFlags)) {
      const waiting = this.openings.flowWaitingFor(flowId);
      if (waiting !== NO_FLOW) this.advance(waiting);
    }
  }

  /** Pairs SYNs of different ports from now on. */
  pairOpenings(): void {
    this.openings = new Openings(this.holding, this.flow, this.queue);
  }

  advance(id: FlowId): void {
    this.flow.moveTo(id);
    this.advanceHead();
  }

  noteAlone(packet: PacketView, slab: SlabId, nowMs: Instant): void {
    const { holding } = this;
    const id = holding.flowOf(packet, slab, RULE.tcp, holding.secondary, nowMs);
    if (id === NO_FLOW) return;
    this.flow.moveTo(id);
    const end = seqAdd(packet.seq as Seq, packet.seqLength);
    this.noteUncompared(packet.tcpFlags, dataSeq(packet), end, packet.ack as Seq);
  }

  noteCommitted(flow: FlowId, id: FrameId): void {
    const { words } = this.holding.frames;
    this.flow.moveTo(flow);
    this.noteUncompared(
      words[id + FLAGS],
      words[id + SEQ] as Seq,
      words[id + SEQ_END] as Seq,
      words[id + ACK] as Seq,
    );
  }

  /** Of what the SVM acknowledged by itself, only what the PVM has acknowledged too is still true. */
  noteCopied(id: FlowId): boolean {
    const flow = this.flow.moveTo(id);
    flow.pendingAckIndex = NO_INDEX;
    flow.svmIsn = flow.isn;
    flow.svmAckKnown = flow.releasedAckKnown;
    flow.svmAck = flow.releasedAck;
    flow.svmUrgentKnown = false;
    flow.svmBinding = 0;
    flow.endLending();
    flow.svmSyns = 0;
    flow.svmResets = 0;
    flow.cursor = NO_FRAME;
    return !flow.positioned;
  }

  /** A connection that has ended or is ending, or one that is only half open. */
  isExpendable(id: FlowId): boolean {
    const flow = this.flow.moveTo(id);
    if (!flow.positioned || flow.finReleased) return true;
    return flow.synAgreed && flow.released === seqAdd(flow.isn, 1);
  }

  /**
   * An RST has ended it, or it has not begun; or its FIN was released, or its SYN lent, and nothing followed for
   * `flowClosedMsMax`.
   */
  isOver(id: FlowId, idleMs: number): boolean {
    const flow = this.flow.moveTo(id);
    const isLong = idleMs >= this.limits.flowClosedMsMax;
    return flow.positioned ? flow.finReleased && isLong : !flow.synLent || isLong;
  }

  owesConfirm(id: FlowId): boolean {
    return this.flow.moveTo(id).pendingAckIndex !== NO_INDEX;
  }

  equal(frame: FrameId, offset: number, other: FrameId, otherOffset: number, bytes: number): boolean {
    return this.holding.samePayload(frame, offset, other, otherOffset, bytes);
  }

  /** Writes what the packet says into a held frame's columns. */
  private describe(id: FrameId, flow: FlowId, packet: PacketView, bytes: Uint8Array): void {
    const { words } = this.holding.frames;
    words[id + FLOW] = flow;
    words[id + PAYLOAD] = packet.payload;
    words[id + PAYLOAD_BYTES] = packet.payloadBytes;
    words[id + FLAGS] = packet.tcpFlags;
    words[id + SEQ] = packet.seq;
    words[id + SEQ_END] = (packet.seq + packet.seqLength) | 0;
    words[id + ACK] = packet.ack;
    const binding = bindingOf(bytes, packet);
    words[id + OPTIONS] = binding;
    if (binding !== 0 && (packet.tcpFlags & TCP_SYN) === 0) words[id + FLAGS] |= BINDING;
  }

  private describeSyn(id: FrameId, packet: PacketView, bytes: Uint8Array): void {
    const { words } = this.holding.frames;
    const options = packet.l4 + TCP.headerBytesMin;
    words[id + SEQ] = dataSeq(packet);
    if (isSigned(bytes, options, packet.payload)) words[id + FLAGS] |= SIGNED;
    words[id + OPTIONS] ^= settledOptions(bytes, options, packet.payload);
  }

  /** A PVM segment was queued or the SVM has moved: releases what may leave now. */
  private advanceHead(): void {
    const { holding, flow } = this;
    const { words } = holding.frames;
    while (flow.primary.head !== NO_FRAME && !flow.diverged) {
      const id = flow.primary.head;
      const repeats = flow.clientHas(
        words[id + FLAGS],
        words[id + SEQ],
        words[id + SEQ_END],
        words[id + ACK],
      );
      const verdict = this.judge(id);
      if (verdict !== VERDICT.match) {
        this.keepHeld(id, verdict);
        return;
      }
      this.noteReleased(id);
      if (repeats) holding.releaseRepeated(flow.primary);
      else holding.releaseHead(flow.primary);
    }
  }

  private keepHeld(id: FrameId, verdict: Verdict): void {
    const { holding } = this;
    if (verdict === VERDICT.diverged) holding.diverge(this.flow, this.reason, id, this.different);
    else holding.frames.words[id + WAITS] = verdict;
  }

  private judge(id: FrameId): Verdict {
    const { flow } = this;
    const { words } = this.holding.frames;
    const flags = words[id + FLAGS];
    if ((flags & TCP_RST) !== 0) return flow.svmResets === 0 ? VERDICT.waitForBytes : VERDICT.match;
    const seq = words[id + SEQ] as Seq;
    if ((flags & TCP_SYN) !== 0) {
      const verdict = this.judgeSyn(id);
      if (verdict !== VERDICT.match) return verdict;
    } else if (!flow.positioned) flow.positionAt(seq);
    else if (seq !== flow.verified && this.reachesIntoUnknown(seq, words[id + SEQ_END] as Seq))
      return VERDICT.waitForBytes;

    const verdict = this.verify(id);
    if (verdict !== VERDICT.match) return verdict;
    // A segment with sequence numbers was compared in `verify`, or repeats what the client has.
    if ((flags & BINDING) !== 0 && seq === words[id + SEQ_END] && flow.svmBinding !== words[id + OPTIONS])
      return VERDICT.waitForBytes;
    if ((flags & TCP_URG) !== 0 || flow.svmUrgentKnown) {
      const urgent = this.judgeUrgent(id);
      if (urgent !== VERDICT.match) return urgent;
    }
    if ((flags & TCP_ACK) !== 0 && !ackMayLeave(flow, words[id + ACK] as Seq)) return VERDICT.waitForAck;
    return VERDICT.match;
  }

  private differs(reason: DivergenceReason, other: FrameId): Verdict {
    this.reason = reason;
    this.different = other;
    return VERDICT.diverged;
  }

  private judgeSyn(id: FrameId): Verdict {
    const { flow, queue } = this;
    const { words } = this.holding.frames;
    const isn = seqAdd(words[id + SEQ] as Seq, -1);
    if (flow.synAgreed && isn === flow.isn) return VERDICT.match;
    if ((words[id + FLAGS] & SIGNED) !== 0) return this.differs('diverged-signed', NO_FRAME);
    if (flow.svmSyns === 0) {
      if (this.openings?.takeCounterpart(id) !== true) return VERDICT.waitForBytes;
      this.beginConnection(isn);
      flow.svmIsn = isn;
      return VERDICT.match;
    }
    // A new connection. What the SVM sent before its own SYN belongs to an older one on the same ports.
    queue.dropToSyn();
    if (this.taught && !queue.dropToSynWithSeq(words[id + SEQ] as Seq)) return VERDICT.waitForBytes;
    const syn = flow.secondary.head;
    const ackDiffers = ((words[syn + FLAGS] ^ words[id + FLAGS]) & TCP_ACK) !== 0;
    if (ackDiffers || words[syn + OPTIONS] !== words[id + OPTIONS])
      return this.differs('diverged-flags', syn);
    this.beginConnection(isn);
    flow.svmIsn = seqAdd(words[syn + SEQ] as Seq, -1);
    if ((words[syn + FLAGS] & TCP_ACK) !== 0) noteSvmAck(flow, words[syn + ACK] as Seq);
    queue.takeSyn();
    queue.adopt();
    return VERDICT.match;
  }

  private beginConnection(isn: Seq): void {
    const { flow } = this;
    flow.forgetConnection();
    flow.synAgreed = true;
    flow.isn = isn;
    flow.positionAt(seqAdd(isn, 1));
  }

  /**
   * Returns true if a segment has bytes before `first`: it repeats bytes that were never seen to leave, so it is not known to
   * be a retransmission. Moves `first` along, to at most a window before `released`: the order of numbers further apart is unknown.
   */
  private reachesIntoUnknown(seq: Seq, seqEnd: Seq): boolean {
    const { flow } = this;
    if (seq === seqEnd) return false;
    if (!seqWithinWindowBefore(flow.first, flow.released))
      flow.first = seqAdd(flow.released, -SEQ_WINDOW_MAX);
    return seqBefore(seq, flow.first);
  }

  /** Moves `verified` through the PVM segment as far as the SVM's segments reach. */
  private verify(id: FrameId): Verdict {
    const { flow } = this;
    const { words } = this.holding.frames;
    const seq = words[id + SEQ] as Seq;
    const end = words[id + SEQ_END] as Seq;
    while (seqBefore(flow.verified, end)) {
      if (seqBefore(flow.verified, seq)) return VERDICT.waitForBytes;
      const other = this.queue.covering(flow.verified);
      if (other === NO_FRAME) return VERDICT.waitForBytes;
      if (!bindAlike(words, id, other)) return this.differs('diverged-flags', other);
      const skip = seqDiff(flow.verified, seq);
      const otherSkip = seqDiff(flow.verified, words[other + SEQ] as Seq);
      const left = words[id + PAYLOAD_BYTES] - skip;
      const otherLeft = words[other + PAYLOAD_BYTES] - otherSkip;
      if (left === 0 || otherLeft === 0) {
        // One side's FIN is here. Both must have it at the same place.
        if (left !== 0 || otherLeft !== 0) return this.differs('diverged-flags', other);
        flow.verified = seqAdd(flow.verified, 1);
        continue;
      }
      const bytes = Math.min(left, otherLeft);
      if (!this.equal(id, skip, other, otherSkip, bytes)) return this.differs('diverged-bytes', other);
      flow.verified = seqAdd(flow.verified, bytes);
    }
    return VERDICT.match;
  }

  /** Urgent data that the client does not have yet has to end at the same place in both VMs. */
  private judgeUrgent(id: FrameId): Verdict {
    const { flow } = this;
    const { words } = this.holding.frames;
    if ((words[id + FLAGS] & TCP_URG) !== 0) {
      const urgent = words[id + URGENT_END] as Seq;
      if (seqAtOrBefore(urgent, flow.released)) return VERDICT.match;
      return flow.svmUrgentKnown && flow.svmUrgent === urgent ? VERDICT.match : VERDICT.waitForBytes;
    }
    const urgent = flow.svmUrgent;
    const within =
      seqBefore(words[id + SEQ] as Seq, urgent) && seqAtOrBefore(urgent, words[id + SEQ_END] as Seq);
    if (within && seqBefore(flow.released, urgent)) return this.differs('diverged-flags', NO_FRAME);
    return VERDICT.match;
  }

  /** A PVM segment with the verdict `match` leaves: records what the client has now. */
  private noteReleased(id: FrameId): void {
    const { holding, flow, queue } = this;
    const { words } = holding.frames;
    const flags = words[id + FLAGS];
    if ((flags & TCP_RST) !== 0) {
      flow.forgetConnection();
      queue.dropReset();
      settlePendingAck(holding, flow);
      return;
    }
    flow.released = seqMax(flow.released, words[id + SEQ_END] as Seq);
    invariant(
      seqAtOrBefore(flow.released, flow.verified),
      'TCP bytes were released that the SVM has not sent',
    );
    if ((flags & TCP_FIN) !== 0) flow.finReleased = true;
    if ((flags & TCP_ACK) !== 0) releaseAck(holding, flow, words[id + ACK] as Seq);
    queue.dropReleased();
  }

  /** A PVM segment leaves without a counterpart, at a commit or alone: PVM and SVM are equal after it. `seq` as in SEQ. */
  private noteUncompared(flags: number, seq: Seq, seqEnd: Seq, ack: Seq): void {
    const { flow } = this;
    if ((flags & TCP_RST) !== 0) {
      flow.forgetConnection();
      return;
    }
    if ((flags & TCP_SYN) !== 0) {
      const isn = seqAdd(seq, -1);
      if (!(flow.synAgreed && flow.isn === isn)) this.beginConnection(isn);
      flow.svmIsn = isn;
    } else if (!flow.positioned) flow.positionAt(seq);
    // After a gap, or before all that is known: nothing before this segment is known.
    else if (seqBefore(flow.released, seq) || this.reachesIntoUnknown(seq, seqEnd)) flow.first = seq;
    flow.verified = seqMax(flow.verified, seqEnd);
    flow.released = seqMax(flow.released, seqEnd);
    if ((flags & TCP_FIN) !== 0) flow.finReleased = true;
    if ((flags & TCP_ACK) !== 0) noteReleasedAck(flow, ack);
  }

  /** Records what an SVM segment acknowledges, and settles it if it has nothing else to say; returns true if it must be queued. */
  private acceptSecondary(packet: PacketView, index: number): boolean {
    const { holding, flow } = this;
    const flags = packet.tcpFlags;
    const seq = packet.seq as Seq;
    const ack = packet.ack as Seq;
    if ((flags & TCP_RST) !== 0) return true;
    if ((flags & TCP_SYN) !== 0) {
      if (!isRepeatedSyn(flow, seq) || flow.svmSyns > 0) return true;
      // In a simultaneous open the SYN is repeated with an ACK.
      if ((flags & TCP_ACK) !== 0) noteSvmAck(flow, ack);
      settleSegment(holding, flow, index, flags, ack);
      return false;
    }
    // After a SYN that the PVM has not sent yet, it belongs to the connection to come.
    if (flow.svmSyns > 0) return true;
    if ((flags & TCP_ACK) !== 0) noteSvmAck(flow, ack);
    const seqEnd = seqAdd(seq, packet.seqLength);
    if (seq === seqEnd) {
      settleAck(holding, flow, index, ack);
      return false;
    }
    if (flow.positioned && seqAtOrBefore(seqEnd, flow.released)) {
      settleSegment(holding, flow, index, flags, ack);
      return false;
    }
    return true;
  }
}

/** Returns where a segment's data is in the stream: after its SYN. */
function dataSeq(packet: PacketView): Seq {
  return seqAdd(packet.seq as Seq, (packet.tcpFlags & TCP_SYN) === 0 ? 0 : 1);
}

function urgentEnd(bytes: Uint8Array, packet: PacketView): Seq {
  return seqAdd(packet.seq as Seq, readU16(bytes, packet.l4 + TCP.urgent));
}
