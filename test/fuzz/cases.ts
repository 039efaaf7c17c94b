/** How many cases, and from which seed. What CI runs is fixed; by hand both are given (docs/testing.md). */
import { InvariantError } from '../../src/error.ts';
import { Dice } from '../dice.ts';

const SEED = Number(process.env.COLO_FUZZ_SEED ?? 1);
/** A multiple of what each test would do. */
const TIMES = Number(process.env.COLO_FUZZ_CASES ?? 1);

/** Runs `play` with a seed after the other; what it throws names the seed that throws it again. */
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
