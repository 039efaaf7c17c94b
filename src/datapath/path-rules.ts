/**
 * The operator's rules of a primary's path (compare/operator-rules.ts), and when others come into force.
 *
 * While output is compared that is at the next commit: then nothing is held and both VMs are equal. So a flow that becomes exempt has
 * left nothing behind that would have to leave, and one that is compared from then on begins as protected as any other. The
 * checkpoint for it is asked for at once (`isWaiting`). Alone, nothing is held, and it is at once.
 */
import type { Comparator } from '../compare/comparator.ts';
import { type OperatorRule, OperatorRules } from '../compare/operator-rules.ts';

export class PathRules {
  private readonly comparator: Comparator;
  private next: { readonly list: readonly OperatorRule[]; readonly inForce: () => void } | null = null;

  constructor(comparator: Comparator) {
    this.comparator = comparator;
  }

  /** Other rules wait for a commit. */
  get isWaiting(): boolean {
    return this.next !== null;
  }

  /** These come into force at the next `settle`, in place of others that wait; `inForce` is called then. */
  change(list: readonly OperatorRule[], inForce: () => void): void {
    this.next = { list, inForce };
  }

  /** Returns the least time between two checkpoints for the flow with this key. */
  intervalMsFor(key: Int32Array): number {
    const rules = this.comparator.operatorRules;
    return rules === null ? 0 : rules.intervalMsOf(rules.numberOf(key));
  }

  /** Nothing is held. */
  settle(): void {
    const { next, comparator } = this;
    if (next === null) return;
    this.next = null;
    comparator.useOperatorRules(new OperatorRules(next.list, comparator.operatorRules));
    next.inForce();
  }
}
