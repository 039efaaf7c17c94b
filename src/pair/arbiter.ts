/**
 * The arbiter: the one place that decides who may speak. It stores the pair's record and changes it only by
 * compare-and-swap, so of two nodes that want different changes exactly one wins.
 */
import { z } from 'zod';

export type PairRecord = {
  /** Grows by one with every change: the number of the pair's membership. */
  generation: number;
  /** alone: only `primary` has the VM. pair: `secondary` has a copy and may be promoted. */
  state: 'alone' | 'pair';
  primary: string;
  secondary: string | null;
};

/** The schema of a stored record: an arbiter checks each record that it reads back. */
export const recordSchema = z.strictObject({
  generation: z.int().positive(),
  state: z.enum(['alone', 'pair']),
  primary: z.string(),
  secondary: z.string().nullable(),
});

/** The record and the arbiter's own number of this version; `record` is null before the first change. */
export type Stored = { revision: number; record: PairRecord | null };

export interface Arbiter {
  /** Throws COLO_ARBITER_UNREACHABLE. */
  read(): Promise<Stored>;
  /**
   * Stores `record` if the revision is still `revision`. Returns what is stored now, and whether this call won.
   * When it throws COLO_ARBITER_UNREACHABLE the outcome is unknown: read again.
   */
  compareAndSwap(revision: number, record: PairRecord): Promise<Stored & { won: boolean }>;
}
