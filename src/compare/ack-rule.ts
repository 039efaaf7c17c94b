/**
 * Which ACK may leave, and with which window? (Rule 1, output commit, for what an ACK promises.)
 *
 * An ACK tells the client "you may forget these bytes". That is only true after a failover if the SVM has them too. The proof used
 * here is the strictest one: the SVM has acknowledged them itself, so they are in its kernel and no drop on the way to it can lose
 * them any more. A window tells the client "you may send so much more". The SVM drops what its own window has no room for, and
 * each drop costs the client a timeout.
 *
 * So the client is told the lesser of what both VMs say: the earlier ACK, and the earlier right edge of the window. A segment whose
 * ACK is ahead of the SVM's leaves with the SVM's ACK instead. It would otherwise stand until the SVM has caught up, which may
 * take the SVM a retransmission that the client sends only if it hears what is missing.
 *
 * Windows are compared as they stand in the header, because both VMs shift them alike. The edge of the VM that is ahead is beyond
 * its window counted from the lesser ACK, by the distance of both ACKs; counted in shifted units this is exact if the shift is
 * known, and too little if it is not.
 *
 * An ACK further from the last one than any window reaches is not one of this connection: ignore it if the SVM sent it,
 * hold it if the PVM did.
 */
import { seqDiff, seqWithinWindowBefore } from '../flow/sequence.ts';
import type { Seq } from '../units.ts';

/** What of a flow the rule asks. */
export type SvmAck = { svmAckKnown: boolean; svmAck: Seq; svmWindow: number; windowScale: number };

const WINDOW_MAX = 0xffff;

/** Whether an ACK may leave as it is. */
export function ackMayLeave(flow: Readonly<SvmAck>, ack: Seq): boolean {
  return flow.svmAckKnown && seqWithinWindowBefore(ack, flow.svmAck);
}

/** Whether an ACK is ahead of the SVM's and may leave in its place: lowered to it. */
export function mayBeLowered(flow: Readonly<SvmAck>, ack: Seq): boolean {
  return flow.svmAckKnown && seqWithinWindowBefore(flow.svmAck, ack);
}

/** Returns the earlier of a PVM's ACK and the SVM's. One of the above is true. */
export function lesserAck(flow: Readonly<SvmAck>, ack: Seq): Seq {
  return seqWithinWindowBefore(ack, flow.svmAck) ? ack : flow.svmAck;
}

/** Returns the window that leads from the lesser ACK to the earlier edge, for a PVM segment with this ACK and window. */
export function lesserWindow(flow: Readonly<SvmAck>, ack: Seq, window: number): number {
  const ahead = seqDiff(ack, flow.svmAck);
  const scale = flow.windowScale;
  if (ahead > 0) return Math.min(window + (ahead >>> scale), flow.svmWindow, WINDOW_MAX);
  return Math.min(window, flow.svmWindow + (-ahead >>> scale));
}

/** The SVM has acknowledged up to `ack`, with this window. */
export function noteSvmAck(flow: SvmAck, ack: Seq, window: number): void {
  if (!flow.svmAckKnown) flow.svmAckKnown = true;
  else if (!seqWithinWindowBefore(flow.svmAck, ack)) return;
  flow.svmAck = ack;
  flow.svmWindow = window;
}
