/** The table of rules: one object for each number in RULE. A new rule gets its row here (docs/comparison.md). */
import { invariant } from '../../error.ts';
import type { Framing } from '../../frames/frame-reader.ts';
import type { Limits } from '../../limits.ts';
import { RULE } from '../classes.ts';
import type { Holding } from '../holding.ts';
import type { Rule } from '../rule.ts';
import { DatagramRule } from './datagram.ts';
import { ExemptRule } from './exempt.ts';
import { IcmpRule } from './icmp-error.ts';
import { TcpRule } from './tcp.ts';

export type RuleOptions = { framing: Framing; limits: Limits; lane: 'lane' | 'no-lane' };

/** Returns the table, and by themselves the rules that the comparator asks for by name: TCP's on its lanes, and that of exempt flows. */
export function makeRules(
  holding: Holding,
  { framing, limits, lane }: RuleOptions,
): { rules: readonly Rule[]; tcp: TcpRule; exempt: ExemptRule } {
  const tcp = new TcpRule(holding, framing, limits, lane);
  const exempt = new ExemptRule(holding);
  const rules: Rule[] = [];
  rules[RULE.datagram] = new DatagramRule(holding, framing);
  rules[RULE.tcp] = tcp;
  rules[RULE.icmp] = new IcmpRule(holding, framing);
  rules[RULE.exempt] = exempt;
  invariant(
    Object.values(RULE).every((number) => rules[number] !== undefined),
    'a flow can have a rule that is not in the table',
  );
  return { rules, tcp, exempt };
}
