/**
 * TCP's rule: compare by byte stream.
 *
 * Goal: a PVM segment leaves when the SVM has produced the same bytes at the same place of the stream, whatever
 * the segmentation on either side; with the lesser of both VMs' ACKs and windows (ack-rule.ts, tcp-exit.ts); and when SYN, FIN,
 * RST and urgent data match (tcp-judge.ts).
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
 * Held PVM segments of one flow leave in order of their place in the stream (tcp-held.ts). A segment whose place cannot be reached
 * waits, and a wait that exceeds its limit ends in a checkpoint, as does everything that this file does not understand.
 *
 * Plain data in order takes a lane instead: lockstep.ts, where segments pair off one to one, or cut-lane.ts.
 */

import { invariant } from '../../error.ts';
import { seqAdd, seqAtOrBefore, seqBefore, seqMax } from '../../flow/sequence.ts';
import type { Framing } from '../../frames/frame-reader.ts';
import type { Limits } from '../../limits.ts';
import { type FlowId, type FrameId, type Instant, NONE, type Seq, type SlabId } from '../../units.ts';
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
  WINDOW_SCALE_MAX,
  windowScaleOf,
} from '../../wire/tcp.ts';
import { lesserAck, noteSvmAck } from '../ack-rule.ts';
import { RULE } from '../classes.ts';
import {
  AT,
  FLAGS,
  FLOW,
  LENGTH,
  NO_FLOW,
  NO_FRAME,
  PAYLOAD,
  PAYLOAD_BYTES,
  SLAB,
  WAITS,
} from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import { LESSON } from '../lesson.ts';
import type { Rule } from '../rule.ts';
import { VERDICT, type Verdict } from '../verdict.ts';
import { bindingOf } from './binding.ts';
import { CutLane } from './cut-lane.ts';
import { LockstepLane, TAKEN } from './lockstep.ts';
import { Openings } from './openings.ts';
import { noteReleasedAck, releaseAck, settleAck, settlePendingAck, settleSegment } from './tcp-acks.ts';
import { isBareAck, TcpExit } from './tcp-exit.ts';
import {
  ACK,
  BINDING,
  HeldTcpFlow,
  NO_INDEX,
  OPTIONS,
  SEQ,
  SEQ_END,
  SIGNED,
  WINDOW_SHIFT,
} from './tcp-flow.ts';
import { SPECIAL, TcpHeld } from './tcp-held.ts';
import { TcpJudge, URGENT_END } from './tcp-judge.ts';
import { isRepeatedSyn, PLAIN_RESET_MASK, TcpQueue } from './tcp-queue.ts';
import { Unify } from './unify.ts';

/** The short ways of plain data in order. */
export type Lanes = { readonly lockstep: LockstepLane; readonly cut: CutLane };

export class TcpRule implements Rule {
  /** This rule's cursor; each method that takes a flow or a packet moves it. */
  readonly flow: HeldTcpFlow;
  readonly lanes: Lanes | null;
  readonly queue: TcpQueue;
  readonly held: TcpHeld;
  readonly exit: TcpExit;
  readonly unify: Unify;
  readonly judge: TcpJudge;
  private readonly holding: Holding;
  private readonly limits: Limits;

  constructor(holding: Holding, framing: Framing, limits: Limits, lane: 'lane' | 'no-lane') {
    this.holding = holding;
    this.limits = limits;
    this.flow = new HeldTcpFlow(holding.flowWords);
    this.queue = new TcpQueue(holding, this.flow);
    this.held = new TcpHeld(holding, this.flow);
    this.exit = new TcpExit(holding, this.flow, framing, limits);
    this.unify = new Unify(holding, this.flow, framing);
    const { flow, queue, exit, unify } = this;
    this.judge = new TcpJudge(holding, { flow, queue, exit, unify, rule: this });
    this.lanes =
      lane === 'lane'
        ? {
            lockstep: new LockstepLane(holding, this.exit),
            cut: new CutLane(holding, this.exit, this.queue, framing),
          }
        : null;
  }

  begin(id: FlowId): void {
    const flow = this.flow.moveTo(id);
    flow.pendingAckIndex = NO_INDEX;
    flow.cursor = NO_FRAME;
    flow.owed = NONE;
    flow.windowScale = WINDOW_SCALE_MAX;
  }

  end(id: FlowId): void {
    this.flow.moveTo(id);
    this.exit.forgetOwed();
  }

