import assert from 'node:assert/strict';
import { test } from 'node:test';
import { statusText } from '../../src/cli/status-text.ts';
import type { Instant } from '../../src/units.ts';
import { fakeStatus, REPORT } from '../observe/fake-node.ts';

const NOW = REPORT.atMs + 2400;

test('a protected primary is shown whole', () => {
  assert.equal(
    statusText(fakeStatus(), NOW as Instant),
    `node         alpha of pair web
state        primary, protected
voice        speaks, for 180 ms more unless the secondary renews that
membership   generation 3, epoch 42
peer         beta, connected, heard 12 ms ago
             said 400 ms ago: secondary, protected, silent, VM running
link         TLS, certificate expires in 365 days, CA EXPIRES in 10 days
arbiter      etcd, replies in 3.1 ms median, 24 ms p99, last 1.2 s ago
uplink       up for 61 s, the peer's AWAY for 3.2 s (no-carrier)
vm           running, process 4242, QEMU 11.1.3 (kvm)
             stopped for 5.4 s in all
checkpoints  41, pause 5.5 ms median, 9.8 ms p99
             interval 30, wait-secondary 10, initial 1
  last       2.4 s ago for wait-secondary, pause 5.5 ms, 1.4 MiB
  first copy 8.1 s ago in 2.5 s, pause 565 ms, clients stood 640 ms
  pacing     at once, periodic mode is not needed any more
             took 13% of the time, released 2.1% of the frames
matched      1 900 frames, by checkpoint 40, needed no match 50
             31 since the last checkpoint
secondary    late 0.5 ms median, ahead 1.5 ms p99, 100 B wait for the link
clocks       secondary's ahead 4.8 ms, in this epoch ahead 5.2 ms
catch-up     123 input frames waited, 3 of them up to the bound
portions     1 234 ended in sleep, 67 by answers, 5 by the bound, now 250 ms
held         3 frames, 4 KiB, oldest 2.5 ms
flows        12 tcp, 4 other, 11 translated
divergences  12, last 2.4 s ago
             order 9, clock 3
             tcp 192.0.2.1:80 <-> 192.0.2.9:5000
             diverged-bytes, clock: a time of day
in           1 000 frames, 97.7 KiB, 12 B not taken by the VM
out          2 000 frames, 2.4 MiB
from peer    2 001 frames, 4 unified
trouble      1 malformed, 0 dropped`,
  );
});

test('a node that knows nothing yet, and one that was promoted, are shown', () => {
  const status = fakeStatus();
  const text = statusText(
    {
      ...status,
      role: null,
      phase: 'alone',
      peer: { name: null, connected: false, lastHeardMs: null, summary: null },
      vm: {
        running: false,
        pid: null,
        qemu: null,
        accel: null,
        pausedMs: 0,
        inputWaitingBytes: 0,
        silentMs: 0,
        trouble: null,
      },
      disks: null,
      checkpoints: {
        count: 0,
        byReason: {},
        pauseMs: { p50: null, p99: null },
        last: null,
        firstCopy: null,
        pacing: { mode: 'at-once', why: null, figures: null },
      },
      secondary: null,
      divergences: { ...status.divergences, count: 0, last: null },
      failover: { generation: 4, cause: 'silence', detectMs: 300, promoteMs: 21.4, atMs: NOW - 200_000 },
    },
    NOW as Instant,
  );
  assert.match(text, /^state +no role yet, alone \(the VM runs UNPROTECTED\)$/m);
  assert.match(text, /^peer +unknown, NOT CONNECTED, never heard$/m);
  assert.match(text, /^vm +not running$/m);
  assert.match(text, /^checkpoints +0\n {2}pacing +at once\nheld/m);
  assert.match(text, /^failover +3 min 20 s ago, noticed in 300 ms, promoted in 21 ms$/m);
});

