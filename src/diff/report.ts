/** What `colo diff` finds: the shapes of its JSON, which docs/diff.md explains. Times that end in Ms are milliseconds. */

export type FoundFrame = {
  /** as Wireshark counts, from 1 */
  frame: number;
  /** Unix time by the clock of its own file */
  atMs: number;
  /** of TCP, null for others */
  flags: string | null;
  /** bytes from shortly before the difference on, and where in the frame's payload they begin */
  payloadOffset: number;
  hex: string;
};

export type Finding = {
  reason: string;
  flow: string;
  /** since the first frame of the primary's file */
  timeMs: number;
  /** findings in the same flow before this one: it may follow from them */
  earlierInFlow: number;
  /** TCP: the byte of the stream from 0, counted from the SYN or from the first byte seen; else: which datagram, from 1 */
  position: { unit: 'byte' | 'datagram'; at: number } | null;
  primary: FoundFrame | null;
  secondary: FoundFrame | null;
  /** of waits: when the counterpart came after all, counted from the frame that waited; null for never */
  cameAfterMs: number | null;
};

export type SideCounts = {
  file: string;
  frames: number;
  /** the VM's own */
  output: number;
  input: number;
  /** of others, or of other interfaces */
  foreign: number;
  /** cut by the snapshot length of the capture */
  cut: number;
  malformed: number;
  /** before both captures had begun, or after one had ended */
  outside: number;
  /** of connections that cannot be compared */
  leftOut: number;
};

export type ReplayCounts = {
  flows: number;
  flowsLeftOut: number;
  matched: number;
  /** datagrams that were known again by their payload, out of order: beside or after what was compared */
  matchedLate: number;
  harmless: number;
  releasedByCheckpoint: number;
  heldAtEnd: number;
  /** the secondary's, given up: the primary never said as much */
  secondaryUnmatched: number;
  /** by reason; flowsDiverged is how many flows they are in */
  divergences: Record<string, number>;
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
  /** checkpoints that it would have cost, per second of the recording */
  checkpointsPerSecond: number;
  findings: Finding[];
  findingsLeftOut: number;
  warnings: string[];
};
