/**
 * When a primary gives way to its secondary because clients do not reach it: its uplink is away, the secondary's is up.
 *
 * Goal: clients stand for a stated time, not for as long as the uplink is away; and a pair does not move to and fro.
 * Tracked: for how long each of the two uplinks has been up or away, as each node sees its own; and when this node became the primary
 * in the place of another one.
 *
 * | the primary's uplink      | the secondary's             | since this node's promotion | decision                          |
 * |---------------------------|-----------------------------|-----------------------------|-----------------------------------|
 * | up, or away for less than `awayMsMax` | any             | any                         | `stay`                            |
 * | away for `awayMsMax`      | not known, or away          | any                         | `peer-away`: nobody moves         |
 * | away for `awayMsMax`      | up for less than `awayMsMax`| any                         | `peer-away`: it may go again      |
 * | away for `awayMsMax`      | up for `awayMsMax`          | less than `holdDownMs`      | `hold-down`                       |
 * | away for `awayMsMax`      | up for `awayMsMax`          | `holdDownMs`, or it booted  | `yield`                           |
 *
 * Each yield ends in a promotion, and a promoted node holds down for `holdDownMs`: so two moves of this kind are at least so far
 * apart, whatever the two uplinks do. A crash is not held down: the machine (machine.ts) promotes after one as ever.
 *
 * A yield is an offer: the secondary takes it only while its own uplink is up, and asks for the takeover as `colo failover` does. If it
 * does not, nothing has changed, and the offer is repeated.
 */
import type { UplinkCause } from '../link/uplink-message.ts';

/** `cause`: null while the uplink is up; `sinceMs` by the clock of this node. */
export type UplinkState = { readonly cause: UplinkCause | null; readonly sinceMs: number };

export type YieldDecision = 'stay' | 'peer-away' | 'hold-down' | 'yield';

export function decideYield(options: {
  own: UplinkState;
  /** null: not known */
  peer: UplinkState | null;
  /** when this node was promoted; null if it booted its VM */
  promotedAtMs: number | null;
  nowMs: number;
  awayMsMax: number;
  holdDownMs: number;
}): YieldDecision {
  const { own, peer, promotedAtMs, nowMs, awayMsMax, holdDownMs } = options;
  if (own.cause === null || nowMs - own.sinceMs < awayMsMax) return 'stay';
  if (peer === null || peer.cause !== null || nowMs - peer.sinceMs < awayMsMax) return 'peer-away';
  if (promotedAtMs !== null && nowMs - promotedAtMs < holdDownMs) return 'hold-down';
  return 'yield';
}
