/**
 * How long held output has waited for its counterpart.
 *
 * Output of the PVM is held in order of arrival, so the frames that are overdue are the oldest. A frame that waits for nothing but an
 * ACK may wait for longer, and does not end the search.
 */
import type { FlowId, Instant } from '../units.ts';
import { FLOW, type HeldOfBoth, NO_FLOW, NO_FRAME, WAITS, WAITS_FOR } from './held-frames.ts';
import type { Overdue, WaitLimits } from './sink.ts';

/** Held frames examined for one that is overdue. All of them are older than the first one that is not. */
const OVERDUE_SCAN_MAX = 256;

export class HeldWaits {
  /** flow of the frame for which `overdue` returned a reason last; NO_FLOW if it has none */
  overdueFlow: FlowId = NO_FLOW;
  /** how long what `overdue` returned `wait-primary` for last has waited */
  overdueMs = 0;
  private readonly held: HeldOfBoth;

  constructor(held: HeldOfBoth) {
    this.held = held;
  }

  /** Returns which side has held output for longer than `limits`, or null. */
  overdue(nowMs: Instant, limits: WaitLimits): Overdue {
    const { frames, primary, secondary } = this.held;
    let id = primary.oldest;
    for (let seen = 0; id !== NO_FRAME && seen < OVERDUE_SCAN_MAX; seen++, id = frames.newerThan(id)) {
      const age = nowMs - frames.since(id);
      if (age < limits.dataMs) break;
      if (frames.words[id + WAITS] !== WAITS_FOR.bytes && age < limits.ackMs) continue;
      this.overdueFlow = frames.words[id + FLOW] as FlowId;
      this.overdueMs = age;
      return 'wait-primary';
    }
    const { oldest } = secondary;
    if (oldest === NO_FRAME || nowMs - frames.since(oldest) < limits.secondaryMs) return null;
    this.overdueFlow = frames.words[oldest + FLOW] as FlowId;
    return 'wait-secondary';
  }

  /** Returns how long the oldest held PVM frame has waited. */
  oldestWaitMs(nowMs: Instant): number {
    const { frames, primary } = this.held;
    return primary.oldest === NO_FRAME ? 0 : nowMs - frames.since(primary.oldest);
  }
}
