/**
 * May a PVM segment leave? The verdicts of TCP's rule (tcp.ts), and what is noted on the way: where a stream is, how far both
 * VMs have sent the same, which connection begins.
 */
import { seqAdd, seqAtOrBefore, seqBefore, seqDiff } from '../../flow/sequence.ts';
import type { FrameId, Seq, SlabId } from '../../units.ts';
import { TCP_ACK, TCP_RST, TCP_SYN, TCP_URG } from '../../wire/tcp.ts';
import { ackMayLeave, noteSvmAck } from '../ack-rule.ts';
import { AT, FLAGS, INDEX, LENGTH, NO_FRAME, PAYLOAD_BYTES, SLAB } from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import type { Rule } from '../rule.ts';
import { type DivergenceReason, VERDICT, type Verdict } from '../verdict.ts';
import { bindAlike } from './binding.ts';
import type { Openings } from './openings.ts';
import type { TcpExit } from './tcp-exit.ts';
import { ACK, BINDING, type HeldTcpFlow, OPTIONS, SEQ, SEQ_END, SIGNED, WINDOW_SHIFT } from './tcp-flow.ts';
import { SPECIAL } from './tcp-held.ts';
import { PLAIN_RESET_MASK, type TcpQueue } from './tcp-queue.ts';
import type { Unify } from './unify.ts';

/** In a PVM segment, which has no index: where its urgent data ends. */
export const URGENT_END = INDEX;

export class TcpJudge {
  /**
   * The secondary knows every SYN of the PVM and sends its VM's own in the PVM's number. A SYN of the PVM then leaves only
   * against one with that number, which proves that the secondary could continue the connection (rule 1).
   */
  taught = false;
  /** Without that: pairs SYNs of different ports (openings.ts). */
  openings: Openings | null = null;
  /* Of the last verdict `diverged`. */
  reason: DivergenceReason = 'diverged-bytes';
  different = NO_FRAME;
  private readonly holding: Holding;
  /** TCP's cursor: positioned by the caller */
  private readonly flow: HeldTcpFlow;
  private readonly queue: TcpQueue;
  private readonly exit: TcpExit;
  private readonly unify: Unify;
  private readonly rule: Pick<Rule, 'equal'>;

  constructor(
    holding: Holding,
    parts: { flow: HeldTcpFlow; queue: TcpQueue; exit: TcpExit; unify: Unify; rule: Pick<Rule, 'equal'> },
  ) {
    this.holding = holding;
    this.flow = parts.flow;
    this.queue = parts.queue;
    this.exit = parts.exit;
    this.unify = parts.unify;
    this.rule = parts.rule;
  }

  /** Returns whether the head of the PVM's queue may leave now. */
  judge(id: FrameId): Verdict {
    const { flow } = this;
    const { words } = this.holding.frames;
    const flags = words[id + FLAGS];
    if ((flags & TCP_RST) !== 0)
      return flow.svmResets === 0 && !this.repeatsReset(id) ? VERDICT.waitForBytes : VERDICT.match;
    const seq = words[id + SEQ] as Seq;
    if ((flags & TCP_SYN) !== 0) {
      const verdict = this.judgeSyn(id);
      if (verdict !== VERDICT.match) return verdict;
    } else if (!flow.positioned) flow.positionAt(seq);
    else if (seq !== flow.verified) {
      if (flow.beganWithKeepAliveBefore(seq) || this.bothGoOnAt(seq)) flow.positionAt(seq);
      else if (this.reachesIntoUnknown(seq, words[id + SEQ_END] as Seq)) return VERDICT.waitForBytes;
    }

    const verdict = this.verify(id);
    if (verdict !== VERDICT.match) return verdict;
    // A segment with sequence numbers was compared in `verify`, or repeats what the client has.
    if ((flags & BINDING) !== 0 && seq === words[id + SEQ_END] && flow.svmBinding !== words[id + OPTIONS])
      return VERDICT.waitForBytes;
    if ((flags & TCP_URG) !== 0 || flow.svmUrgentKnown) {
      const urgent = this.judgeUrgent(id);
      if (urgent !== VERDICT.match) return urgent;
    }
    if ((flags & TCP_ACK) === 0 || ackMayLeave(flow, words[id + ACK] as Seq)) return VERDICT.match;
    return this.mayBeLowered(id) ? VERDICT.match : VERDICT.waitForAck;
  }

  /**
   * Whether a PVM segment is an RST that says no more than the one that both VMs have sent: it answers, by its number alone, a
   * segment of the client for which there is no connection. A VM that is still closing its socket answers several with one.
   */
  repeatsReset(id: FrameId): boolean {
    const { words } = this.holding.frames;
    return (
      (words[id + FLAGS] & PLAIN_RESET_MASK) === TCP_RST &&
      words[id + SEQ] === words[id + SEQ_END] &&
      this.flow.resetByBoth
    );
  }

