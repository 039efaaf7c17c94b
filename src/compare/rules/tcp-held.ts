/**
 * The PVM's held segments of one connection, in order of where they end in the stream: a segment can leave when both VMs have sent
 * all before its end.
 *
 * A segment is enqueued before those that end later, whenever it comes, unless what precedes it in the stream is theirs: a
 * retransmission, or what was overtaken on its way, must not wait for what comes after it in the stream. SYN, RST and urgent data
 * have their place by time: nothing passes them.
 *
 * Limits: a search for a place gives up after SCAN_MAX segments, and the segment is then the last. A TCP that sends in order never
 * has one searched for.
 */
import { seqAtOrBefore, seqBefore } from '../../flow/sequence.ts';
import type { FrameId, Seq } from '../../units.ts';
import { TCP_RST, TCP_SYN, TCP_URG } from '../../wire/tcp.ts';
import { FLAGS, NEXT, NO_FRAME } from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import { type HeldTcpFlow, SEQ, SEQ_END } from './tcp-flow.ts';

const SCAN_MAX = 64;

/** Flags that need more than a byte comparison. */
export const SPECIAL = TCP_SYN | TCP_RST | TCP_URG;

export class TcpHeld {
  /** Segments examined in a search. */
  visits = 0;
  private readonly holding: Holding;
  /** TCP's cursor: positioned by the caller */
  private readonly flow: HeldTcpFlow;

  constructor(holding: Holding, flow: HeldTcpFlow) {
    this.holding = holding;
    this.flow = flow;
  }

  /** Enqueues a segment. Returns true if it is the head now. */
  enqueue(id: FrameId): boolean {
    const { holding, flow } = this;
    const { frames } = holding;
    const { words } = frames;
    const isFirst = flow.primary.head === NO_FRAME;
    const isSpecial = (words[id + FLAGS] & SPECIAL) !== 0;
    if (isFirst) flow.specialHeld = 0;
    else {
      const place = isSpecial || flow.specialHeld > 0 ? flow.primary.tail : this.placeOf(id);
      if (place !== flow.primary.tail) {
        flow.outOfStep = true;
        frames.enqueueAfter(flow.primary, place, id);
        holding.noteShare(flow.primary);
        return place === NO_FRAME;
      }
    }
    if (isSpecial) flow.specialHeld++;
    frames.enqueue(flow.primary, id);
    if (!isFirst) holding.noteShare(flow.primary);
    return isFirst;
  }

  /** Returns after which segment it belongs: NO_FRAME if before all of them. */
  private placeOf(id: FrameId): FrameId {
    const { flow } = this;
    const { words } = this.holding.frames;
    const { tail } = flow.primary;
    // Before what is known of the stream there is no order.
    if (!flow.positioned || flow.isBeforeKnown(words[id + SEQ] as Seq) || !this.isBefore(id, tail))
      return tail;
    let previous = NO_FRAME;
    let next = flow.primary.head;
    for (let seen = 0; !this.isBefore(id, next); seen++) {
      this.visits++;
      if (seen === SCAN_MAX) return tail;
      previous = next;
      next = words[next + NEXT] as FrameId;
    }
    return previous;
  }

  /** Whether it ends before another, and can leave before it: a part out of the other's middle cannot. */
  private isBefore(id: FrameId, other: FrameId): boolean {
    const { flow } = this;
    const { words } = this.holding.frames;
    if (!seqBefore(words[id + SEQ_END] as Seq, words[other + SEQ_END] as Seq)) return false;
    const seq = words[id + SEQ] as Seq;
    return seqAtOrBefore(seq, flow.released) || seqAtOrBefore(seq, words[other + SEQ] as Seq);
  }
}