  primaryFrame(packet: PacketView, slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const { holding, lanes } = this;
    if ((packet.tcpFlags & TCP_SYN) !== 0) holding.sink.teach(LESSON.tcpSyn, slab, at, length);
    const flowId = holding.flowOf(packet, slab, RULE.tcp, holding.secondary, nowMs);
    if (flowId === NO_FLOW) {
      holding.holdFlowless(slab, at, length, nowMs);
      return;
    }
    const flow = this.flow.moveTo(flowId);
    if (lanes !== null && flow.primary.head === NO_FRAME) {
      const taken = lanes.lockstep.takePrimary(flow, packet, slab, at, length);
      if (taken === TAKEN.more) this.queue.dropReleased();
      if (taken !== TAKEN.no || lanes.cut.takePrimary(flow, packet, slab, at, length)) return;
    }
    const bytes = holding.slabs.buffer(slab);
    if (isBareAck(packet, bytes) && this.exit.takeAck(packet, slab, at, length)) return;
    const id = holding.hold(slab, at, length, nowMs);
    this.describe(id, flowId, packet, bytes);
    if ((packet.tcpFlags & SPECIAL) !== 0) {
      if ((packet.tcpFlags & TCP_URG) !== 0) holding.frames.words[id + URGENT_END] = urgentEnd(bytes, packet);
      if ((packet.tcpFlags & TCP_SYN) !== 0) this.describeSyn(id, packet, bytes);
    }
    // After another held segment it can only leave when that one has left.
    const isHead = this.held.enqueue(id);
    if (isHead) this.advanceHead();
    // Behind a SYN it may be of the next connection, of whose stream nothing is known.
    if (isHead ? flow.primary.head === id : flow.specialHeld === 0) this.leavePart(id, flow.released);
  }

  secondaryFrame(
    packet: PacketView,
    slab: SlabId,
    at: number,
    length: number,
    index: number,
    nowMs: Instant,
  ): void {
    const { holding, lanes } = this;
    const flowId = holding.flowOf(packet, slab, RULE.tcp, holding.primary, nowMs);
    if (flowId === NO_FLOW) {
      holding.dropFlowless();
      return;
    }
    const flow = this.flow.moveTo(flowId);
    if (lanes !== null && flow.secondary.head === NO_FRAME) {
      const taken = lanes.lockstep.takeSecondary(flow, packet, slab, index);
      if (taken === TAKEN.more) this.advanceHead();
      if (taken !== TAKEN.no) return;
    }
    const special = (packet.tcpFlags & SPECIAL) !== 0;
    const repeats = this.repeatsVerified(packet);
    const bytes = holding.slabs.buffer(slab);
    if (special && (packet.tcpFlags & TCP_URG) !== 0) {
      flow.svmUrgent = urgentEnd(bytes, packet);
      flow.svmUrgentKnown = true;
    }
    if (packet.seqLength === 0) flow.noteSvmBinding(bindingOf(bytes, packet));
    if (this.acceptSecondary(packet, bytes, index)) {
      const id = holding.holdSecondary(flow.secondary, slab, at, length, index, nowMs);
      if (id === NO_FRAME) return;
      this.describe(id, flowId, packet, bytes);
      if (special) {
        if ((packet.tcpFlags & TCP_SYN) !== 0) this.describeSyn(id, packet, bytes);
        this.queue.noteQueued(packet.tcpFlags);
      }
    }
    if (flow.primary.head !== NO_FRAME) {
      this.advanceHead();
      // The SVM waits for the client to acknowledge what the client can only have from the PVM.
      if (repeats && flow.primary.head !== NO_FRAME) this.leavePart(flow.primary.head, flow.verified);
    }
    if (flow.owed !== NONE && (packet.tcpFlags & (TCP_SYN | TCP_RST)) === 0 && !flow.diverged)
      this.exit.settleOwed(packet, slab, at, length);
    const { openings } = this.judge;
    if (openings !== null && opensConnection(packet.tcpFlags)) {
      const waiting = openings.flowWaitingFor(flowId);
      if (waiting !== NO_FLOW) this.advance(waiting);
    }
  }

  /** Pairs SYNs of different ports from now on. */
  pairOpenings(): void {
    this.judge.openings = new Openings(this.holding, this.flow, this.queue);
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
    const isSyn = (packet.tcpFlags & TCP_SYN) !== 0;
    const scale = isSyn ? scaleOf(packet, holding.slabs.buffer(slab)) : 0;
    this.noteUncompared(
      packet.tcpFlags | (packet.tcpWindow << WINDOW_SHIFT),
      dataSeq(packet),
      end,
      packet.ack as Seq,
      scale,
    );
  }

  noteCommitted(flow: FlowId, id: FrameId): void {
    const { words } = this.holding.frames;
    const isSyn = (words[id + FLAGS] & TCP_SYN) !== 0;
    // A SYN has the time of its own connection.
    if (this.flow.moveTo(flow).outOfStep && !isSyn) this.exit.raiseTime(id);
    this.noteUncompared(
      words[id + FLAGS],
      words[id + SEQ] as Seq,
      words[id + SEQ_END] as Seq,
      words[id + ACK] as Seq,
      isSyn ? this.exit.scaleOf(id) : 0,
    );
  }

