/**
 * One question to several that could reply, in turn: the next is asked when the one before has failed, or has not replied for
 * a while; the first reply wins. One that hangs costs that while and no more, and one that is merely slow may still be first.
 *
 * All are asked again, each round twice as patiently, as long as some have neither replied nor failed: a member passes a change on to
 * the leader that it knows, and only once. If that is lost, the change gets no reply for five seconds, and the same change, asked again
 * after the election, gets one at once (findings/etcd-write-lost-in-election.sh).
 *
 * A question may so be carried out several times. Limits: every attempt ends with the deadline. Failure: the last of each.
 */
import { ColoError } from '../../error.ts';
import type { Timers } from '../../io/clock.ts';

export type Attempt<T> = (signal: AbortSignal) => Promise<T>;

/** `failures`: the last of each that was asked, null for one that has not failed. */
export type Outcome<T> =
  | { readonly kind: 'reply'; readonly value: T; readonly by: number }
  | { readonly kind: 'none'; readonly failures: readonly (ColoError | null)[] };

export type Patience = {
  /** In the first round: how long one is waited for before the next is asked as well. */
  readonly patienceMs: number;
  readonly deadlineMs: number;
  readonly timers: Timers;
};

/** Never rejects. An attempt rejects with a ColoError. */
export function askInTurn<T>(
  asked: readonly Attempt<T>[],
  { patienceMs, deadlineMs, timers }: Patience,
): Promise<Outcome<T>> {
  return new Promise((resolve) => {
    const ending = new AbortController();
    const failures: (ColoError | null)[] = asked.map(() => null);
    let begun = 0;
    let pending = 0;
    let cancelNext = (): void => {};
    const finish = (outcome: Outcome<T>): void => {
      cancelNext();
      cancelDeadline();
      resolve(outcome);
      ending.abort();
    };
    const cancelDeadline = timers.after(deadlineMs, () => finish({ kind: 'none', failures }));
    const failed = (place: number, isLatest: boolean, cause: unknown): void => {
      failures[place] = cause instanceof ColoError ? cause : unexpected(cause);
      if (begun < asked.length) {
        if (isLatest) next();
      } else if (pending === 0) finish({ kind: 'none', failures });
    };
    const next = (): void => {
      cancelNext();
      const number = begun++;
      const place = number % asked.length;
      pending++;
      cancelNext = timers.after(patienceMs * 2 ** Math.floor(number / asked.length), next);
      asked[place](ending.signal).then(
        (value) => {
          if (!ending.signal.aborted) finish({ kind: 'reply', value, by: place });
        },
        (cause: unknown) => {
          pending--;
          if (!ending.signal.aborted) failed(place, number === begun - 1, cause);
        },
      );
    };
    next();
  });
}

function unexpected(cause: unknown): ColoError {
  return new ColoError('COLO_ARBITER_UNREACHABLE', String(cause), { cause });
}
