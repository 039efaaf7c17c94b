import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EPOCHS_UNMATCHED_MAX } from '../../src/checkpoint/match-watch.ts';
import { ColoError } from '../../src/error.ts';
import { type Hello, MESSAGE } from '../../src/link/link-protocol.ts';
import { AsPrimary } from '../../src/node/as-primary.ts';
import type { PrimarySessionEvents } from '../../src/node/primary-session.ts';
import { statusOf } from '../../src/node/status.ts';
import { newPair } from '../../src/pair/machine.ts';
import { settled } from '../checkpoint/fake-time.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { REPORT } from '../observe/fake-node.ts';
import { CONFIG } from './config-of-b.ts';
import { FakeLauncher } from './fake-launcher.ts';
import { fakeParts } from './parts.ts';

const HELLO = { channel: 'data', node: 'a', role: 'candidate', generation: 3 } as Hello;

function toBoot() {
  const launcher = new FakeLauncher();
  const { parts, time, dispatched, emitted } = fakeParts({
    launcher,
    transports: { connect: launcher.connect },
  });
  const primary = AsPrimary.toBoot(parts, 1);
  return {
    launcher,
    parts,
    time,
    dispatched,
    emitted,
    primary,
    types: () => dispatched.map(({ type }) => type),
  };
}

/** A primary with a VM and a session; the test has the peer's end of the link. */
async function withSession() {
  const all = toBoot();
  await all.primary.boot(1);
  const paths = new TwoPaths();
  paths.primaryLink.unlisten();
  all.primary.openSession(paths.primaryLink, HELLO);
  return { ...all, paths, link: paths.primaryLink };
}

test('a VM that cannot be started is dispatched as vmFailed, with its code', async () => {
  const { launcher, time, dispatched, primary } = toBoot();
  launcher.qmpReady = Promise.reject(new ColoError('COLO_QMP_CONNECT', 'no greeting'));
  const booted = primary.boot(1);
  await time.pass(500);
  await booted;
  assert.deepEqual(dispatched, [{ type: 'vmFailed', message: 'COLO_QMP_CONNECT: no greeting' }]);
});

for (const how of ['end', 'fence'] as const) {
  test(`a primary dispatches nothing for a VM that starts after its ${how}`, async () => {
    const { launcher, dispatched, emitted, primary } = toBoot();
    const ready = Promise.withResolvers<void>();
    launcher.qmpReady = ready.promise;
    const booted = primary.boot(1);
    await settled();
    void primary[how]();
    ready.resolve();
    await booted;
    assert.equal(launcher.latest.hasEnded, true);
    assert.deepEqual([dispatched, emitted], [[], []]);
  });

  test(`a primary dispatches nothing for a link that closes after its ${how}`, async () => {
    const { primary, link, paths, types } = await withSession();
    void primary[how]();
    link.close();
    paths.settle();
    assert.equal(primary.session, null);
    assert.deepEqual(types(), ['linkUp']);
  });
}

test('a session that is closed twice dispatches linkLost once', async () => {
  const { primary, paths, emitted, dispatched } = await withSession();
  const { session } = primary;
  session?.close('first cause');
  session?.close('second cause');
  paths.settle();
  assert.deepEqual(dispatched, [
    { type: 'linkUp', peer: 'a' },
    { type: 'linkLost', cause: 'first cause' },
  ]);
  assert.deepEqual(emitted, ['vm.started', 'link.up', 'link.lost']);
  assert.equal(primary.session, null);
});

test('a primary without a VM opens no session', () => {
  const { primary, types } = toBoot();
  const { primaryLink } = new TwoPaths();
  primary.openSession(primaryLink, HELLO);
  assert.equal(primaryLink.isOpen, false);
  assert.deepEqual(types(), []);
});

test('a primary that yields is silent before it says so, and has its VM until the other node has taken over', async () => {
  const { launcher, primary, link, paths } = await withSession();
  const received: number[] = [];
  paths.onControl = (side, type) => {
    if (side === 'secondary' && type !== MESSAGE.places && type !== MESSAGE.uplink) received.push(type);
  };
  primary.speakByLease();
  await primary.yieldVoice();
  paths.settle();
  assert.deepEqual(received, [MESSAGE.yielded]);
  assert.equal(launcher.latest.hasEnded, false);
  primary.handOver('yielded to b');
  assert.equal(link.isOpen, true);
  assert.equal(launcher.latest.hasEnded, true);
  assert.deepEqual([primary.vm.vm, primary.path.voice.isFenced], [null, true]);
});

test('a fenced primary has no VM and no voice', async () => {
  const { launcher, primary } = await withSession();
  primary.fence();
  assert.equal(launcher.latest.hasEnded, true);
  assert.deepEqual([primary.vm.vm, primary.path.voice.isFenced, primary.isOver], [null, true, true]);
});

test('a VM that does not leave COLO is dispatched as vmFailed', async () => {
  const { primary, dispatched, emitted } = await withSession();
  const { vm } = primary.vm;
  assert.ok(vm !== null);
  vm.failover = () => Promise.reject(new ColoError('COLO_QEMU_FAILOVER', 'hangs'));
  primary.speakByLease();
  await primary.goAlone(2, 'cable');
  assert.deepEqual(dispatched.at(-1), { type: 'vmFailed', message: 'COLO_QEMU_FAILOVER: hangs' });
  assert.deepEqual(emitted.slice(-2), ['pair.alone', 'vm.failover-failed']);
});

