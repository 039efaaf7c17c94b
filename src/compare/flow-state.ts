/** What the comparator remembers of one flow. All numbers are int32 or small; sequence numbers are the client's. */
import { emptyQueue, type FrameQueue, NONE } from './held-frames.ts';

export class ComparedFlow {
  /** PVM output that waits, and SVM output that was not released yet, each in order of arrival. */
  readonly primary: FrameQueue = emptyQueue();
  readonly secondary: FrameQueue = emptyQueue();
  lastSeenMs = 0;
  /** a divergence was reported and no checkpoint has healed it yet */
  diverged = false;

  /** The rest is for TCP. False until the first PVM segment has fixed where the stream is. */
  positioned = false;
  /** the PVM's initial sequence number, when its SYN was seen and agreed */
  synAgreed = false;
  isn = 0;
  /** the SVM's own, as it came over the link: tells its SYN's repetition from a new connection */
  svmIsn = 0;
  /** PVM and SVM have produced the same bytes up to here */
  verified = 0;
  /** the client may have seen bytes up to here */
  released = 0;
  /** the SVM has acknowledged the client's data up to here (rule 1) */
  svmAckKnown = false;
  svmAck = 0;
  releasedAckKnown = false;
  releasedAck = 0;
  /** the SVM frame with the latest ACK that no released frame has said yet: its index, or NONE */
  pendingAckIndex = NONE;
  pendingAck = 0;

  get idle(): boolean {
    return this.primary.head === NONE && this.secondary.head === NONE && this.pendingAckIndex === NONE;
  }
}
