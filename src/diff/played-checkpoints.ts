/**
 * The checkpoints of a replay: the comparator commits, as at a real one, but the SVM's recording continues as it was.
 *
 * After a commit the comparator has forgotten all SVM frames. Those that were not confirmed are handed to it again, since
 * the SVM will not send them again. Some are given up instead: the datagram that a PVM datagram differed from, frames of the
 * flow that was ahead for too long, and all if the checkpoint was for a full table. A frame of which the PVM has sent everything is
 * forgotten after so long. Datagrams that are withheld (datagrams.ts) are none of the comparator's.
 */
import type { CheckpointPolicy, PolicyLimits } from '../checkpoint/policy.ts';
import type { Comparator } from '../compare/comparator.ts';
import { invariant } from '../error.ts';
import type { SvmTranslator } from '../translate/svm-translator.ts';
import type { Instant } from '../units.ts';
import { TCP_RST } from '../wire/tcp.ts';
import type { Datagrams } from './datagrams.ts';
import { isAhead, isStale, type StoredFrame } from './flow-record.ts';
import type { FrameStore } from './frame-store.ts';

/** A checkpoint of a small guest; the configuration's default waits are bounds around it. */
export const ASSUMED_CHECKPOINT_MS = 20;

export const PLAYED_WAITS: PolicyLimits = {
  // Checkpoints at intervals come whatever the VMs send.
  intervalMsMax: Number.POSITIVE_INFINITY,
  waitMsMin: ASSUMED_CHECKPOINT_MS,
  waitMsMax: 200,
  ackWaitMsMax: 300,
};

export class PlayedCheckpoints {
  readonly byReason: Record<string, number> = {};
  /** Datagrams whose counterpart was found among those that had left already. */
  matchedLate = 0;
  /** SVM frames that were given up. */
  unmatched = 0;
  /** When an SVM segment that was handed in again will have been ahead for too long: the comparator counts from the commit. */
  aheadDueMs = Number.POSITIVE_INFINITY;
  private readonly comparator: Comparator;
  private readonly policy: CheckpointPolicy;
  private readonly store: FrameStore;
  /** Null if the SVM's recording is in the PVM's numbers. */
  private readonly translator: SvmTranslator | null;
  private readonly datagrams: Datagrams;

  constructor(options: {
    datagrams: Datagrams;
    comparator: Comparator;
    policy: CheckpointPolicy;
    store: FrameStore;
    translator: SvmTranslator | null;
  }) {
    this.comparator = options.comparator;
    this.policy = options.policy;
    this.store = options.store;
    this.translator = options.translator;
    this.datagrams = options.datagrams;
  }

  /** Takes a checkpoint and counts it. `cause`: the SVM datagram that differed, or the frame whose wait was over. */
  take(reason: string, nowMs: Instant, cause: StoredFrame | undefined): void {
    this.byReason[reason] = (this.byReason[reason] ?? 0) + 1;
    this.commit(reason, nowMs, cause);
  }

  /** The same without counting it: nothing that the VMs did asked for it. */
  commit(reason: string, nowMs: Instant, cause: StoredFrame | undefined): void {
    const { comparator, policy, store } = this;
    const { held, retained } = store;
    invariant(
      held.size === comparator.primary.frames,
      'the replay holds other PVM frames than the comparator',
    );
    const before = [...retained.values()];
    comparator.commit();
    invariant(held.size === 0, 'a commit left PVM frames in the replay');
    policy.committed(nowMs, ASSUMED_CHECKPOINT_MS);
    const { secondaryMs } = policy.waits;
    const isFull = reason.startsWith('limit-');
    this.aheadDueMs = Number.POSITIVE_INFINITY;
    for (const frame of before) {
      const { flow, hash } = frame;
      if (this.datagrams.withheld.has(frame) && !isFull) continue;
      if (!flow.tcp && flow.awaitedFromSecondary.take(hash, nowMs)) {
        this.matchedLate++;
        store.forget(frame);
        continue;
      }
      if ((frame.flags & TCP_RST) !== 0 && flow.resetsOwed > 0) {
        // The PVM's RST, which it is the counterpart of, has just left.
        flow.resetsOwed--;
        store.forget(frame);
        continue;
      }
      const waitedLong = reason === 'wait-secondary' && nowMs >= frame.sinceMs + secondaryMs;
      if (waitedLong && isStale(frame)) store.forget(frame);
      else if (frame === cause || isFull || (waitedLong && flow === cause?.flow && isAhead(frame)))
        this.giveUp(frame, nowMs);
      else {
        if (isAhead(frame)) this.aheadDueMs = Math.min(this.aheadDueMs, frame.sinceMs + secondaryMs);
        this.handInAgain(frame, nowMs);
      }
    }
  }

  /** Nothing that the VMs did asked for checkpoints that were taken: that is known only now. */
  uncount(reason: string, count: number): void {
    const { byReason } = this;
    byReason[reason] -= count;
    if (byReason[reason] === 0) delete byReason[reason];
  }

  /** A checkpoint that was taken had another reason: that is known only now. */
  rename(from: string, to: string): void {
    const { byReason } = this;
    this.uncount(from, 1);
    byReason[to] = (byReason[to] ?? 0) + 1;
  }

  /** Gives up the oldest SVM frame. */
  giveUpOldest(nowMs: Instant): void {
    const [frame] = this.store.retained.values();
    this.giveUp(frame, nowMs);
  }

  private giveUp(frame: StoredFrame, nowMs: Instant): void {
    const { flow, hash } = frame;
    this.unmatched++;
    if (!flow.tcp) flow.awaitedFromPrimary.add(hash, nowMs);
    this.datagrams.withheld.delete(frame);
    this.store.forget(frame);
  }

  private handInAgain(frame: StoredFrame, nowMs: Instant): void {
    this.store.moveIn(frame);
    const { slab, at, length, index } = frame;
    this.translator?.correctSyn(this.store.slabs.buffer(slab), at, length);
    this.comparator.secondaryFrame(slab, at, length, index, nowMs);
  }
}
