/**
 * The arbiter: the one place that decides who may speak. It stores the pair's record and changes it only by
 * compare-and-swap, so of two nodes that want different changes exactly one wins.
 */
import { z } from 'zod';

export type PairRecord = {
  /** Grows by one with every change: the number of the pair's membership. */
  generation: number;
  /**
   * alone: only `primary` has the VM. pair: `secondary` has a copy and may be promoted. fencing: `primary` has won against
   * `secondary`, the former primary, and becomes alone when that one is cut off.
   */
  state: 'alone' | 'pair' | 'fencing';
  primary: string;
  secondary: string | null;
};

/** The schema of a stored record: an arbiter checks each record that it reads back. */
export const recordSchema = z.strictObject({
  generation: z.int().positive(),
  state: z.enum(['alone', 'pair', 'fencing']),
  primary: z.string(),
  secondary: z.string().nullable(),
});

/** The record and the arbiter's own number of this version; `record` is null before the first change. */
export type Stored = { revision: number; record: PairRecord | null };

/**
 * What an arbiter promises, and test/pair/arbiter-conformance.ts tries on each. Every call rejects with a ColoError whose code begins
 * with COLO_ARBITER_ when there is no reply.
 */
export interface Arbiter {
  /** Returns what is stored: no older than any change that a reply has reported. */
  read(): Promise<Stored>;
  /**
   * Stores `record` if the revision is still `revision`. Returns what is stored now, and whether this call won.
   * When it rejects, the outcome is unknown, **and stays so for a while**: the change may be made later, if the revision is still
   * `revision` by then. Only a later reply says what became of it.
   */
  compareAndSwap(revision: number, record: PairRecord): Promise<Stored & { won: boolean }>;
  /** Changes nothing, and resolves only if a change could be made now. Returns what is stored. */
  probe(): Promise<Stored>;
  /** Ends its connections, if it has any. */
  close(): void;
}
