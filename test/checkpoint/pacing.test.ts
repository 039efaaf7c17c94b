import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  FLAP_MS,
  GAIN_MIN,
  Pacing,
  type PacingChange,
  REST_MS,
  WINDOW_MS,
} from '../../src/checkpoint/pacing.ts';
import type { CheckpointReason } from '../../src/checkpoint/report.ts';
import type { Instant } from '../../src/units.ts';
import { Dice } from '../dice.ts';
import { LIMITS, type Load, type Served, serve } from './served.ts';

/** Windows of WINDOW_MS with ten checkpoints each; of each the part of the time that they took, and the bytes released. */
class Played {
  readonly changes: PacingChange[] = [];
  readonly pacing = new Pacing((change) => this.changes.push(change));
  readonly totals = { matched: 10, releasedByCommit: 20, releasedBytes: 30 };
  nowMs = 1000;

  constructor() {
    this.commit('initial', 90);
  }

  windows(
    count: number,
    timeShare: number,
    bytes: number,
    reason: CheckpointReason = 'diverged-bytes',
  ): this {
    for (let i = 0; i < 10 * count; i++) {
      this.nowMs += WINDOW_MS / 10;
      this.totals.matched += 1;
      this.totals.releasedByCommit += 3;
      this.totals.releasedBytes += bytes / 10;
      this.commit(reason, (timeShare * WINDOW_MS) / 10);
    }
    return this;
  }

  get modes(): string[] {
    return this.changes.map((change) => (change.mode === 'periodic' ? 'periodic' : change.why));
  }

  private commit(reason: CheckpointReason, totalMs: number): void {
    this.pacing.committed({ reason, totalMs }, { ...this.totals }, this.nowMs as Instant);
  }
}

test('checkpoints for differences that take two thirds of the time switch to periodic, with the figures', () => {
  assert.deepEqual(new Played().windows(9, 0.66, 1000).changes, []);
  const played = new Played().windows(1, 0.75, 1000);
  const figures = { timeShare: 0.75, checkpointsPerS: 5, commitShare: 0.75, releasedBytesPerS: 500 };
  assert.deepEqual(played.changes, [{ mode: 'periodic', ...figures }]);
  assert.deepEqual(played.pacing.status((played.nowMs + 7) as Instant, 12), {
    mode: 'periodic',
    forMs: 7,
    periodMs: 12,
    figures,
  });
});

for (const reason of ['interval', 'limit-frames', 'requested', 'initial'] as const)
  test(`a checkpoint for ${reason} does not count: periodic mode would not delay it`, () => {
    assert.deepEqual(new Played().windows(5, 0.9, 1000, reason).changes, []);
  });

test('periodic mode lasts while it releases more, for ten minutes, and is measured again then', () => {
  const played = new Played().windows(1, 0.9, 1000).windows(299, 0.5, 1000 * GAIN_MIN);
  assert.deepEqual(played.modes, ['periodic']);
  assert.deepEqual(played.windows(1, 0.5, 1200).modes, ['periodic', 'again']);
  assert.deepEqual(played.windows(4, 0.9, 1000).modes, ['periodic', 'again']);
  assert.deepEqual(played.windows(1, 0.9, 1000).modes, ['periodic', 'again', 'periodic']);
});

test('a window without the gain ends it, and it rests for a minute', () => {
  const played = new Played().windows(1, 0.9, 1000).windows(1, 0.5, 1000 * GAIN_MIN - 10);
  assert.deepEqual(played.modes, ['periodic', 'no-gain']);
  assert.deepEqual(played.windows(REST_MS['no-gain'] / WINDOW_MS - 1, 0.9, 1000).modes, [
    'periodic',
    'no-gain',
  ]);
  assert.deepEqual(played.windows(1, 0.9, 1000).modes, ['periodic', 'no-gain', 'periodic']);
});

test('traffic that matches again, or ends, ends it', () => {
  const played = new Played().windows(1, 0.9, 1000).windows(3, 0.25, 5000);
  assert.deepEqual(played.modes, ['periodic'], 'between the two shares the mode stays');
  const { pacing, changes, nowMs } = played.windows(1, 0.24, 0);
  assert.deepEqual(played.modes, ['periodic', 'not-needed']);
  const last = changes[1];
  assert.ok(last.mode === 'at-once' && last.why === 'not-needed');
  assert.deepEqual([last.forMs, last.releasedBytesPerS], [4 * WINDOW_MS, 0]);
  assert.equal(pacing.status(nowMs as Instant, 0).mode, 'at-once');
});

test('the end of the pair ends it, and is no change otherwise', () => {
  const played = new Played();
  played.pacing.pairEnded(played.nowMs as Instant);
  assert.deepEqual(played.changes, []);
  const { pacing, nowMs } = played.windows(1, 0.9, 1000);
  pacing.pairEnded((nowMs + 50) as Instant);
  assert.deepEqual(played.changes[1], { mode: 'at-once', why: 'pair-ended', forMs: 50 });
  assert.deepEqual([pacing.isPeriodic, played.changes.length], [false, 2]);
});

