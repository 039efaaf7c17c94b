import type { DivergenceReason } from '../../src/compare/verdict.ts';
import type { Divergence } from '../../src/divergence/explained.ts';

/** A divergence of which only the reason matters. */
export function differing(reason: DivergenceReason): Divergence {
  const flow = 'tcp 10.0.2.15:80 <-> 10.0.2.2:40000';
  return { reason, flow, service: 'tcp 80', class: 'clock', why: 'a time of day' };
}
