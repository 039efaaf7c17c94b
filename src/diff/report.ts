/** The JSON of `colo diff`, which docs/diff.md explains. Names that end in Ms are milliseconds. */

import type { DivergenceClass } from '../divergence/explained.ts';

/** Of the two VMs, or of their recordings. */
export type Side = 'primary' | 'secondary';

export type FoundFrame = {
  /** As Wireshark counts, from 1. */
  frame: number;
  /** Unix time, by the clock of its own file. */
  atMs: number;
  /** Null if it is not TCP. */
  flags: string | null;
  /** The bytes around the difference, and their place in the frame's payload. */
  payloadOffset: number;
  hex: string;
};

export type Finding = {
  reason: string;
  /** Of a divergence: what the VMs differ in (docs/divergences.md), and what was recognised. */
  class: DivergenceClass | null;
  why: string | null;
  flow: string;
  /** Since the first frame of the primary's file. */
  timeMs: number;
  /** Earlier findings in the same flow: this one may follow from them. */
  earlierInFlow: number;
  /** TCP: the byte of the stream, counted from the SYN or the first byte seen, from 0. Others: the datagram, from 1. */
  position: { unit: 'byte' | 'datagram'; at: number } | null;
  primary: FoundFrame | null;
  secondary: FoundFrame | null;
  /** For a wait: how long after the frame its counterpart came; null if it never did. */
  cameAfterMs: number | null;
};

/** Bytes of a TCP stream that are missing in a recording: the stream goes on behind them. */
export type GapReport = {
  flow: string;
  /** When it was noticed, since the first frame of the primary's file. */
  timeMs: number;
  /** Its first byte in the stream, as in a finding's position. */
  at: number;
  bytes: number;
  /** Which recording has them. They are compared if both have, and such are not reported. */
  in: 'neither' | 'primary' | 'secondary';
};

export type SideCounts = {
  file: string;
  frames: number;
  /** Sent by the VM. */
  output: number;
  input: number;
  /** Of other hosts, or of other interfaces. */
  foreign: number;
  /** Cut by the snapshot length of the capture. */
  cut: number;
  malformed: number;
  /** From before both captures had begun, or after one had ended. */
  outside: number;
  /** Of connections that cannot be compared. */
  leftOut: number;
};

export type ReplayCounts = {
  flows: number;
  flowsLeftOut: number;
  matched: number;
  /** Datagrams that were recognised by their payload, out of order. */
  matchedLate: number;
  harmless: number;
  releasedByCheckpoint: number;
  heldAtEnd: number;
  /** Frames with bytes that are missing in a recording: these bytes were not compared. */
  inGaps: number;
  /** Frames that were captured twice. */
  duplicates: number;
  /** Datagrams near the beginning whose counterpart may lie before it. */
  nearBeginning: number;
  /** SVM frames that were given up: the PVM never sent their counterpart. */
  secondaryUnmatched: number;
  /** By reason; `flowsDiverged` is the number of their flows. */
  divergences: Record<string, number>;
  divergencesByClass: Record<string, number>;
  flowsDiverged: number;
  checkpoints: Record<string, number>;
  waits: { p50Ms: number; p99Ms: number; maxMs: number };
};

export type DiffReport = {
  version: 1;
  vm: { mac: string | null; how: string };
  clocks: { secondaryAheadMs: number; how: string };
  durationMs: number;
  primary: SideCounts;
  secondary: SideCounts;
  compared: ReplayCounts;
  /** The checkpoints that a pair would have taken, per second of the recording. */
  checkpointsPerSecond: number;
  findings: readonly Finding[];
  findingsLeftOut: number;
  /** Up to as many as findings. */
  gaps: readonly GapReport[];
  warnings: string[];
};
