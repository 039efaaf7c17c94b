/** What the comparator decides about held output, and why two VMs diverge. */

import { WAITS_FOR } from './held-frames.ts';

/** A frame that has to wait has the verdict's value in its WAITS. */
export const VERDICT = {
  match: 0,
  waitForBytes: WAITS_FOR.bytes,
  waitForAck: WAITS_FOR.ack,
  diverged: 3,
} as const;
export type Verdict = (typeof VERDICT)[keyof typeof VERDICT];

/**
 * signed: a connection begins whose signature covers its sequence numbers; only a checkpoint makes them equal in both
 * VMs. fragments: the PVM's fragments overlap, so it is unknown what they mean.
 */
export type DivergenceReason =
  | 'diverged-bytes'
  | 'diverged-flags'
  | 'diverged-length'
  | 'diverged-signed'
  | 'diverged-fragments';

/**
 * Why a frame was released: shown in captures and counted. `repeat`: the client has all that it carries, so the SVM need not
 * send it again. Only a `match` shows that the SVM sends what the PVM does. `made`: by the comparator, out of a VM's segment
 * (rules/tcp-exit.ts). `exempt`: an operator has taken its flow out of the comparison (operator-rules.ts).
 */
export type ReleaseCause = 'match' | 'made' | 'repeat' | 'harmless' | 'exempt' | 'commit' | 'alone';
