/**
 * When is an SVM segment confirmed? When the client has its bytes and its ACK, from whichever frame.
 *
 * The bytes are the client's once PVM segments with them are released. The ACK may come later, since the SVM often
 * acknowledges before the PVM. ACKs are cumulative, so of all SVM segments whose ACK no released segment carries yet only
 * the latest is tracked, by its index: `pendingAckIndex`. The others are confirmed.
 */
import { invariant } from '../../error.ts';
import { seqAtOrBefore, seqBefore } from '../../flow/sequence.ts';
import type { Seq } from '../../units.ts';
import { TCP_ACK } from '../../wire/tcp.ts';
import type { Holding } from '../holding.ts';
import { type HeldTcpFlow, NO_INDEX } from './tcp-flow.ts';

/** The client is told this ACK, with this window. */
export function releaseAck(holding: Holding, flow: HeldTcpFlow, ack: Seq, window: number): void {
  invariant(seqAtOrBefore(ack, flow.svmAck), 'an ACK was released that the SVM has not sent');
  noteReleasedAck(flow, ack, window);
  if (seqAtOrBefore(flow.pendingAck, flow.releasedAck)) settlePendingAck(holding, flow);
}

/** The same where no SVM segment is tracked: at a commit, or alone. */
export function noteReleasedAck(flow: HeldTcpFlow, ack: Seq, window: number): void {
  if (!flow.releasedAckKnown) flow.releasedAckKnown = true;
  else if (seqBefore(ack, flow.releasedAck)) return;
  flow.releasedAck = ack;
  flow.releasedWindow = window;
}

/** Confirms the SVM segment whose ACK was tracked, if there is one. */
export function settlePendingAck(holding: Holding, flow: HeldTcpFlow): void {
  if (flow.pendingAckIndex === NO_INDEX) return;
  holding.sink.confirm(flow.pendingAckIndex);
  flow.pendingAckIndex = NO_INDEX;
}

/** The client has the bytes of an SVM segment: confirms it, unless its ACK is still to be released. */
export function settleSegment(
  holding: Holding,
  flow: HeldTcpFlow,
  index: number,
  flags: number,
  ack: Seq,
): void {
  if ((flags & TCP_ACK) !== 0) settleAck(holding, flow, index, ack);
  else holding.sink.confirm(index);
}

/** The same for a segment with an ACK: confirms it if the client has that ACK, or tracks it in place of an earlier one. */
export function settleAck(holding: Holding, flow: HeldTcpFlow, index: number, ack: Seq): void {
  if (flow.releasedAckKnown && seqAtOrBefore(ack, flow.releasedAck)) {
    holding.sink.confirm(index);
    return;
  }
  settlePendingAck(holding, flow);
  flow.pendingAckIndex = index;
  flow.pendingAck = ack;
}
