/** A node without a VM, for tests of its clients. */

import type { CheckpointReport, FirstCopyReport } from '../../src/checkpoint/report.ts';
import { ColoError } from '../../src/error.ts';
import type { EventDetails } from '../../src/observe/events.ts';
import type { NodeControl, NodeStatus } from '../../src/observe/status.ts';

/** The events of a log in which a test emits any type with any details. */
export type AnyEvents = Record<string, EventDetails>;

const DAY_MS = 86_400_000;

export const REPORT: CheckpointReport = {
  epoch: 42,
  reason: 'wait-secondary',
  totalMs: 12.5,
  drainMs: 1.25,
  pauseMs: 5.5,
  stateBytes: 1_500_000,
  releasedFrames: 7,
  matchedFrames: 5,
  atMs: Date.UTC(2030, 0, 2, 3, 4, 5, 678),
};

export const FIRST_COPY: FirstCopyReport = {
  tookMs: 2500,
  pauses: 3,
  pausedMs: 575,
  longestPauseMs: 565,
  standMs: 640,
  atMs: Date.UTC(2030, 0, 2, 3, 4, 0),
};

export function fakeStatus(): NodeStatus {
  return {
    node: 'alpha',
    pair: 'web',
    role: 'primary',
    phase: 'protected',
    generation: 3,
    epoch: 42,
    voice: { state: 'leased', leftMs: 180 },
    peer: {
      name: 'beta',
      connected: true,
      lastHeardMs: 12,
      summary: {
        role: 'secondary',
        phase: 'protected',
        voice: 'silent',
        vm: { running: true, qemu: '11.1.3', trouble: null },
        arbiter: { state: 'replies', failing: null },
        agoMs: 400,
      },
    },
    link: { tls: { nodeEndsAtMs: REPORT.atMs + 365.5 * DAY_MS, caEndsAtMs: REPORT.atMs + 10.5 * DAY_MS } },
    arbiter: {
      kind: 'etcd',
      state: 'replies',
      lastReplyMs: 1200,
      latencyMs: { p50: 3.1, p99: 24 },
      failing: null,
    },
    uplink: {
      own: { up: true, cause: null, forMs: 61_000 },
      peer: { up: false, cause: 'no-carrier', forMs: 3200 },
    },
    vm: {
      running: true,
      pid: 4242,
      qemu: '11.1.3',
      accel: 'kvm',
      pausedMs: 5400,
      inputWaitingBytes: 12,
      silentMs: 0,
      trouble: null,
    },
    disks: null,
    checkpoints: {
      count: 41,
      byReason: { initial: 1, interval: 30, 'wait-secondary': 10 },
      pauseMs: { p50: 5.5, p99: 9.75 },
      last: REPORT,
      firstCopy: FIRST_COPY,
      pacing: {
        mode: 'at-once',
        why: 'not-needed',
        figures: { timeShare: 0.125, checkpointsPerS: 9.5, commitShare: 0.0205, releasedBytesPerS: 120_000 },
      },
    },
    secondary: {
      matchedSinceCheckpoint: 31,
      unmatchedEpochs: 0,
      unmatched: false,
      unmatchedFrames: 0,
      lagMs: { p50: 0.5, p99: -1.5 },
      clockLeadMs: { epoch: 5.2, smoothed: 4.75 },
      linkWaitingBytes: 100,
      catchUp: { caughtUpFrames: 120, boundFrames: 3 },
      portions: {
        state: 'on',
        why: null,
        blindness: null,
        boundMs: 250,
        size: 64,
        endedBySleep: 1234,
        endedByAnswers: 67,
        endedByBound: 5,
        waitedFrames: 4321,
      },
    },
    held: { frames: 3, bytes: 4096, oldestMs: 2.5 },
    flows: { tcp: 12, other: 4, translated: 11 },
    divergences: {
      count: 12,
      byClass: { order: 9, clock: 3, random: 0, length: 0, flags: 0, unknown: 0 },
      last: {
        flow: 'tcp 192.0.2.1:80 <-> 192.0.2.9:5000',
        reason: 'diverged-bytes',
        class: 'clock',
        why: 'a time of day',
        atMs: REPORT.atMs,
      },
    },
    spent: {
      forMs: 120_000,
      rows: [
        {
          reason: 'wait-secondary',
          class: null,
          service: 'tcp 80',
          checkpoints: 10,
          pausedMs: 55,
          totalMs: 125,
        },
        { reason: 'interval', class: null, service: null, checkpoints: 30, pausedMs: 50, totalMs: 100 },
        { reason: 'initial', class: null, service: null, checkpoints: 1, pausedMs: 20, totalMs: 40 },
      ],
    },
    traffic: {
      inputFrames: 1000,
      inputBytes: 100_000,
      releasedFrames: 2000,
      releasedBytes: 2_500_000,
      releasedBy: {
        match: 1890,
        made: 10,
        repeat: 30,
        harmless: 20,
        exempt: 0,
        commit: 40,
        alone: 10,
        promotion: 0,
      },
      peerFrames: 2001,
      unifiedFrames: 4,
      malformedFrames: 1,
      droppedFrames: 0,
    },
    failover: null,
    fence: { waitingMs: null, running: false, done: 1, failed: 2, message: null },
    rules: [],
  };
}

export type FakeNode = NodeControl & { calls: string[]; stopped: Promise<void> };

export function fakeNode(overrides: Partial<NodeControl> = {}): FakeNode {
  const calls: string[] = [];
  const stopped = Promise.withResolvers<void>();
  return {
    calls,
    stopped: stopped.promise,
    status: fakeStatus,
    async checkpoint() {
      calls.push('checkpoint');
      return REPORT;
    },
    async failover() {
      calls.push('failover');
    },
    async protect() {
      throw new ColoError(
        'COLO_PAIR_NO_CANDIDATE',
        'no candidate is connected; start a second node of pair web',
      );
    },
    async reload() {
      calls.push('reload');
      return {
        changed: true,
        rules: ['udp 161: exempt'],
        certificatesChanged: false,
        restartFor: ['vm.args'],
      };
    },
    async stop() {
      calls.push('stop');
      stopped.resolve();
    },
    startCapture(path, bytesMax) {
      calls.push(`capture ${path} ${bytesMax}`);
    },
    stopCapture() {
      return calls.some((call) => call.startsWith('capture')) ? { path: '/tmp/a.pcapng', frames: 5 } : null;
    },
    ...overrides,
  };
}