for (const [kind, shown] of [
  ['hung', 'HANGS'],
  ['failing', 'STANDS'],
  ['stopped', 'STANDS'],
  ['off', 'OFF'],
] as const) {
  test(`a VM that is ${kind} does not look well`, () => {
    const status = fakeStatus();
    status.vm.trouble = { kind, state: null, message: 'for some reason', forMs: 2100 };
    const text = statusText(status, NOW as Instant);
    assert.match(text, /^state .*protected.*but its VM is IN TROUBLE/m);
    assert.match(text, new RegExp(`^ +${shown} for 2.1 s: for some reason$`, 'm'));
  });
}

test('a copy of disks is shown with what is left of it', () => {
  const status = fakeStatus();
  status.disks = {
    count: 2,
    copy: { doneBytes: 2 ** 28, totalBytes: 2 ** 30, leftMs: 30_000 },
    committing: false,
  };
  const text = statusText(status, NOW as Instant);
  assert.match(text, /^disks +2\n +256 MiB of (1024 MiB|1 GiB|1.0 GiB) copied, 30 s left$/m);
  status.disks = { count: 1, copy: null, committing: true };
  assert.match(statusText(status, NOW as Instant), /^disks +1, the images are being completed$/m);
});

test('periodic mode is shown, with what checkpoints took of the time', () => {
  const status = fakeStatus();
  const figures = { timeShare: 0.5, checkpointsPerS: 20, commitShare: null, releasedBytesPerS: 0 };
  status.checkpoints.pacing = { mode: 'periodic', forMs: 12_400, periodMs: 24.4, figures };
  const text = statusText(status, NOW as Instant);
  assert.match(text, /^ {2}pacing +PERIODIC for 12.4 s, VMs run 24 ms in between\n +took 50% of the time$/m);
});

test('a secondary of which nothing matches is shown as of no use', () => {
  const status = fakeStatus();
  status.secondary = {
    matchedSinceCheckpoint: 0,
    unmatchedEpochs: 1016,
    unmatched: true,
    unmatchedFrames: 0,
    lagMs: { p50: null, p99: null },
    clockLeadMs: { epoch: null, smoothed: null },
    linkWaitingBytes: 0,
    catchUp: { caughtUpFrames: 0, boundFrames: 0 },
    portions: status.secondary?.portions ?? assert.fail('no secondary'),
  };
  const text = statusText(status, NOW as Instant);
  assert.match(text, /^secondary +NOTHING MATCHED in 1 016 epochs, it sent NOTHING$/m);
  assert.doesNotMatch(text, /late |ahead /);
  assert.match(text, /^clocks +not known: no TCP timestamps on a connection older than the epoch$/m);
});

test('every line has at most 80 columns and no control characters', () => {
  const status = fakeStatus();
  status.peer.name = `\u001b[2J\n${'x'.repeat(100)}`;
  for (const reason of [
    'diverged-bytes',
    'diverged-flags',
    'limit-frames',
    'wait-primary',
    'requested',
  ] as const) {
    status.checkpoints.byReason[reason] = 123_456_789;
  }
  const lines = statusText(status, NOW as Instant).split('\n');
  assert.ok(lines.every((line) => line.length <= 80));
  assert.equal(lines.filter((line) => line.startsWith('peer ')).length, 1);
  assert.ok(!lines.join('').includes('\u001b'));
  assert.ok(lines.join(' ').includes('requested 123 456 789'));
});

test('a peer that says of itself that it could not take over does not look well', () => {
  const status = fakeStatus();
  const { summary } = status.peer;
  assert.ok(summary !== null);
  summary.voice = 'leased';
  summary.vm = { running: false, qemu: null, trouble: 'it hangs\n' };
  summary.arbiter = { state: 'fails', failing: 'COLO_ARBITER_UNREACHABLE' };
  const text = statusText(status, NOW as Instant);
  assert.match(text, /^ {13}said 400 ms ago: secondary, protected, speaks, VM not running$/m);
  assert.match(text, /^ {13}its VM is IN TROUBLE: it hangs.*$/m);
  assert.match(text, /^ {13}its arbiter DOES NOT REPLY: COLO_ARBITER_UNREACHABLE$/m);
  status.peer.summary = null;
  assert.doesNotMatch(statusText(status, NOW as Instant), /said /);
});

