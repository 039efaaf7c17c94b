/**
 * The SVM's segments of one connection that wait for their PVM counterparts, in order of arrival.
 *
 * A segment is dropped when the client has its bytes from the PVM, or when a later connection on the same ports makes it
 * void. SYNs and RSTs are counted (`svmSyns`; `svmResets`, those before the first SYN), so that no search is made for one that
 * is not there.
 *
 * Limits: a search for bytes gives up after SCAN_MAX segments; the PVM's segment then waits.
 */
import { invariant } from '../../error.ts';
import { seqAdd, seqAtOrBefore, seqBefore, seqDiff } from '../../flow/sequence.ts';
import type { FrameId, Seq } from '../../units.ts';
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, TCP_URG } from '../../wire/tcp.ts';
import { noteSvmAck } from '../ack-rule.ts';
import { FLAGS, INDEX, NEXT, NO_FRAME } from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import { settleSegment } from './tcp-acks.ts';
import { ACK, BINDING, type HeldTcpFlow, SEQ, SEQ_END, WINDOW_SHIFT } from './tcp-flow.ts';

/** More frames than a VM sends out of order; in order, the first look finds the frame. */
const SCAN_MAX = 64;

/** Of a segment's FLAGS: only TCP_RST is set if it says that there is no connection, and nothing else. */
export const PLAIN_RESET_MASK = TCP_RST | TCP_ACK | TCP_SYN | TCP_FIN | TCP_URG | BINDING;

export class TcpQueue {
  /** Held frames examined in a search: bounded for each frame that comes, whatever the VMs send. A test asserts it. */
  visits = 0;
  private readonly holding: Holding;
  /** TCP's cursor: positioned by the caller */
  private readonly flow: HeldTcpFlow;

  constructor(holding: Holding, flow: HeldTcpFlow) {
    this.holding = holding;
    this.flow = flow;
  }

  /** Counts a segment that was queued. */
  noteQueued(flags: number): void {
    const { flow } = this;
    if ((flags & TCP_RST) !== 0) {
      if (flow.svmSyns === 0) flow.svmResets++;
    } else if ((flags & TCP_SYN) !== 0) flow.svmSyns++;
  }

  /** Returns a segment that has the sequence number `seq`: most often the one that had the last, or the next. */
  covering(seq: Seq): FrameId {
    const { flow } = this;
    if (flow.secondary.head === NO_FRAME) return NO_FRAME;
    let found = NO_FRAME;
    if (flow.cursor !== NO_FRAME) found = this.findFrom(flow.cursor, seq);
    if (found === NO_FRAME) found = this.findFrom(flow.secondary.head, seq);
    if (found !== NO_FRAME) flow.cursor = found;
    return found;
  }

  private findFrom(from: FrameId, seq: Seq): FrameId {
    const { words } = this.holding.frames;
    for (let id = from, seen = 0; id !== NO_FRAME && seen < SCAN_MAX; seen++) {
      this.visits++;
      if (isSyn(words[id + FLAGS])) return NO_FRAME;
      const inOrder = (words[id + FLAGS] & TCP_RST) === 0;
      if (inOrder && seqAtOrBefore(words[id + SEQ] as Seq, seq) && seqBefore(seq, words[id + SEQ_END] as Seq))
        return id;
      id = words[id + NEXT] as FrameId;
    }
    return NO_FRAME;
  }

  /** Drops what was sent before the first SYN: it belongs to an older connection. There is a SYN. */
  dropToSyn(): void {
    const { flow } = this;
    invariant(flow.svmSyns > 0, 'a SYN was looked for that the SVM has not sent');
    const { words } = this.holding.frames;
    while (!isSyn(words[flow.secondary.head + FLAGS])) this.dropHead();
  }

  /**
   * Drops to the last SYN, or to an earlier one with this number; returns false if the last one has another. The head is a SYN.
   *
   * An SVM's SYN that left its node before the PVM's was known there is sent again in the PVM's number, so the later one
   * counts. Only a secondary that knows the number, as a SYN with it proves, could continue the connection.
   */
  dropToSynWithSeq(seq: Seq): boolean {
    const { flow } = this;
    const { words } = this.holding.frames;
    while (words[flow.secondary.head + SEQ] !== seq) {
      if (flow.svmSyns === 1) return false;
      this.dropHead();
      this.dropToSyn();
    }
    return true;
  }

