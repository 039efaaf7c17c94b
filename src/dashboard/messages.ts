/** What the dashboard's process sends to the pages that are open, as server-sent events: one JSON object in each. */
import type { CheckpointReason } from '../checkpoint/report.ts';
import type { NodeEvent, NodeStatus, Phase } from '../observe/status.ts';

/** As much of the past as a page shows: fifteen minutes of samples, one per second. */
export const SAMPLES_MAX = 900;
/** As many events as a node has in memory (observe/event-log.ts). */
export const EVENTS_MAX = 1000;
/** Changes of state are rare, and outlive a flood of other events. */
export const TURNS_MAX = 200;

/** What happened between two looks at the node's status. Counts are of that time, the rest is as at its end. */
export type Sample = {
  /** Unix time of the second look */
  atMs: number;
  /** between the two looks; 0 if this is the first one, or the first after the node was away */
  forMs: number;
  phase: Phase;
  checkpoints: Partial<Record<CheckpointReason, number>>;
  /** the longest time that one of these checkpoints stopped the VM; null without any */
  pauseMsMax: number | null;
  held: { frames: number; bytes: number; oldestMs: number };
  matchedFrames: number;
  committedFrames: number;
  lagMs: { p50: number | null; p99: number | null };
};

/** The node does not reply: since when, and why. */
export type Away = { sinceMs: number; code: string; message: string };

/** The node's latest status, when it was received (Unix time), and whether it can still be had. */
export type View = {
  /** when this was sent */
  nowMs: number;
  status: NodeStatus | null;
  statusAtMs: number | null;
  away: Away | null;
};

export type FeedMessages = {
  /** First, once. `turns`: the events that are changes of state, of a longer time than `events`. */
  hello: View & { samples: Sample[]; events: NodeEvent[]; turns: NodeEvent[] };
  /** Once a second. `sample`: null while the node is away. */
  view: View & { sample: Sample | null };
  /** `missed`: so many others came before these, and are not shown. */
  events: { events: NodeEvent[]; missed: number };
};

/** A change of state, which the time line shows. */
export function isTurn(type: string): boolean {
  return TURN.test(type);
}

const TURN =
  /^(?:pair\.|failover\.|fence\.|arbiter\.(?:failed|replies)|link\.(?:up|lost)|sync\.|uplink\.(?:away|back)|vm\.(?:lost|trouble|rebooted|restarted)|node\.|compare\.unmatched)/;