for (const [voice, shown] of [
  [{ state: 'alone' }, 'speaks; the record says that it alone has the VM'],
  [{ state: 'leased', leftMs: 0 }, 'its lease is over: silent until the secondary renews it'],
  [{ state: 'yielded' }, 'silent: it gives way to its secondary'],
  [{ state: 'fenced' }, 'silent for good'],
  [{ state: 'silent' }, 'silent; node beta speaks, if a node does'],
] as const) {
  test(`the voice of a node is shown: ${shown}`, () => {
    const text = statusText({ ...fakeStatus(), voice }, NOW as Instant);
    assert.match(text, new RegExp(`^voice {8}${shown}$`, 'm'));
  });
}

test('what rules exempt is shown as unprotected, with what left by each', () => {
  const status = fakeStatus();
  status.rules = [
    { match: 'udp 161', exempt: { frames: 1200, bytes: 70_000 }, intervalMsMin: null, unify: null },
    { match: 'esp', exempt: { frames: 0, bytes: 0 }, intervalMsMin: null, unify: null },
    { match: 'tcp 80', exempt: null, intervalMsMin: 500, unify: null },
    { match: 'tcp 81', exempt: null, intervalMsMin: null, unify: 'http-date' },
  ];
  const text = statusText(status, NOW as Instant);
  assert.match(text, /^state +primary, protected, but NOT the flows that rules exempt$/m);
  assert.match(
    text,
    /^rules +udp 161 UNPROTECTED, 1 200 frames, 68.4 KiB\n +esp UNPROTECTED, 0 frames, 0 B\n +tcp 80 has checkpoints at least 500 ms apart\n +tcp 81 may differ in http-date$/m,
  );
  status.role = 'secondary';
  assert.match(statusText(status, NOW as Instant), /^rules +udp 161 UNPROTECTED\n/m);
});

test('a promotion that waits for its fence command is told apart', () => {
  const message = 'COLO_FENCE_FAILED: "fence" ended with status 1: no route';
  const fence = { waitingMs: 2500, running: false, done: 0, failed: 2, message };
  const lines = statusText({ ...fakeStatus(), fence }, 0 as Instant).split('\n');
  assert.deepEqual(lines.slice(-2), [
    'fence        NOT DONE after 2.5 s, the promotion waits for it, 2 failed',
    `             ${message}`,
  ]);
});

test('a pair that could not fail over does not look protected', () => {
  const status = fakeStatus();
  const failing = {
    forMs: 12_300,
    code: 'COLO_ARBITER_UNREACHABLE',
    message: `etcd cannot be asked${'!'.repeat(90)}`,
  };
  const arbiter = { ...status.arbiter, state: 'fails', failing } as const;
  const lines = statusText({ ...status, arbiter }, NOW as Instant).split('\n');
  assert.equal(lines[1], 'state        primary, protected, but NO FAILOVER: see arbiter');
  assert.equal(lines[7], 'arbiter      etcd DOES NOT REPLY for 12.3 s: NO FAILOVER NOW');
  assert.match(lines[8], /^ {13}COLO_ARBITER_UNREACHABLE: etcd cannot be asked!+\.\.\.$/);
  const wrong = { ...arbiter, failing: { ...failing, code: 'COLO_ARBITER_RECORD' } };
  assert.match(statusText({ ...status, arbiter: wrong }, NOW as Instant), /etcd WRONG RECORD for 12.3 s/);
  const unknown = {
    ...status.arbiter,
    state: 'unknown',
    lastReplyMs: null,
    latencyMs: { p50: null, p99: null },
  } as const;
  assert.match(
    statusText({ ...status, arbiter: unknown }, NOW as Instant),
    /^arbiter {6}etcd, not asked yet$/m,
  );
});
