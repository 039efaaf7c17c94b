/** A wait was too long: for which frame of the replay, and is a VM to blame? */
import type { CheckpointPolicy } from '../checkpoint/policy.ts';
import type { Comparator } from '../compare/comparator.ts';
import type { Instant } from '../units.ts';
import { TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import type { Datagrams } from './datagrams.ts';
import { isAhead, isBareAck, type StoredFrame } from './flow-record.ts';
import type { FrameStore } from './frame-store.ts';
import { OwedSegments } from './owed-segments.ts';

export class Blame {
  private readonly comparator: Comparator;
  private readonly store: FrameStore;
  private readonly owed: OwedSegments;
  private readonly policy: CheckpointPolicy;
  private readonly datagrams: Datagrams;
  private readonly knownFromMs: number;

  constructor(options: {
    comparator: Comparator;
    store: FrameStore;
    policy: CheckpointPolicy;
    datagrams: Datagrams;
    /** What lies before may have its counterpart before one of the recordings. */
    knownFromMs: number;
  }) {
    this.comparator = options.comparator;
    this.store = options.store;
    this.owed = new OwedSegments(options.comparator, options.store);
    this.policy = options.policy;
    this.datagrams = options.datagrams;
    this.knownFromMs = options.knownFromMs;
  }

  /** The comparator has released or absorbed a PVM frame. */
  left(frame: StoredFrame): void {
    this.store.release(frame);
    if (frame.flow.tcp) this.owed.note(frame);
  }

  /** Returns the PVM frame whose wait is over; behind a gap, one that is recorded. */
  held(nowMs: Instant): StoredFrame | undefined {
    const { dataMs, ackMs, owedMs } = this.policy.waits;
    const { held } = this.store;
    for (const frame of held.values()) {
      const age = nowMs - frame.sinceMs;
      if (age < dataMs) break;
      if (frame.origin !== 'filler' && (!isBareAck(frame) || age >= ackMs)) return frame;
    }
    if (this.comparator.owedMs(nowMs) >= owedMs) {
      const frame = this.owed.longest();
      if (frame !== undefined) return frame;
    }
    for (const frame of held.values()) if (frame.origin !== 'filler') return frame;
    return held.values().next().value;
  }

  /** Returns the SVM frame that the PVM should have sent by now. */
  ahead(nowMs: Instant): StoredFrame | undefined {
    const { secondaryMs } = this.policy.waits;
    for (const frame of this.store.retained.values()) {
      if (nowMs < frame.sinceMs + secondaryMs) return undefined;
      if (isAhead(frame) && !this.datagrams.withheld.has(frame)) return frame;
    }
    return undefined;
  }

  /** Returns when the PVM should have sent the oldest of what it has not, or infinity. */
  aheadDueMs(): number {
    for (const frame of this.store.retained.values())
      if (isAhead(frame) && !this.datagrams.withheld.has(frame))
        return frame.sinceMs + this.policy.waits.secondaryMs;
    return Number.POSITIVE_INFINITY;
  }

  /**
   * Returns true for a SYN near the beginning, or the reset of a connection that was not compared: the other VM's may lie before
   * its recording, unless the client's SYN is in both. A SYN's connection then counts as begun.
   */
  mayLieBefore({ flow, flags, sinceMs }: StoredFrame): boolean {
    if (!flow.tcp || sinceMs >= this.knownFromMs) return false;
    if (flow.primaryClientSyn !== null && flow.primaryClientSyn === flow.secondaryClientSyn) return false;
    if ((flags & TCP_RST) !== 0) return !flow.placed;
    if ((flags & TCP_SYN) === 0) return false;
    if (flow.primarySyns === flow.secondarySyns) return false;
    flow.primarySyns = Math.max(flow.primarySyns, flow.secondarySyns);
    flow.secondarySyns = flow.primarySyns;
    return true;
  }
}