  /** Of what the SVM acknowledged by itself, only what the PVM has acknowledged too is still true. */
  noteCopied(id: FlowId): boolean {
    const flow = this.flow.moveTo(id);
    flow.pendingAckIndex = NO_INDEX;
    flow.svmIsn = flow.isn;
    flow.svmAckKnown = flow.releasedAckKnown;
    flow.svmAck = flow.releasedAck;
    flow.svmWindow = flow.releasedWindow;
    flow.svmUrgentKnown = false;
    flow.svmBinding = 0;
    flow.endLending();
    flow.svmSyns = 0;
    flow.svmResets = 0;
    flow.cursor = NO_FRAME;
    flow.outOfStep = false;
    flow.latestTimeKnown = false;
    flow.copied = flow.positioned && !flow.synAgreed;
    return !flow.positioned;
  }

  /** A connection that has ended or is ending, or one that is only half open. */
  isExpendable(id: FlowId): boolean {
    const flow = this.flow.moveTo(id);
    if (!flow.positioned || flow.finReleased) return true;
    return flow.synAgreed && flow.released === seqAdd(flow.isn, 1);
  }

  /**
   * It has not begun, or an RST has ended it; for `flowResetMsMin`, if both VMs may repeat that. Or its FIN was released, or its SYN
   * lent, and nothing followed for `flowClosedMsMax`.
   */
  isOver(id: FlowId, idleMs: number): boolean {
    const { flowClosedMsMax, flowResetMsMin } = this.limits;
    const flow = this.flow.moveTo(id);
    if (flow.resetByBoth && idleMs < flowResetMsMin) return false;
    const isLong = idleMs >= flowClosedMsMax;
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
    words[id + FLAGS] = packet.tcpFlags | (packet.tcpWindow << WINDOW_SHIFT);
    words[id + SEQ] = packet.seq;
    words[id + SEQ_END] = (packet.seq + packet.seqLength) | 0;
    words[id + ACK] = packet.ack;
    const hasOptions = packet.payload - packet.l4 > TCP.headerBytesMin;
    const binding = hasOptions ? bindingOf(bytes, packet) : 0;
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
      const repeats =
        this.judge.repeatsReset(id) ||
        (seqAtOrBefore(words[id + SEQ_END] as Seq, flow.released) &&
          flow.clientHas(
            words[id + FLAGS],
            words[id + SEQ],
            words[id + SEQ_END],
            // It leaves with no more than that.
            flow.svmAckKnown ? lesserAck(flow, words[id + ACK] as Seq) : words[id + ACK],
          ));
      const verdict = this.judge.judge(id);
      if (verdict !== VERDICT.match) {
        this.keepHeld(id, verdict);
        return;
      }
      this.noteReleased(id);
      if ((words[id + FLAGS] & SPECIAL) !== 0) flow.specialHeld--;
      if (repeats) holding.releaseRepeated(flow.primary);
      else holding.releaseHead(flow.primary);
    }
    if (flow.outOfStep) this.exit.endOutOfStep();
  }

  /** A segment waits: if it begins with bytes that both VMs have sent, lets those before `end` out by themselves. */
  private leavePart(id: FrameId, end: Seq): void {
    const { flow } = this;
    const { words } = this.holding.frames;
    const seq = words[id + SEQ] as Seq;
    if (!flow.positioned || !seqBefore(seq, end) || !seqBefore(end, words[id + SEQ_END] as Seq)) return;
    if ((words[id + FLAGS] & (SPECIAL | TCP_ACK)) !== TCP_ACK || flow.diverged || flow.svmUrgentKnown) return;
    if (this.judge.reachesIntoUnknown(seq, words[id + SEQ_END] as Seq)) return;
    this.exit.leavePart(id, end);
    this.queue.dropReleased();
  }

  /** Returns true if an SVM segment says what it has said before, and the client does not have all of it. */
  private repeatsVerified(packet: PacketView): boolean {
    const { flow } = this;
    if (flow.verified === flow.released || packet.payloadBytes === 0 || !flow.positioned) return false;
    const end = seqAdd(packet.seq as Seq, packet.seqLength);
    return seqAtOrBefore(end, flow.verified) && seqBefore(flow.released, end);
  }

  private keepHeld(id: FrameId, verdict: Verdict): void {
    const { holding, judge } = this;
    if (verdict === VERDICT.diverged) holding.diverge(this.flow, judge.reason, id, judge.different);
    else holding.frames.words[id + WAITS] = verdict;
  }

  /** A PVM segment with the verdict `match` leaves: records what the client has now. */
  private noteReleased(id: FrameId): void {
    const { flow, queue } = this;
    const { words } = this.holding.frames;
    const flags = words[id + FLAGS];
    if ((flags & TCP_RST) !== 0) {
      if (!this.judge.repeatsReset(id)) this.noteReset();
      return;
    }
    flow.released = seqMax(flow.released, words[id + SEQ_END] as Seq);
    invariant(
      seqAtOrBefore(flow.released, flow.verified),
      'TCP bytes were released that the SVM has not sent',
    );
    if ((flags & TCP_FIN) !== 0) flow.finReleased = true;
    if ((flags & TCP_ACK) !== 0) this.tellAck(id);
    queue.dropReleased();
  }

  private noteReset(): void {
    const { holding, flow, queue } = this;
    this.judge.endByReset();
    queue.dropReset();
    if (flow.resetByBoth) queue.dropRepeatedResets();
    settlePendingAck(holding, flow);
  }

  private tellAck(id: FrameId): void {
    const { holding, flow } = this;
    const { words } = holding.frames;
    const ack = words[id + ACK] as Seq;
    const window = words[id + FLAGS] >>> WINDOW_SHIFT;
    if ((words[id + FLAGS] & TCP_SYN) !== 0) releaseAck(holding, flow, ack, window >>> flow.windowScale);
    else this.exit.tell(words[id + SLAB] as SlabId, words[id + AT], words[id + LENGTH], ack, window);
  }

  /**
   * A PVM segment leaves without a counterpart, at a commit or alone: PVM and SVM are equal after it. The arguments are as in its
   * columns; `windowScale` is that of a SYN.
   */
  private noteUncompared(flags: number, seq: Seq, seqEnd: Seq, ack: Seq, windowScale: number): void {
    const { flow } = this;
    if ((flags & TCP_RST) !== 0) {
      this.judge.endByReset();
      return;
    }
    let window = flags >>> WINDOW_SHIFT;
    if ((flags & TCP_SYN) !== 0) {
      const isn = seqAdd(seq, -1);
      if (!(flow.synAgreed && flow.isn === isn)) this.judge.beginConnection(isn, windowScale);
      window >>>= flow.windowScale;
      flow.svmIsn = isn;
    } else if (!flow.positioned) flow.positionAt(seq);
    // After a gap, or before all that is known: nothing before this segment is known.
    else if (seqBefore(flow.released, seq) || this.judge.reachesIntoUnknown(seq, seqEnd)) flow.first = seq;
    flow.verified = seqMax(flow.verified, seqEnd);
    flow.released = seqMax(flow.released, seqEnd);
    if ((flags & TCP_FIN) !== 0) flow.finReleased = true;
    if ((flags & TCP_ACK) !== 0) noteReleasedAck(flow, ack, window);
  }

  /** Records what an SVM segment acknowledges, and settles it if it has nothing else to say; returns true if it must be queued. */
  private acceptSecondary(packet: PacketView, bytes: Uint8Array, index: number): boolean {
    const { holding, flow } = this;
    const flags = packet.tcpFlags;
    const seq = packet.seq as Seq;
    const ack = packet.ack as Seq;
    if ((flags & TCP_RST) !== 0) {
      if (!flow.resetByBoth || !isPlainReset(packet, bytes)) return true;
      // The client has it from both.
      holding.sink.confirm(index);
      return false;
    }
    flow.resetByBoth = false;
    if ((flags & TCP_SYN) !== 0) {
      if (!isRepeatedSyn(flow, seq) || flow.svmSyns > 0) return true;
      // In a simultaneous open the SYN is repeated with an ACK.
      if ((flags & TCP_ACK) !== 0) noteSvmAck(flow, ack, packet.tcpWindow >>> flow.windowScale);
      settleSegment(holding, flow, index, flags, ack);
      return false;
    }
    // After a SYN that the PVM has not sent yet, it belongs to the connection to come.
    if (flow.svmSyns > 0) return true;
    if ((flags & TCP_ACK) !== 0) noteSvmAck(flow, ack, packet.tcpWindow);
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

/** Returns true for an RST that says that there is no connection, and nothing else. */
function isPlainReset(packet: PacketView, bytes: Uint8Array): boolean {
  if ((packet.tcpFlags & PLAIN_RESET_MASK) !== TCP_RST || packet.seqLength > 0) return false;
  return bindingOf(bytes, packet) === 0;
}

/** By how many bits the sender of a SYN shifts its windows. */
function scaleOf(packet: PacketView, bytes: Uint8Array): number {
  return windowScaleOf(bytes, packet.l4 + TCP.headerBytesMin, packet.payload);
}

function urgentEnd(bytes: Uint8Array, packet: PacketView): Seq {
  return seqAdd(packet.seq as Seq, readU16(bytes, packet.l4 + TCP.urgent));
}
