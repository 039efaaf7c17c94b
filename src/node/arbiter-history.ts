/** Whether the arbiter replies, how quickly, and since when it does not: as status and metrics show it. */
import type { NodeStatus } from '../observe/status.ts';
import type { Instant } from '../units.ts';
import { quantile } from './checkpoint-history.ts';

/** At one question in two seconds: the last two minutes. */
const REPLIES_MAX = 64;

/**
 * unknown -> replies: any reply. unknown, replies -> fails: a question without a reply. fails -> replies: a change could be made
 * (a change, or a probe): an arbiter that can be read and not written is of no use.
 */
type State =
  | { readonly kind: 'unknown' }
  | { readonly kind: 'replies' }
  | { readonly kind: 'fails'; readonly sinceMs: Instant; readonly code: string; readonly message: string };

/** What a reply proves. */
export type Proof = 'read' | 'change';

export class ArbiterHistory {
  private state: State = { kind: 'unknown' };
  private lastReplyMs: Instant | null = null;
  private readonly latenciesMs: number[] = [];
  private replies = 0;

  /** Returns how long it had failed if this ends that; else null. */
  replied(proof: Proof, askedMs: Instant, nowMs: Instant): number | null {
    this.latenciesMs[this.replies++ % REPLIES_MAX] = nowMs - askedMs;
    this.lastReplyMs = nowMs;
    const { state } = this;
    if (state.kind === 'fails' && proof === 'read') return null;
    this.state = { kind: 'replies' };
    return state.kind === 'fails' ? nowMs - state.sinceMs : null;
  }

  failed(code: string, message: string, askedMs: Instant): void {
    const sinceMs = this.state.kind === 'fails' ? this.state.sinceMs : askedMs;
    this.state = { kind: 'fails', sinceMs, code, message };
  }

  summary(kind: NodeStatus['arbiter']['kind'], nowMs: Instant): NodeStatus['arbiter'] {
    const { state, lastReplyMs } = this;
    const sorted = [...this.latenciesMs].sort((a, b) => a - b);
    return {
      kind,
      state: state.kind,
      lastReplyMs: lastReplyMs === null ? null : nowMs - lastReplyMs,
      latencyMs: { p50: quantile(sorted, 0.5), p99: quantile(sorted, 0.99) },
      failing:
        state.kind === 'fails'
          ? { forMs: nowMs - state.sinceMs, code: state.code, message: state.message }
          : null,
    };
  }
}