  /**
   * Whether both VMs go on after a gap. Of a connection that was first seen in its middle, by a retransmission, the client has what
   * follows from a primary that is gone; neither VM sends that again. The SVM's retransmission may have been longer than the PVM's.
   */
  private bothGoOnAt(seq: Seq): boolean {
    const { flow, queue } = this;
    if (flow.synAgreed || flow.verified !== flow.released || !seqBefore(flow.released, seq)) return false;
    const next = queue.covering(seq);
    const { words } = this.holding.frames;
    if (next === NO_FRAME || (words[next + FLAGS] & SPECIAL) !== 0 || words[next + SEQ] !== seq) return false;
    return queue.covering(seqAdd(seq, -1)) === NO_FRAME;
  }

  /** Whether a segment whose ACK is ahead of the SVM's may leave with a lesser one. */
  private mayBeLowered(id: FrameId): boolean {
    const { words } = this.holding.frames;
    // What a SYN acknowledges was settled before the first ACK.
    if ((words[id + FLAGS] & TCP_SYN) !== 0) return false;
    const ack = words[id + ACK] as Seq;
    return this.exit.mayLeave(words[id + SLAB] as SlabId, words[id + AT], words[id + LENGTH], ack);
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
    if (flow.synAgreed && isn === flow.isn) {
      this.lowerRepeatedSyn(id);
      return VERDICT.match;
    }
    if ((words[id + FLAGS] & SIGNED) !== 0) return this.differs('diverged-signed', NO_FRAME);
    if (flow.svmSyns === 0) {
      const { openings } = this;
      if (openings === null || !openings.takeCounterpart(id)) return VERDICT.waitForBytes;
      this.lowerWindow(id, openings.window);
      this.beginConnection(isn, this.exit.scaleOf(id));
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
    this.beginConnection(isn, this.exit.scaleOf(id));
    flow.svmIsn = seqAdd(words[syn + SEQ] as Seq, -1);
    const window = words[syn + FLAGS] >>> WINDOW_SHIFT;
    if ((words[syn + FLAGS] & TCP_ACK) !== 0)
      noteSvmAck(flow, words[syn + ACK] as Seq, window >>> flow.windowScale);
    this.lowerWindow(id, window);
    queue.takeSyn();
    queue.adopt();
    return VERDICT.match;
  }

  /** A SYN that has left before: like the first one, with no more room than the SVM has. */
  private lowerRepeatedSyn(id: FrameId): void {
    const { flow } = this;
    const { words } = this.holding.frames;
    if ((words[id + FLAGS] & TCP_ACK) === 0 || !flow.svmAckKnown) return;
    const room = (flow.svmWindow << flow.windowScale) + seqDiff(flow.svmAck, words[id + ACK] as Seq);
    this.lowerWindow(id, Math.max(room, 0));
  }

  private lowerWindow(id: FrameId, window: number): void {
    if (window < this.holding.frames.words[id + FLAGS] >>> WINDOW_SHIFT) this.exit.lowerSynWindow(id, window);
  }

  beginConnection(isn: Seq, windowScale: number): void {
    const { flow } = this;
    this.forgetConnection();
    flow.windowScale = windowScale;
    flow.synAgreed = true;
    flow.isn = isn;
    flow.positionAt(seqAdd(isn, 1));
    // The SYN's own number has left: a keep-alive with a byte of garbage repeats it (RFC 9293 section 3.8.4).
    flow.first = isn;
  }

  /** The client is told that the connection is gone: by both VMs, or at a commit, after which they are equal. */
  endByReset(): void {
    const { flow } = this;
    // After the SVM's next SYN an RST may be of another connection.
    if (flow.isPastOpening && flow.svmSyns === 0) flow.resetByBoth = true;
    this.forgetConnection();
  }

  private forgetConnection(): void {
    this.exit.forgetOwed();
    this.flow.forgetConnection();
  }

  /** Returns true if a segment repeats bytes that were never seen to leave: it is not known to be a retransmission. */
  reachesIntoUnknown(seq: Seq, seqEnd: Seq): boolean {
    return seq !== seqEnd && this.flow.isBeforeKnown(seq);
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
      const binds = ((words[id + FLAGS] | words[other + FLAGS]) & BINDING) !== 0;
      if (binds && !bindAlike(words, id, other)) return this.differs('diverged-flags', other);
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
      if (!this.rule.equal(id, skip, other, otherSkip, bytes)) {
        if ((skip | otherSkip) === 0 && this.unify.teach(id, other)) continue;
        return this.differs('diverged-bytes', other);
      }
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
}
