/** A pair whose arbiter is a real etcd of three members: failovers while members are down, with its leader, and without a quorum. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Echo } from '../../lab/clients/echo.ts';
import { LabEtcd } from '../../lab/etcd.ts';
import type { LabNode } from '../../lab/pair.ts';
import { Stage } from '../../lab/stage.ts';
import { tempFolder } from '../temp-folder.ts';
import { goesOn } from './goes-on.ts';

const PROMOTION_MS_MAX = 15_000;
const NOTICED_MS_MAX = 10_000;
/** Far above a lease: a node that would be promoted without etcd would be by then. */
const WITHOUT_QUORUM_MS = 4000;

async function open(t: TestContext): Promise<{ stage: Stage; etcd: LabEtcd }> {
  const etcd = await LabEtcd.start({
    directory: tempFolder(t),
    members: 3,
    args: ['--heartbeat-interval', '20', '--election-timeout', '200'],
  });
  t.after(() => etcd.stop());
  const stage = await Stage.open({ ip: 'v4', config: { arbiter: { etcd: { endpoints: etcd.endpoints } } } });
  t.after(() => stage.close());
  await stage.boot(stage.node('a'));
  await stage.protect(stage.node('a'), stage.node('b'));
  return { stage, etcd };
}

type Recorded = { generation: number; state: string; primary: string; secondary: string | null };

async function recordIn(etcd: LabEtcd): Promise<Recorded> {
  const text = await etcd.ctl('get', '--print-value-only', '/colo/demo');
  return (JSON.parse(text) as { record: Recorded }).record;
}

const promoted = (node: LabNode) =>
  node.until(
    'promotion',
    ({ role, phase }) => role === 'primary' && (phase === 'alone' || phase === 'protected'),
    PROMOTION_MS_MAX,
  );
const arbiterIs = (node: LabNode, state: 'replies' | 'fails') =>
  node.until(`an arbiter that ${state}`, ({ arbiter }) => arbiter.state === state, NOTICED_MS_MAX);

test('with etcd as arbiter clients notice no break, whatever one host takes with it', async (t) => {
  const { stage, etcd } = await open(t);
  const [a, b] = [stage.node('a'), stage.node('b')];
  const stop = new AbortController();
  const echo = new Echo({ target: stage.targets.echo, everyMs: 20, seed: 5, drainMs: 10_000 });
  const running = echo.run(stop.signal);
  await sleep(500);
  assert.deepEqual(await recordIn(etcd), { generation: 2, state: 'pair', primary: 'a', secondary: 'b' });
  const { arbiter } = await arbiterIs(b, 'replies');
  assert.equal(arbiter.kind, 'etcd');

  // One member is down, and it is not the leader.
  const leader = await etcd.leader();
  const [member] = etcd.members.filter((one) => one !== leader);
  await member.kill();
  await sleep(500);
  await a.kill();
  const first = (await promoted(b)).failover;
  assert.deepEqual(await recordIn(etcd), { generation: 3, state: 'alone', primary: 'b', secondary: null });
  member.start();
  await etcd.ready();
  await stage.protect(b, a);
  await sleep(500);

  // The primary's host dies, and etcd's leader with it.
  const dying = await etcd.leader();
  const gone = dying.kill();
  await b.kill();
  const second = (await promoted(a)).failover;
  await gone;
  dying.start();
  await etcd.ready();
  await stage.protect(a, b);
  await sleep(500);

  stop.abort();
  const report = await running;
  const ms = (failover: typeof first) =>
    `${Math.round(failover?.detectMs ?? 0)} + ${Math.round(failover?.promoteMs ?? 0)} ms`;
  t.diagnostic(
    `a member down: ${ms(first)}; the leader dies as well: ${ms(second)}; ${report.echoed} echoes`,
  );
  assert.ok(report.ok, JSON.stringify({ ...report, findings: report.findings.kept.slice(0, 3) }));
  assert.equal(report.broken.count, 0);
});

test('without a quorum nobody is promoted, everybody says so, and with one the pair goes on', async (t) => {
  const { stage, etcd } = await open(t);
  const [a, b] = [stage.node('a'), stage.node('b')];
  const stop = new AbortController();
  const echo = new Echo({ target: stage.targets.echo, everyMs: 20, seed: 6, drainMs: 20_000 });
  const running = echo.run(stop.signal);
  const paused = etcd.members.slice(0, 2);
  const pause = () => Promise.all(paused.map((member) => member.pause()));
  const resume = () => {
    for (const member of paused) member.resume();
  };
  t.after(resume);

  // A pair whose nodes live goes on, and does not look protected.
  await pause();
  const pausedAtMs = performance.now();
  for (const node of [a, b]) {
    const { phase, arbiter } = await arbiterIs(node, 'fails');
    assert.equal(phase, 'protected');
    assert.equal(arbiter.failing?.code, 'COLO_ARBITER_UNREACHABLE');
  }
  t.diagnostic(`noticed after ${Math.round(performance.now() - pausedAtMs)} ms`);
  for (const node of [a, b]) assert.ok(node.events().some(({ type }) => type === 'arbiter.failed'));
  const before = echo.echoed;
  await sleep(1000);
  assert.ok(echo.echoed > before, 'the service goes on');

  // Its primary dies: its secondary waits, and nobody speaks.
  await a.kill();
  await sleep(WITHOUT_QUORUM_MS);
  assert.equal((await b.status()).phase, 'promoting');
  const silent = echo.echoed;
  await sleep(500);
  assert.equal(echo.echoed, silent, 'nobody speaks');
  resume();
  const resumedAtMs = performance.now();
  await promoted(b);
  t.diagnostic(`promoted ${Math.round(performance.now() - resumedAtMs)} ms after the quorum was back`);
  await arbiterIs(b, 'replies');
  assert.ok(b.events().some(({ type }) => type === 'arbiter.replies'));
  await stage.protect(b, a);
  await sleep(500);

  // Its secondary dies: a primary that cannot prove that it may speak is silent.
  await pause();
  await arbiterIs(b, 'fails');
  await a.kill();
  await sleep(WITHOUT_QUORUM_MS);
  const waiting = echo.echoed;
  await sleep(500);
  assert.equal(echo.echoed, waiting, 'a primary without its lease is silent');
  assert.equal((await b.status()).phase, 'promoting');
  resume();
  await promoted(b);
  await goesOn(echo, echo.echoed, 5000);

  stop.abort();
  const report = await running;
  assert.ok(report.ok, JSON.stringify({ ...report, findings: report.findings.kept.slice(0, 3) }));
  assert.equal(report.broken.count, 0);
});
