/**
 * The events of `colo compare` and `colo rewrite`, and the details of each. docs/drop-in.md lists them, and a test
 * compares that list with this one. Names and details are a contract with scripts.
 */
import type { Unmatched } from '../checkpoint/match-watch.ts';
import type { CheckpointReason } from '../checkpoint/report.ts';
import type { DivergenceClass } from '../divergence/explained.ts';

type Nothing = Record<string, never>;

export type CompareReport = {
  primaryFrames: number;
  secondaryFrames: number;
  releasedFrames: number;
  releasedBytes: number;
  droppedFrames: number;
  noRoomPrimary: number;
  noRoomSecondary: number;
  noRoomOut: number;
  matched: number;
  /** released: the client had all of it already */
  repeated: number;
  /** released by checkpoints, without a counterpart, or when COLO ended */
  releasedByCommit: number;
  divergences: number;
  asked: number;
  committed: number;
  malformed: number;
};

export type RewriteReport = {
  inputFrames: number;
  outputFrames: number;
  droppedInput: number;
  droppedOutput: number;
  noRoomInput: number;
  noRoomOutput: number;
  connections: number;
  checkpoints: number;
};

export type DropInEvents = {
  'compare.started': Nothing;
  'compare.unasked': { message: string };
  'compare.unknown': { meanwhile: 'released' | 'held'; message: string };
  'compare.alone': { released: number };
  'compare.unmatched': Unmatched;
  'compare.unmatched-over': { cause: 'match' | 'pair-ended'; forMs: number };
  'compare.unanswered': { message: string };
  'compare.broken': { message: string };
  'compare.report': CompareReport;
  'compare.stopped': CompareReport;
  'checkpoint.asked': { reason: CheckpointReason; flow?: string; class?: DivergenceClass };
  'checkpoint.committed': { released: number; tookMs: number | null };
  'notify.unknown': { message: string };

  'rewrite.started': Nothing;
  'rewrite.blind': { message: string };
  'rewrite.waiting': Nothing;
  'rewrite.following': Nothing;
  'rewrite.alone': { connections: number; lost: number };
  'rewrite.report': RewriteReport;
  'rewrite.stopped': RewriteReport;
  'checkpoint.seen': { connections: number };
  'translate.signed': { flow: string };

  'stream.up': { place: string };
  'stream.down': { place: string; cause: string };
  'stream.refused': { place: string; cause: string; count: number };
  'stream.cut': { place: string; message: string };
  'frames.dropping': { place: string };
  'frames.dropped': { place: string; frames: number };
  'qmp.up': Nothing;
  'qmp.down': { cause: string };
  'qmp.refused': { message: string };
  'colo.exit': { mode: string; reason: string };
  'events.unprinted': { events: number };
};

export type EmitDropIn = <Type extends keyof DropInEvents>(type: Type, details: DropInEvents[Type]) => void;
