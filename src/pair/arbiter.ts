/**
 * The arbiter: the one place that says who may speak. It stores the pair's record and changes it only by
 * compare-and-swap, so of two nodes that want different things exactly one gets its way.
 */
export type PairRecord = {
  /** Grows by one with every change: the number of the pair's membership. */
  generation: number;
  /** alone: only `primary` has the VM. pair: `secondary` has a copy and may take over. */
  state: 'alone' | 'pair';
  primary: string;
  secondary: string | null;
};

export type Held = { revision: number; record: PairRecord | null };

export interface Arbiter {
  /** Throws COLO_ARBITER_UNREACHABLE. */
  read(): Promise<Held>;
  /**
   * Stores `record` if the revision is still `revision`. Answers what is stored now and whether it was this call.
   * When it throws, the outcome is unknown: read again.
   */
  compareAndSwap(revision: number, record: PairRecord): Promise<Held & { won: boolean }>;
}
