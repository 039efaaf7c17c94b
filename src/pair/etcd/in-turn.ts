/**
 * One question to several that could reply, in turn: the next is asked when the one before has failed, or has not replied for
 * a while; the first reply wins. One that hangs costs that while and no more, and one that is merely slow may still be first.
 *
 * A question may so be carried out several times. Limits: every attempt ends with the deadline. Failure: all attempts'.
 */
import { ColoError } from '../../error.ts';
import type { Timers } from '../../io/clock.ts';

export type Attempt<T> = (signal: AbortSignal) => Promise<T>;

/** `failures`: one for each attempt, null for one that had not failed by the deadline. */
export type Outcome<T> =
  | { readonly kind: 'reply'; readonly value: T; readonly by: number }
  | { readonly kind: 'none'; readonly failures: readonly (ColoError | null)[] };

export type Patience = {
  /** How long one is waited for before the next is asked as well. */
  readonly patienceMs: number;
  readonly deadlineMs: number;
  readonly timers: Timers;
};

/** Never rejects. An attempt rejects with a ColoError. */
export function askInTurn<T>(
  attempts: readonly Attempt<T>[],
  { patienceMs, deadlineMs, timers }: Patience,
): Promise<Outcome<T>> {
  return new Promise((resolve) => {
    const ending = new AbortController();
    const failures: (ColoError | null)[] = attempts.map(() => null);
    let begun = 0;
    let failed = 0;
    let cancelNext = (): void => {};
    const finish = (outcome: Outcome<T>): void => {
      cancelNext();
      cancelDeadline();
      resolve(outcome);
      ending.abort();
    };
    const cancelDeadline = timers.after(deadlineMs, () => finish({ kind: 'none', failures: [...failures] }));
    const next = (): void => {
      cancelNext();
      if (ending.signal.aborted || begun === attempts.length) return;
      const place = begun++;
      cancelNext = timers.after(patienceMs, next);
      attempts[place](ending.signal).then(
        (value) => {
          if (!ending.signal.aborted) finish({ kind: 'reply', value, by: place });
        },
        (cause: unknown) => {
          if (ending.signal.aborted) return;
          failures[place] = cause instanceof ColoError ? cause : unexpected(cause);
          if (++failed === attempts.length) finish({ kind: 'none', failures });
          else if (place === begun - 1) next();
        },
      );
    };
    next();
  });
}

function unexpected(cause: unknown): ColoError {
  return new ColoError('COLO_ARBITER_UNREACHABLE', String(cause), { cause });
}
