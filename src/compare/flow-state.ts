/** What the comparator remembers of one flow. All numbers are int32 or small; sequence numbers are the client's. */
import { emptyQueue, type FrameQueue, NONE } from './held-frames.ts';

export class ComparedFlow {
  /** PVM output that waits, and SVM output that was not released yet, each in order of arrival. */
  readonly primary: FrameQueue = emptyQueue();
  readonly secondary: FrameQueue = emptyQueue();
  /** a TCP connection */
  readonly tcp: boolean;
  lastSeenMs = 0;
  /** a divergence was reported and no checkpoint has healed it yet */
  diverged = false;

  /** The rest is for TCP. False until the first PVM segment has fixed where the stream is. */
  positioned = false;
  /** what lies before is unknown: the stream was first seen here, or a commit went on behind a gap */
  first = 0;
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
  /** the client has the VM's FIN */
  finReleased = false;
  /** where the SVM's urgent data ends */
  svmUrgentKnown = false;
  svmUrgent = 0;
  /** SYNs among the SVM's queued frames, and RSTs before the first of them */
  svmSyns = 0;
  svmResets = 0;
  /** the queued SVM frame that the last bytes were found in, or NONE */
  cursor = NONE;

  constructor(tcp: boolean) {
    this.tcp = tcp;
  }

  /** Nothing is held: forgetting the flow makes it one that is first seen in its middle. */
  get empty(): boolean {
    return this.primary.head === NONE && this.secondary.head === NONE;
  }

  /** An RST has ended it, or it has not begun. */
  get closed(): boolean {
    return this.tcp && !this.positioned;
  }

  /** Nothing would be missed: datagrams, a connection that has ended or ends, one that is only half open. */
  get expendable(): boolean {
    if (!this.tcp || !this.positioned || this.finReleased) return true;
    return this.synAgreed && this.released === ((this.isn + 1) | 0);
  }
}
