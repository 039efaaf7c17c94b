/**
 * Every invariant of `src` is shown to fire: a `Break` damages the production code in one place, and the test that it
 * names must then fail with that invariant. `npm run invariants` runs them (main.ts); breaks.test.ts checks their texts.
 *
 * The lists are in breaks-AREA.ts, one file for each area of the code, and all.ts joins them.
 */
import type { Patch } from '../sim/mutation/patch.ts';

export type Break = Patch & {
  /**
   * The beginning of the invariant's message or, where that is not literal text, any literal part of it. It stands in
   * exactly one `invariant(...)` of `src`, spelt as there. The patched file may be another one than that.
   */
  readonly message: string;
  /** The test file that must fail, or the seed of a simulated world that must report the invariant. */
  readonly test: string | number;
  /** Runs only the tests whose title matches this pattern: for a file that takes seconds. */
  readonly only?: string;
};
