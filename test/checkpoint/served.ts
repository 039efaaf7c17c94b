/**
 * A pair that serves clients whose replies may differ, in steps of a millisecond, with the production code's policy and pacing. One
 * process in the VM serves all clients in turn; each client has one request under way.
 */
import { Pacing, type PacingChange } from '../../src/checkpoint/pacing.ts';
import { CheckpointPolicy } from '../../src/checkpoint/policy.ts';
import type { CheckpointReason } from '../../src/checkpoint/report.ts';
import type { Instant } from '../../src/units.ts';
import { differing } from '../divergence/differing.ts';

export const LIMITS = { intervalMsMax: 5000, waitMsMin: 5, waitMsMax: 200, ackWaitMsMax: 300 };
const REPLY_BYTES = 100;

export type Load = {
  clients: number;
  /** what a request takes of the VM's time */
  workMs: number;
  /** from a reply to the client's next request */
  restMs: number;
  differs(atMs: number): boolean;
  costMs(atMs: number): number;
};

export type Taken = {
  reason: CheckpointReason;
  startMs: number;
  endMs: number;
  mode: 'at-once' | 'periodic';
  /** the periodic mode's period then */
  periodMs: number;
  /** for how long the first difference had waited */
  waitedMs: number;
};

export type Served = {
  replies: number;
  taken: Taken[];
  changes: (PacingChange & { atMs: number })[];
};

/** `measured`: as a node; `at-once`: each difference takes its checkpoint at once, whatever it costs. */
export function serve(how: 'measured' | 'at-once', forMs: number, load: Load): Served {
  const served: Served = { replies: 0, taken: [], changes: [] };
  let nowMs = 0;
  const pacing = new Pacing((change) => served.changes.push({ ...change, atMs: nowMs }));
  const policy = how === 'measured' ? new CheckpointPolicy(LIMITS, pacing) : new CheckpointPolicy(LIMITS);
  const totals = { matched: 0, releasedByCommit: 0, releasedBytes: 0 };
  const requestsAtMs = Array.from({ length: load.clients }, () => 0);
  const queue: number[] = [];
  let held: number[] = [];
  let doneMs = 0;
  let divergedMs = 0;
  let running: Taken | null = null;

  const release = (client: number): void => {
    served.replies++;
    totals.releasedBytes += REPLY_BYTES;
    requestsAtMs[client] = nowMs + load.restMs;
  };
  const end = (taken: Taken): void => {
    for (const client of held) release(client);
    totals.releasedByCommit += held.length;
    held = [];
    const totalMs = taken.endMs - taken.startMs;
    policy.committed(nowMs as Instant, totalMs);
    pacing.committed({ reason: taken.reason, totalMs }, { ...totals }, nowMs as Instant);
    served.taken.push(taken);
    running = null;
  };
  const work = (): void => {
    for (const [client, atMs] of requestsAtMs.entries()) {
      if (atMs > nowMs) continue;
      queue.push(client);
      requestsAtMs[client] = Number.POSITIVE_INFINITY;
    }
    if (queue.length === 0 || ++doneMs < load.workMs) return;
    doneMs = 0;
    const client = queue.shift() as number;
    if (load.differs(nowMs)) {
      if (held.length === 0) divergedMs = nowMs;
      held.push(client);
      policy.diverged(differing('diverged-bytes'));
    } else {
      totals.matched++;
      release(client);
    }
  };

  end({ reason: 'initial', startMs: 0, endMs: 0, mode: 'at-once', periodMs: 0, waitedMs: 0 });
  for (; nowMs < forMs; nowMs++) {
    const taken = running as Taken | null;
    if (taken !== null && nowMs < taken.endMs) continue;
    if (taken !== null) end(taken);
    work();
    const reason = policy.due(nowMs as Instant, null, null);
    if (reason === null) continue;
    running = {
      reason,
      startMs: nowMs,
      endMs: nowMs + load.costMs(nowMs),
      mode: how === 'measured' && pacing.isPeriodic ? 'periodic' : 'at-once',
      periodMs: policy.periodMs,
      waitedMs: held.length === 0 ? 0 : nowMs - divergedMs,
    };
  }
  return served;
}
