import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EPOCHS_UNMATCHED_MAX, MatchWatch, type Unmatched } from '../../src/checkpoint/match-watch.ts';
import type { Instant } from '../../src/units.ts';

/** Epochs of one second; each says what was released by match and by commit, and how many frames the SVM sent. */
function play(epochs: readonly [matched: number, byCommit: number, svm: number][]) {
  const log: (string | Unmatched)[] = [];
  const totals = { matched: 7, releasedByCommit: 3, secondaryFrames: 11 };
  let nowMs = 0;
  const watch = new MatchWatch({
    unmatched: (seen) => log.push(seen),
    over: (cause, forMs) => log.push(`${cause} ${forMs}`),
  });
  watch.committed({ ...totals }, nowMs as Instant);
  for (const [matched, byCommit, svm] of epochs) {
    totals.matched += matched;
    totals.releasedByCommit += byCommit;
    totals.secondaryFrames += svm;
    nowMs += 1000;
    watch.committed({ ...totals }, nowMs as Instant);
  }
  return { log, watch, nowMs, totals };
}

const N = EPOCHS_UNMATCHED_MAX;
const rows = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value);

test('a secondary that never sends anything is reported after N epochs, once', () => {
  assert.deepEqual(play(rows(N - 1, [0, 2, 0])).log, []);
  const seen = { epochs: N, releasedFrames: 2 * N, secondaryFrames: 0, forMs: N * 1000 };
  assert.deepEqual(play(rows(N, [0, 2, 0])).log, [seen]);
  const { log, watch } = play(rows(5 * N, [0, 2, 0]));
  assert.deepEqual(log, [seen]);
  assert.equal(watch.epochs, 5 * N);
});

test('a secondary whose output never matches is reported with the frames that it sent', () => {
  const { log, watch, totals } = play([[5, 0, 5], ...rows<[number, number, number]>(N, [0, 1, 3])]);
  assert.equal((log[0] as Unmatched).secondaryFrames, 3 * N);
  assert.equal(watch.secondaryFramesSince(totals.secondaryFrames + 2), 3 * N + 2);
});

test('an idle service is no evidence, either way', () => {
  assert.deepEqual(play(rows(100, [0, 0, 0])).log, []);
  const epochs = rows(N, [0, 1, 0] as [number, number, number]).flatMap((one) => [
    one,
    ...rows(20, [0, 0, 0] as [number, number, number]),
  ]);
  assert.equal(play(epochs).log.length, 1);
});

test('one match starts the count again', () => {
  assert.deepEqual(
    play([
      ...rows<[number, number, number]>(N - 1, [0, 1, 0]),
      [1, 5, 1],
      ...rows<[number, number, number]>(N - 1, [0, 1, 0]),
    ]).log,
    [],
  );
});

test('the first match, or the end of the pair, ends it', () => {
  const dead = rows<[number, number, number]>(N + 4, [0, 1, 0]);
  const matched = play([...dead, [1, 1, 1], [0, 1, 0]]);
  assert.equal(matched.log[1], `match ${(N + 5) * 1000}`);
  assert.equal(matched.log.length, 2);
  assert.equal(matched.watch.isUnmatched, false);
  assert.equal(matched.watch.epochs, 1);
  const ended = play(dead);
  ended.watch.pairEnded(ended.nowMs as Instant);
  ended.watch.pairEnded(ended.nowMs as Instant);
  assert.deepEqual(ended.log.slice(1), [`pair-ended ${(N + 4) * 1000}`]);
});

test('matches since the last commit are known at any time', () => {
  const { watch, totals } = play([[4, 0, 4]]);
  assert.equal(watch.matchedSince(totals.matched + 3), 3);
});

test('what is released between two pairs is not counted in the second', () => {
  const { watch, totals, log, nowMs } = play(rows<[number, number, number]>(N - 1, [0, 1, 0]));
  watch.pairEnded(nowMs as Instant);
  assert.equal(watch.isWatching, false);
  totals.releasedByCommit += 100;
  for (let i = 0; i < N; i++) {
    totals.releasedByCommit++;
    watch.committed({ ...totals }, (nowMs + i) as Instant);
  }
  assert.deepEqual(log, []);
  assert.equal(watch.epochs, N - 1);
});
