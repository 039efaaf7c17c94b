/** How many cases run, and from which seed. Both are fixed in CI, and can be given by hand (docs/testing.md). */
import { InvariantError } from '../../src/error.ts';
import { Dice } from '../dice.ts';

const SEED = Number(process.env.COLO_FUZZ_SEED ?? 1);
/** A factor for the number of cases of each test. */
const TIMES = Number(process.env.COLO_FUZZ_CASES ?? 1);

/** Runs `play` with one seed after the other; an error that it throws names the seed. */
export async function fuzz(cases: number, play: (dice: Dice) => void | Promise<void>): Promise<void> {
  for (let seed = SEED; seed < SEED + cases * TIMES; seed++) {
    try {
      await play(new Dice(seed));
    } catch (cause) {
      const kind = cause instanceof InvariantError ? 'an assertion of the code itself' : 'a property';
      throw new Error(
        `seed ${seed}: ${kind} does not hold: ${cause instanceof Error ? cause.message : cause}`,
        {
          cause,
        },
      );
    }
  }
}
