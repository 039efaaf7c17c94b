/**
 * The rules that an operator has written into the configuration (`rules:`), as the comparator uses them. They are not the rules of
 * protocols (rule.ts): those decide how a flow is compared, these which flows are treated in another way.
 *
 * exempt: the flow is not compared (rules/exempt.ts).
 * intervalMsMin: neither a difference nor a wait of the flow takes a checkpoint before that much time has passed since the last one
 * (held-waits.ts, checkpoint/policy.ts). Its output stays held meanwhile.
 * unify: two replies may differ in one field (rules/unify.ts).
 *
 * A flow is looked up here once, when its row begins, and the row keeps the rule's number; nothing is looked up per frame. Of several
 * rules that cover a flow the first one that exempts counts, else the first one. A rule for a field counts beside them, and is looked
 * for when the VMs differ. `Comparator.useOperatorRules` puts other rules into force.
 */
import { covers, describeMatch, type FlowMatch } from '../flow/match.ts';

/** One rule as the configuration has it: which flows, and one action. */
export type OperatorRule = {
  readonly match: FlowMatch;
  readonly exempt?: true | undefined;
  readonly intervalMsMin?: number | undefined;
  readonly unify?: UnifiedField | undefined;
};

/** The fields in which two VMs may differ. */
export const UNIFIED_FIELDS = ['http-date'] as const;
export type UnifiedField = (typeof UNIFIED_FIELDS)[number];

/** Returns a rule as people read it: "tcp 2049: exempt", "tcp 80: intervalMsMin 500", "tcp 80: unify http-date". */
export function describeOperatorRule({ match, intervalMsMin, unify }: OperatorRule): string {
  const interval = intervalMsMin === undefined ? 'exempt' : `intervalMsMin ${intervalMsMin}`;
  return `${describeMatch(match)}: ${unify === undefined ? interval : `unify ${unify}`}`;
}

/** A rule's number fits into a flow's row (held-flow.ts), and a flow is compared with each of them when it begins. */
export const OPERATOR_RULES_MAX = 64;
/** In place of a rule's number where none covers a flow. */
export const NO_OPERATOR_RULE = 0;

/** What a rule has exempted: output of the PVM that was released without comparison. */
export type Exempted = { readonly frames: number; readonly bytes: number };

export class OperatorRules {
  readonly list: readonly OperatorRule[];
  readonly hasExempt: boolean;
  readonly hasInterval: boolean;
  /* By the rule's number, which is its place in the list and one more. */
  private readonly frames: Float64Array;
  private readonly bytes: Float64Array;
  private readonly intervalsMs: Int32Array;

  /** `before`: the rules that these replace; a rule that stays goes on counting. */
  constructor(list: readonly OperatorRule[], before: OperatorRules | null = null) {
    this.list = list;
    this.hasExempt = list.some(isExempt);
    this.hasInterval = list.some(({ intervalMsMin }) => intervalMsMin !== undefined);
    this.intervalsMs = Int32Array.of(0, ...list.map(({ intervalMsMin }) => intervalMsMin ?? 0));
    this.frames = new Float64Array(list.length + 1);
    this.bytes = new Float64Array(list.length + 1);
    for (const [place, rule] of list.entries()) {
      const { frames, bytes } = before?.exemptedBy(describeMatch(rule.match)) ?? NOTHING;
      this.frames[place + 1] = frames;
      this.bytes[place + 1] = bytes;
    }
  }

  /** Returns the number of the rule that counts for the flow with this key, or NO_OPERATOR_RULE. */
  numberOf(key: Int32Array): number {
    const exempt = this.exemptOf(key);
    if (exempt !== NO_OPERATOR_RULE) return exempt;
    return this.list.findIndex(({ match, unify }) => unify === undefined && covers(match, key)) + 1;
  }

  /** Whether the rule with this number exempts. */
  exempts(number: number): boolean {
    return number !== NO_OPERATOR_RULE && isExempt(this.list[number - 1]);
  }

  /** Returns the least time between two checkpoints for a flow of the rule with this number; 0 if it sets none. */
  intervalMsOf(number: number): number {
    return this.intervalsMs[number];
  }

  /** Returns the number of the rule that exempts the flow with this key, or NO_OPERATOR_RULE. */
  exemptOf(key: Int32Array): number {
    for (let place = 0; place < this.list.length; place++)
      if (isExempt(this.list[place]) && covers(this.list[place].match, key)) return place + 1;
    return NO_OPERATOR_RULE;
  }

  /** Whether a rule lets the time of replies in the flow with this key differ. */
  unifiesDate(key: Int32Array): boolean {
    return this.list.some(({ match, unify }) => unify === 'http-date' && covers(match, key));
  }

  /** Output of `length` bytes leaves by the rule with this number. */
  noteExempted(number: number, length: number): void {
    this.frames[number]++;
    this.bytes[number] += length;
  }

  /** Returns what the exempt rule of these flows has exempted; null if there is no such rule. */
  exemptedBy(match: string): Exempted | null {
    const place = this.list.findIndex((rule) => isExempt(rule) && describeMatch(rule.match) === match);
    return place < 0 ? null : { frames: this.frames[place + 1], bytes: this.bytes[place + 1] };
  }
}

const NOTHING: Exempted = { frames: 0, bytes: 0 };

/** Whether a rule leaves flows unprotected. */
export const isExempt = ({ exempt }: OperatorRule): boolean => exempt === true;
