/**
 * May this ACK leave? (Rule 1, output commit, for what an ACK promises.)
 *
 * An ACK tells the client "you may forget these bytes". That is only true after a failover if the SVM has them too.
 * The proof used here is the strictest one: the SVM has acknowledged them itself, so they are in its kernel and no
 * drop on the way to it can lose them any more. The price is that a PVM's ACK waits for the SVM's, which may be a
 * delayed ACK (RFC 9293 section 3.8.6.3: up to 500 ms, on Linux 40 to 200 ms); hence its own, longer wait limit.
 *
 * An ACK further from the last one than any window reaches is not one of this connection: ignore it if the SVM sent it,
 * hold it if the PVM did.
 */
import { seqWithinWindowBefore } from '../flow/sequence.ts';
import type { Seq } from '../units.ts';

/** What of a flow the rule asks. */
export type SvmAck = { svmAckKnown: boolean; svmAck: Seq };

export function ackMayLeave(flow: Readonly<SvmAck>, ack: Seq): boolean {
  return flow.svmAckKnown && seqWithinWindowBefore(ack, flow.svmAck);
}

/** The SVM has acknowledged up to `ack`. */
export function noteSvmAck(flow: SvmAck, ack: Seq): void {
  if (!flow.svmAckKnown) {
    flow.svmAck = ack;
    flow.svmAckKnown = true;
  } else if (seqWithinWindowBefore(flow.svmAck, ack)) flow.svmAck = ack;
}
