/**
 * How late the SVM is: by how much its output arrives after the PVM's, as this node sees it.
 *
 * One sample per batch of frames at most, so that nothing is done per frame. Between two batches the lag watches the frame of
 * each VM that has been held longest. If that frame is no longer held at the end of the next batch, it has found its
 * counterpart: a PVM frame that waited is a positive sample, an SVM frame that waited a negative one. PVM output that is
 * overdue counts with the time that it has waited so far: the checkpoint that follows hides the rest. A commit is no sample.
 *
 * The link's delay is part of it: clients wait for that too.
 */
import { type ArrivalList, type HeldFrames, type HeldOfBoth, NO_FRAME } from '../compare/held-frames.ts';
import type { FrameId, Instant } from '../units.ts';

/** Enough for a steady p99, and a few seconds of a busy service. */
export const LAG_SAMPLES = 512;

/** Milliseconds; negative: the SVM is ahead. Null without a sample. */
export type Lag = { p50: number | null; p99: number | null };

/** Of one VM: the frame that has been held longest, and since when. A row that is used again has another time. */
type Oldest = { readonly list: ArrivalList; readonly sign: 1 | -1; frame: FrameId; sinceMs: number };

export class SvmLag {
  private readonly frames: HeldFrames;
  private readonly samples = new Float64Array(LAG_SAMPLES);
  private count = 0;
  private readonly pvm: Oldest;
  private readonly svm: Oldest;

  constructor({ frames, primary, secondary }: HeldOfBoth) {
    this.frames = frames;
    this.pvm = { list: primary, sign: 1, frame: NO_FRAME, sinceMs: 0 };
    this.svm = { list: secondary, sign: -1, frame: NO_FRAME, sinceMs: 0 };
  }

  /** A batch of either VM's frames has been compared. */
  batchEnd(nowMs: Instant): void {
    this.follow(this.pvm, nowMs);
    this.follow(this.svm, nowMs);
  }

  /** The PVM's output is overdue, and a checkpoint is due. */
  overdue(nowMs: Instant): void {
    const { oldest } = this.pvm.list;
    if (oldest !== NO_FRAME) this.add(nowMs - this.frames.since(oldest));
  }

  /** A commit has ended all waits, or the pair is over. */
  forget(): void {
    this.pvm.frame = NO_FRAME;
    this.svm.frame = NO_FRAME;
  }

  /** Of the last LAG_SAMPLES samples. */
  quantiles(): Lag {
    const sorted = this.samples.slice(0, Math.min(this.count, LAG_SAMPLES)).sort();
    const at = (q: number) => sorted[Math.ceil(q * sorted.length) - 1] ?? null;
    return { p50: at(0.5), p99: at(0.99) };
  }

  private follow(one: Oldest, nowMs: Instant): void {
    const { oldest } = one.list;
    const sinceMs = oldest === NO_FRAME ? 0 : this.frames.since(oldest);
    if (oldest === one.frame && sinceMs === one.sinceMs) return;
    if (one.frame !== NO_FRAME) this.add(one.sign * (nowMs - one.sinceMs));
    one.frame = oldest;
    one.sinceMs = sinceMs;
  }

  private add(ms: number): void {
    this.samples[this.count++ % LAG_SAMPLES] = ms;
  }
}