  /** The SYN at the head matches: drops it, or keeps its data at their place in the client's sequence space. */
  takeSyn(): void {
    const { flow } = this;
    const { words } = this.holding.frames;
    const syn = flow.secondary.head;
    const bytes = seqDiff(words[syn + SEQ_END] as Seq, words[syn + SEQ] as Seq);
    if (bytes === 0) {
      this.dropHead();
      return;
    }
    words[syn + FLAGS] &= ~TCP_SYN;
    words[syn + SEQ] = seqAdd(flow.isn, 1);
    words[syn + SEQ_END] = seqAdd(words[syn + SEQ], bytes);
    flow.svmSyns--;
  }

  /** Confirms and drops the SYN at the head, and repetitions that follow it. */
  dropSyn(): void {
    const { flow } = this;
    const { words } = this.holding.frames;
    const seq = words[flow.secondary.head + SEQ];
    do this.dropHead();
    while (
      flow.secondary.head !== NO_FRAME &&
      isSyn(words[flow.secondary.head + FLAGS]) &&
      words[flow.secondary.head + SEQ] === seq
    );
  }

  /** A connection begins: the ACKs and RSTs that follow its SYN in the queue count from now on. */
  adopt(): void {
    const { flow } = this;
    const { words } = this.holding.frames;
    while (flow.secondary.head !== NO_FRAME) {
      const head = flow.secondary.head;
      if (!isSyn(words[head + FLAGS]) || !isRepeatedSyn(flow, seqAdd(words[head + SEQ] as Seq, -1))) break;
      if ((words[head + FLAGS] & TCP_ACK) !== 0) {
        const window = words[head + FLAGS] >>> WINDOW_SHIFT;
        noteSvmAck(flow, words[head + ACK] as Seq, window >>> flow.windowScale);
      }
      this.dropHead();
    }
    flow.svmResets = 0;
    let id = flow.secondary.head;
    for (; id !== NO_FRAME && !isSyn(words[id + FLAGS]); id = words[id + NEXT] as FrameId) {
      this.visits++;
      if ((words[id + FLAGS] & TCP_RST) !== 0) flow.svmResets++;
      else if ((words[id + FLAGS] & TCP_ACK) !== 0)
        noteSvmAck(flow, words[id + ACK] as Seq, words[id + FLAGS] >>> WINDOW_SHIFT);
    }
  }

  /** Drops to the first RST and that one: both VMs may send several, one for each segment that came late. */
  dropReset(): void {
    const { flow } = this;
    invariant(flow.svmResets > 0, 'an RST was released that the SVM has not sent');
    const { words } = this.holding.frames;
    while ((words[flow.secondary.head + FLAGS] & TCP_RST) === 0) this.dropHead();
    this.dropHead();
  }

  /** Both VMs have reset the connection: drops plain RSTs at the head, which need no counterpart any more. */
  dropRepeatedResets(): void {
    const { flow } = this;
    const { words } = this.holding.frames;
    while (
      flow.secondary.head !== NO_FRAME &&
      (words[flow.secondary.head + FLAGS] & PLAIN_RESET_MASK) === TCP_RST
    )
      this.dropHead();
  }

  /** Drops segments whose bytes the client already has from the PVM; their ACK may still matter. */
  dropReleased(): void {
    const { holding, flow } = this;
    const { words } = holding.frames;
    while (flow.secondary.head !== NO_FRAME) {
      const id = flow.secondary.head;
      if ((words[id + FLAGS] & (TCP_SYN | TCP_RST)) !== 0) return;
      if (!seqAtOrBefore(words[id + SEQ_END] as Seq, flow.released)) return;
      const index = words[id + INDEX];
      const flags = words[id + FLAGS];
      const ack = words[id + ACK] as Seq;
      if (flow.cursor === id) flow.cursor = NO_FRAME;
      holding.dropHead(flow.secondary);
      settleSegment(holding, flow, index, flags, ack);
    }
  }

  /** Confirms and drops the head: the client has all of it, or need never receive it. */
  private dropHead(): void {
    const { holding, flow } = this;
    const head = flow.secondary.head;
    const flags = holding.frames.words[head + FLAGS];
    if ((flags & TCP_RST) !== 0) {
      if (flow.svmResets > 0) flow.svmResets--;
    } else if ((flags & TCP_SYN) !== 0) flow.svmSyns--;
    if (flow.cursor === head) flow.cursor = NO_FRAME;
    holding.confirmHead(flow.secondary);
  }
}

function isSyn(flags: number): boolean {
  return (flags & (TCP_SYN | TCP_RST)) === TCP_SYN;
}

/** Returns true if this is the number of the SVM's SYN that began the connection, or one of another flow. */
export function isRepeatedSyn(flow: HeldTcpFlow, isn: Seq): boolean {
  return (flow.synAgreed && (isn === flow.svmIsn || isn === flow.isn)) || flow.isLent(isn);
}
