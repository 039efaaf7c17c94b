/**
 * PVM segments that have left though the client was not told all that they acknowledge, or that were absorbed for that. If the
 * SVM never acknowledges as much, such a segment is what a checkpoint is taken for.
 *
 * Limits: one for each connection while any client is owed an ACK.
 */
import type { Comparator } from '../compare/comparator.ts';
import { describeFlowKey } from '../flow/key.ts';
import { seqAtOrBefore } from '../flow/sequence.ts';
import { TCP_SYN } from '../wire/tcp.ts';
import type { StoredFrame } from './flow-record.ts';
import type { FrameStore } from './frame-store.ts';

export class OwedSegments {
  private readonly comparator: Comparator;
  private readonly store: FrameStore;
  /** by the flow's name: the one that acknowledges most */
  private readonly latest = new Map<string, StoredFrame>();

  constructor(comparator: Comparator, store: FrameStore) {
    this.comparator = comparator;
    this.store = store;
  }

  /** A segment has left, or was absorbed. */
  note(frame: StoredFrame): void {
    const { latest } = this;
    if (this.comparator.owedAcks === 0) {
      latest.clear();
      return;
    }
    const before = latest.get(frame.flow.name);
    const isSyn = (frame.flags & TCP_SYN) !== 0;
    if (!isSyn && before !== undefined && seqAtOrBefore(frame.ack, before.ack)) return;
    frame.bytes = this.store.copyOf(frame);
    latest.set(frame.flow.name, frame);
  }

  /** Returns that of the connection in which the SVM has been silent for longest, or undefined. */
  longest(): StoredFrame | undefined {
    const key = this.comparator.oldestOwedKey();
    return key === null ? undefined : this.latest.get(describeFlowKey(key));
  }
}
