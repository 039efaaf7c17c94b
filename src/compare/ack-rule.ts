/**
 * May this ACK leave? (Rule 1, output commit, for what an ACK says.)
 *
 * An ACK tells the client "you may forget these bytes". That is only true after a failover if the SVM has them too.
 * The proof used here is the strictest one: the SVM has acknowledged them itself, so they are in its kernel and no
 * drop on the way to it can lose them any more. The price is that a PVM's ACK waits for the SVM's, which may be a
 * delayed ACK (RFC 9293 section 3.8.6.3: up to 500 ms, on Linux 40 to 200 ms); hence its own, longer wait limit.
 */
import { seqAtOrBefore, seqMax } from '../flow/sequence.ts';
import type { ComparedFlow } from './flow-state.ts';

export function ackMayLeave(flow: ComparedFlow, ack: number): boolean {
  return flow.svmAckKnown && seqAtOrBefore(ack, flow.svmAck);
}

/** The SVM has acknowledged up to `ack`. */
export function noteSvmAck(flow: ComparedFlow, ack: number): void {
  flow.svmAck = flow.svmAckKnown ? seqMax(flow.svmAck, ack) : ack;
  flow.svmAckKnown = true;
}