test('slow checkpoints are judged by at least eight of them, or after four windows', () => {
  const played = new Played();
  const slow = (count: number) => {
    for (let i = 0; i < count; i++) {
      played.nowMs += 600;
      played.pacing.committed(
        { reason: 'wait-primary', totalMs: 500 },
        played.totals,
        played.nowMs as Instant,
      );
    }
    return played.modes;
  };
  assert.deepEqual(slow(7), []);
  assert.deepEqual(slow(1), ['periodic']);
  played.nowMs += 4 * WINDOW_MS - 1;
  played.pacing.committed({ reason: 'interval', totalMs: 5 }, played.totals, played.nowMs as Instant);
  assert.deepEqual(played.modes, ['periodic']);
  played.nowMs += 1;
  played.pacing.committed({ reason: 'interval', totalMs: 5 }, played.totals, played.nowMs as Instant);
  assert.deepEqual(played.modes, ['periodic', 'not-needed']);
});

const always = (load: Omit<Load, 'differs' | 'costMs'>): Load => ({
  ...load,
  differs: () => true,
  costMs: () => 20,
});
const modesOf = ({ changes }: Served): string[] =>
  changes.map((change) => (change.mode === 'periodic' ? 'periodic' : change.why));

test('eight clients whose replies always differ are served more than twice as fast in periodic mode', () => {
  const load = always({ clients: 8, workMs: 3, restMs: 1 });
  const atOnce = serve('at-once', 60_000, load).replies;
  const measured = serve('measured', 60_000, load);
  assert.deepEqual(modesOf(measured), ['periodic']);
  assert.ok(measured.replies > 2 * atOnce, `${measured.replies} and ${atOnce} replies`);
});

for (const [clients, workMs] of [
  [1, 1],
  [1, 5],
  [2, 1],
] as const)
  test(`${clients} clients with ${workMs} ms of work gain nothing, and lose a fiftieth to trials`, () => {
    const load = always({ clients, workMs, restMs: 1 });
    const atOnce = serve('at-once', 300_000, load).replies;
    const measured = serve('measured', 300_000, load);
    assert.deepEqual(modesOf(measured).slice(0, 3), ['periodic', 'no-gain', 'periodic']);
    assert.ok(measured.replies > 0.97 * atOnce, `${measured.replies} and ${atOnce} replies`);
  });

/** Draws a load that changes every few seconds. */
function drawLoad(dice: Dice): Load {
  const parts = Array.from({ length: 64 }, () => ({
    differs: dice.pick([0, 0.02, 0.3, 1, 1]),
    costMs: dice.pick([3, 20, 20, 90, 200]),
  }));
  const partMs = dice.pick([1500, 5000, 20_000]);
  const partAt = (atMs: number) => parts[Math.floor(atMs / partMs) % parts.length];
  return {
    clients: 1 + dice.roll(12),
    workMs: 1 + dice.roll(8),
    restMs: dice.pick([0, 1, 10, 60]),
    differs: (atMs) => dice.roll(1000) < 1000 * partAt(atMs).differs,
    costMs: (atMs) => partAt(atMs).costMs + dice.roll(3),
  };
}

test('whatever the load is, the mode, the period and the share of the time keep what they promise', () => {
  let changes = 0;
  let periodic = 0;
  for (let seed = 1; seed <= 60; seed++) {
    const dice = new Dice(seed);
    const served = serve('measured', 120_000, drawLoad(dice));
    changes += served.changes.length;
    for (const [i, { atMs }] of served.changes.entries()) {
      const third = served.changes[i + 2];
      assert.ok(third === undefined || third.atMs - atMs >= FLAP_MS, `seed ${seed}: flaps at ${atMs}`);
    }
    /** of a stretch of periodic mode: checkpoints but for the last one, and what the VMs ran */
    let stoodMs = 0;
    let ranMs = 0;
    for (const [i, taken] of served.taken.entries()) {
      const where = `seed ${seed}: at ${taken.startMs}`;
      if (taken.mode === 'at-once') {
        assert.equal(taken.waitedMs, 0, where);
        stoodMs = 0;
        ranMs = 0;
        continue;
      }
      periodic++;
      const last = served.taken[i - 1];
      const gapMs = taken.startMs - last.endMs;
      assert.equal(taken.periodMs, Math.min(last.endMs - last.startMs, LIMITS.waitMsMax), where);
      assert.ok(taken.waitedMs <= taken.periodMs, where);
      if (taken.reason === 'interval') continue;
      assert.ok(gapMs >= taken.periodMs, where);
      stoodMs += Math.min(last.endMs - last.startMs, LIMITS.waitMsMax);
      ranMs += gapMs;
      assert.ok(stoodMs <= ranMs, `${where}: the VMs stood ${stoodMs} ms and ran ${ranMs} ms`);
    }
  }
  assert.ok(changes > 100 && periodic > 1000, `${changes} changes, ${periodic} checkpoints in periodic mode`);
});
