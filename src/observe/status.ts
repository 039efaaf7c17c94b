/** What a node tells of itself: the shapes behind `colo status`, `colo events` and the HTTP API. */

import type { CheckpointReason, CheckpointReport } from '../checkpoint/report.ts';

export type Role = 'primary' | 'secondary';

/**
 * starting: nothing decided yet. alone: the VM runs here, unprotected. syncing: a first full copy is under way.
 * protected: both VMs run. promoting: this node is taking over. fenced: lost the right to speak. stopped: done.
 */
export type Phase = 'starting' | 'alone' | 'syncing' | 'protected' | 'promoting' | 'fenced' | 'stopped';

export type FailoverReport = {
  generation: number;
  cause: string;
  /** from the last sign of life of the peer to the decision that it is dead */
  detectMs: number;
  /** arbiter, lease and QEMU, until the VM spoke again */
  promoteMs: number;
  atMs: number;
};

export type NodeStatus = {
  node: string;
  pair: string;
  role: Role | null;
  phase: Phase;
  generation: number;
  epoch: number;
  /** lastHeardMs: how long ago */
  peer: { name: string | null; connected: boolean; lastHeardMs: number | null };
  vm: { running: boolean; pid: number | null; qemu: string | null; accel: string | null };
  checkpoints: {
    count: number;
    byReason: Partial<Record<CheckpointReason, number>>;
    pauseMs: { p50: number | null; p99: number | null };
    last: CheckpointReport | null;
  };
  /** oldestMs: how long the oldest has waited, 0 when nothing is held */
  held: { frames: number; bytes: number; oldestMs: number };
  flows: { tcp: number; other: number; translated: number };
  divergences: { count: number; last: { flow: string; reason: string; atMs: number } | null };
  traffic: {
    inputFrames: number;
    inputBytes: number;
    releasedFrames: number;
    releasedBytes: number;
    peerFrames: number;
    malformedFrames: number;
    droppedFrames: number;
  };
  failover: FailoverReport | null;
};

/** One line of the append-only event log. `type` is dotted: "checkpoint.committed", "link.lost", ... */
export type NodeEvent = {
  seq: number;
  at: string;
  node: string;
  type: string;
  [detail: string]: unknown;
};

/** What the API and the CLI can ask of a running node. */
export type NodeControl = {
  status(): NodeStatus;
  /** Takes a checkpoint now and resolves when it committed. Rejects with a ColoError when not protected. */
  checkpoint(): Promise<CheckpointReport>;
  /** On a secondary: takes over. On a primary: goes on alone. */
  failover(): Promise<void>;
  /** A lone primary takes the connected candidate as its new secondary; resolves once protected. */
  protect(): Promise<void>;
  stop(): Promise<void>;
  /** Starts a pcapng at `path`; it ends by itself after `bytesMax` bytes, or on stopCapture. */
  startCapture(path: string, bytesMax: number): void;
  stopCapture(): { path: string; frames: number } | null;
};