test('a VM that an operator has stopped is stopped again when it has left COLO; another one runs on', async () => {
  for (const state of ['paused', 'running'] as const) {
    const { launcher, primary, time } = await withSession();
    const { latest } = launcher;
    latest.state = state;
    latest.event(state === 'paused' ? 'STOP' : 'RESUME');
    await time.pass(1);
    const { vm } = primary.vm;
    assert.ok(vm !== null);
    vm.failover = async () => {
      latest.state = 'running';
      latest.event('RESUME');
    };
    primary.speakByLease();
    await primary.goAlone(2, 'cable');
    assert.equal(latest.commands.includes('stop'), state === 'paused');
  }
});

test('a VM in trouble is reported to the peer before the link closes, and a guest that is off too', async () => {
  for (const [report, type] of [
    [(one: AsPrimary) => one.reportVm('it hangs'), MESSAGE.failed],
    [(one: AsPrimary) => one.reportOff(), MESSAGE.failed],
  ] as const) {
    const { primary, paths } = await withSession();
    const received: number[] = [];
    paths.onControl = (side, one) => {
      if (side === 'secondary') received.push(one);
    };
    paths.settle();
    received.length = 0;
    report(primary);
    paths.settle();
    assert.deepEqual(received, [type]);
  }
});

test('a VM that stands is not copied', async () => {
  const { launcher, primary, time, emitted, types } = await withSession();
  launcher.latest.state = 'paused';
  launcher.latest.event('STOP');
  await time.pass(1);
  await primary.copy(1);
  assert.equal(emitted.at(-2), 'sync.failed');
  assert.equal(types().at(-1), 'linkLost');
});

test('pacing is shown from the first commit on, and a pair that ends in periodic mode ends the mode', async () => {
  const { primary, parts, time, paths, emitted, link } = await withSession();
  const { path, session } = primary;
  assert.ok(session !== null);
  const inside = session as unknown as { events: PrimarySessionEvents; lastHeardMs: number };
  const onCheckpoint = inside.events;
  const shown = () => statusOf(parts, newPair('a', true), primary, time.now()).checkpoints.pacing;
  assert.equal(shown(), null);
  onCheckpoint.checkpoint({ ...REPORT, reason: 'initial' });
  assert.deepEqual(shown(), { mode: 'at-once', why: null, figures: null });
  for (let i = 0; i < 20; i++) {
    await time.pass(100);
    inside.lastHeardMs = time.now();
    path.comparator.counters.releasedByCommit += 3;
    path.comparator.counters.matched += 1;
    path.counters.releasedBytes += 500;
    onCheckpoint.checkpoint({ ...REPORT, reason: 'diverged-bytes', totalMs: 80 });
  }
  const figures = { timeShare: 0.8, checkpointsPerS: 10, commitShare: 0.75, releasedBytesPerS: 5000 };
  assert.deepEqual(shown(), { mode: 'periodic', forMs: 0, periodMs: 0, figures });
  assert.equal(emitted.at(-1), 'checkpoint.pacing');
  link.close();
  paths.settle();
  assert.deepEqual(emitted.slice(-2), ['checkpoint.pacing', 'link.lost']);
  assert.equal(shown(), null);
});

test('a secondary that sends nothing is reported after N checkpoints that released output, and its end with the pair', async () => {
  const { primary, parts, time, paths, emitted, link } = await withSession();
  const { path, session } = primary;
  assert.ok(session !== null);
  const onCheckpoint = (session as unknown as { events: PrimarySessionEvents }).events;
  const { counters } = path.comparator;
  const commit = (byCommit: number) => {
    counters.releasedByCommit += byCommit;
    onCheckpoint.checkpoint(REPORT);
  };
  const isUnmatched = () => primary.matches?.isUnmatched ?? null;
  assert.equal(isUnmatched(), null);
  commit(0);
  for (let i = 1; i < EPOCHS_UNMATCHED_MAX; i++) commit(3);
  assert.equal(isUnmatched(), false);
  assert.ok(!emitted.includes('compare.unmatched'));
  commit(3);
  assert.equal(isUnmatched(), true);
  commit(3);
  assert.equal(emitted.filter((type) => type === 'compare.unmatched').length, 1);
  path.comparator.counters.matched += 2;
  path.counters.peerFrames += 7;
  assert.deepEqual(statusOf(parts, newPair('a', true), primary, time.now()).secondary, {
    matchedSinceCheckpoint: 2,
    unmatchedEpochs: EPOCHS_UNMATCHED_MAX + 1,
    unmatched: true,
    unmatchedFrames: 7,
    lagMs: { p50: null, p99: null },
    clockLeadMs: { epoch: null, smoothed: null },
    linkWaitingBytes: 0,
    catchUp: { caughtUpFrames: 0, boundFrames: 0 },
    portions: path.portions.status,
  });
  link.close();
  paths.settle();
  assert.deepEqual(emitted.slice(-2), ['compare.unmatched-over', 'link.lost']);
  assert.equal(isUnmatched(), null);
});

test('a primary uses the rules of its configuration, shows them and says so', () => {
  const udp53 = { match: { protocol: 17, port: 53, client: null }, exempt: true } as const;
  const { parts, emitted } = fakeParts({ config: { ...CONFIG, rules: [udp53] } });
  const primary = AsPrimary.toBoot(parts, 1);
  assert.deepEqual(primary.path.comparator.operatorRules?.list, [udp53]);
  assert.deepEqual(emitted, ['rules.changed']);
  assert.equal(AsPrimary.toBoot(fakeParts().parts, 1).path.comparator.operatorRules, null);
});
