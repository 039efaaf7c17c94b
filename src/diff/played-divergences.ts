/** The divergences of a replay: their classes, counts by reason and class, and their findings. */
import type { Comparator } from '../compare/comparator.ts';
import { AT, INDEX, NO_FRAME, SLAB } from '../compare/held-frames.ts';
import type { DivergenceReason } from '../compare/verdict.ts';
import type { Divergence, Explained } from '../divergence/explained.ts';
import { Explainer, FrameExplainer, type SentFrame } from '../divergence/explainer.ts';
import type { FrameId, SlabId } from '../units.ts';
import type { Datagrams } from './datagrams.ts';
import type { Findings } from './findings.ts';
import type { FlowRecord, StoredFrame } from './flow-record.ts';
import type { FrameStore } from './frame-store.ts';

/** As many as of a comparator's frames: explainer.ts. */
const OTHERS_MAX = 128;

export class PlayedDivergences {
  readonly byReason: Record<string, number> = {};
  readonly byClass: Record<string, number> = {};
  flowsDiverged = 0;
  private readonly comparator: Comparator;
  private readonly store: FrameStore;
  private readonly found: Findings;
  private readonly explainer: Explainer;
  private readonly frames = new FrameExplainer('plain');

  constructor(comparator: Comparator, store: FrameStore, found: Findings) {
    this.comparator = comparator;
    this.store = store;
    this.found = found;
    this.explainer = new Explainer(comparator, store.slabs, 'plain');
  }

  /** The comparator has found one. Returns it, and the SVM frame that differs, if it is one frame. */
  compared(
    key: Int32Array,
    reason: DivergenceReason,
    primary: FrameId,
    secondary: FrameId,
  ): { divergence: Divergence; frame: StoredFrame; other: StoredFrame | undefined } {
    const { words } = this.comparator.frames;
    const frame = this.store.heldAt(words[primary + SLAB] as SlabId, words[primary + AT]);
    const other = secondary === NO_FRAME ? undefined : this.store.retained.get(words[secondary + INDEX]);
    const divergence = this.explainer.explain(key, reason, primary, secondary);
    this.count(divergence, frame.flow);
    this.found.diverged(divergence, frame, other ?? null);
    return { divergence, frame, other };
  }

  /** A checkpoint has released everything. */
  forget(): void {
    this.explainer.forget();
  }

  /** Two datagrams differ, one of which came too late to be compared. Returns how. */
  datagrams(
    primary: StoredFrame,
    secondary: StoredFrame,
    { unmatched, withheld }: Datagrams,
  ): DivergenceReason {
    const reason = primary.payloadBytes === secondary.payloadBytes ? 'diverged-bytes' : 'diverged-length';
    const others: SentFrame[] = [];
    for (const [side, frames] of [
      ['primary', unmatched],
      ['secondary', withheld],
    ] as const) {
      let left = OTHERS_MAX;
      for (const frame of frames) {
        if (left-- === 0) break;
        others.push({ side, frame: this.store.bytesOf(frame) });
      }
    }
    const explained = this.explain(reason, primary, secondary, others);
    this.count({ reason, ...explained }, primary.flow);
    this.found.differed({ reason, ...explained }, primary, secondary);
    return reason;
  }

  /** Two segments differ in bytes that came behind a gap. */
  inGap(primary: StoredFrame, secondary: StoredFrame, primaryOffset: number, secondaryOffset: number): void {
    const divergence = {
      reason: 'diverged-bytes',
      ...this.explain('diverged-bytes', primary, secondary, []),
    };
    this.count(divergence, primary.flow);
    this.found.differedInGap(divergence, primary, secondary, primaryOffset, secondaryOffset);
  }

  private explain(
    reason: DivergenceReason,
    primary: StoredFrame,
    secondary: StoredFrame,
    others: SentFrame[],
  ): Explained {
    const { store } = this;
    return this.frames.explain(reason, store.bytesOf(primary), store.bytesOf(secondary), others);
  }

  private count({ reason, class: one }: Explained & { reason: string }, flow: FlowRecord): void {
    this.byReason[reason] = (this.byReason[reason] ?? 0) + 1;
    this.byClass[one] = (this.byClass[one] ?? 0) + 1;
    if (flow.divergences++ === 0) this.flowsDiverged++;
  }
}
