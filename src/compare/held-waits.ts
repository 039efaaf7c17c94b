/**
 * How long held output has waited for its counterpart.
 *
 * Output of the PVM is held in order of arrival, so the frames that are overdue are the oldest. A frame that waits for nothing but an
 * ACK may wait for longer, and does not end the search. Nor does one whose flow an operator's rule delays (`ranMs`), so that the flows
 * after it are not delayed with it.
 */
import type { FlowId, FrameId, Instant } from '../units.ts';
import { HeldFlow } from './held-flow.ts';
import { FLOW, type HeldOfBoth, NO_FLOW, NO_FRAME, WAITS, WAITS_FOR } from './held-frames.ts';
import type { Holding } from './holding.ts';
import type { Overdue, WaitLimits } from './sink.ts';

/** Held frames examined for one that is overdue. All of them are older than the first one that is not. */
const OVERDUE_SCAN_MAX = 256;
/** In addition, those of flows that a rule delays; from then on they count as if it did not: no other flow waits for the search. */
const DELAYED_SCAN_MAX = 4096;

export class HeldWaits {
  /** flow of the frame for which `overdue` returned a reason last; NO_FLOW if it has none */
  overdueFlow: FlowId = NO_FLOW;
  /** how long what `overdue` returned `wait-primary` for last has waited */
  overdueMs = 0;
  private readonly held: HeldOfBoth & Pick<Holding, 'operatorRules'>;
  private readonly flow: HeldFlow;

  constructor(held: Holding) {
    this.held = held;
    this.flow = new HeldFlow(held.flowWords);
  }

  /** Returns which side has held output for longer than `limits`, or null. */
  overdue(nowMs: Instant, limits: WaitLimits): Overdue {
    const { frames, primary, secondary } = this.held;
    let delayed = 0;
    let id = primary.oldest;
    for (let seen = 0; id !== NO_FRAME && seen < OVERDUE_SCAN_MAX; id = frames.newerThan(id)) {
      const age = nowMs - frames.since(id);
      if (age < limits.dataMs) break;
      if (delayed < DELAYED_SCAN_MAX && this.isDelayed(id, limits)) {
        delayed++;
        continue;
      }
      seen++;
      if (frames.words[id + WAITS] !== WAITS_FOR.bytes && age < limits.ackMs) continue;
      this.overdueFlow = frames.words[id + FLOW] as FlowId;
      this.overdueMs = age;
      return 'wait-primary';
    }
    let { oldest } = secondary;
    for (delayed = 0; oldest !== NO_FRAME; oldest = frames.newerThan(oldest))
      if (delayed++ === DELAYED_SCAN_MAX || !this.isDelayed(oldest, limits)) break;
    if (oldest === NO_FRAME || nowMs - frames.since(oldest) < limits.secondaryMs) return null;
    this.overdueFlow = frames.words[oldest + FLOW] as FlowId;
    return 'wait-secondary';
  }

  /** Whether a rule lets the flow of a held frame take no checkpoint yet. */
  private isDelayed(id: FrameId, { ranMs }: WaitLimits): boolean {
    const { frames, operatorRules } = this.held;
    if (operatorRules === null || !operatorRules.hasInterval || ranMs === undefined) return false;
    const flow = frames.words[id + FLOW] as FlowId;
    return flow !== NO_FLOW && ranMs < operatorRules.intervalMsOf(this.flow.moveTo(flow).operatorRule);
  }

  /** Returns how long the oldest held PVM frame has waited. */
  oldestWaitMs(nowMs: Instant): number {
    const { frames, primary } = this.held;
    return primary.oldest === NO_FRAME ? 0 : nowMs - frames.since(primary.oldest);
  }
}
