/**
 * A secondary whose guest is dead: its QEMU and its node live, checkpoints commit, clients are served, and yet a failover would
 * be worth nothing. The node must say so.
 *
 * A checkpoint brings the guest back to life, so it is killed after each one: an NMI makes its kernel panic. In the milliseconds
 * before that it could still reply; a link that is down in its QEMU keeps it from that.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Echo } from '../../lab/clients/echo.ts';
import type { LabNode } from '../../lab/pair.ts';
import { Stage } from '../../lab/stage.ts';
import { EPOCHS_UNMATCHED_MAX } from '../../src/checkpoint/match-watch.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import type { NodeEvent } from '../../src/observe/status.ts';
import { QmpClient } from '../../src/qemu/qmp.ts';

const NOTICED_MS_MAX = 30_000;
const QMP_MS_MAX = 10_000;

/** Gives a node's VM a monitor of the test's own, and a kernel that panics at an NMI. */
function prepare(stage: Stage, node: LabNode): string {
  const monitor = join(stage.directory, `${node.name}-monitor.sock`);
  const config = JSON.parse(readFileSync(node.configFile, 'utf8')) as { vm: { args: string[] } };
  const { args } = config.vm;
  args[args.indexOf('-append') + 1] += ' unknown_nmi_panic';
  args.push(
    '-chardev',
    `socket,id=lab,path=${monitor},server=on,wait=off`,
    '-mon',
    'chardev=lab,mode=control',
  );
  writeFileSync(node.configFile, JSON.stringify(config));
  return monitor;
}

/** Returns the events of a type, when there is one: the node writes them a moment after its status shows them. */
async function eventsOf(node: LabNode, type: string): Promise<NodeEvent[]> {
  const endMs = performance.now() + NOTICED_MS_MAX;
  for (;;) {
    const found = node.events().filter((event) => event.type === type);
    if (found.length > 0 || performance.now() > endMs) return found;
    await sleep(10);
  }
}

test('a secondary whose guest is dead is reported within N epochs, and no longer when it lives again', async (t) => {
  const stage = await Stage.open({ ip: 'v4' });
  t.after(() => stage.close());
  const [a, b] = [stage.node('a'), stage.node('b')];
  prepare(stage, a);
  const monitor = prepare(stage, b);
  await stage.boot(a);
  await stage.protect(a, b);
  const [copied] = await eventsOf(a, 'sync.done');
  assert.ok(copied !== undefined, 'the first copy was reported');
  t.diagnostic(`first copy: ${JSON.stringify(copied)}`);

  const stop = new AbortController();
  const client = new Echo({ target: stage.targets.echo, everyMs: 20, seed: 5, drainMs: 5000 });
  const running = client.run(stop.signal);
  await a.until('a match', ({ secondary }) => (secondary?.matchedSinceCheckpoint ?? 0) > 0, NOTICED_MS_MAX);
  await sleep(1000);
  const healthy = await a.status();
  t.diagnostic(`a healthy secondary: ${JSON.stringify([healthy.secondary, healthy.traffic.releasedBy])}`);
  assert.ok(healthy.traffic.releasedBy.match > 10);

  const qmp = await QmpClient.connect({ endpoint: unixEndpoint(monitor), deadlineMs: QMP_MS_MAX });
  t.after(() => qmp.close());
  const kill = () => void qmp.execute('inject-nmi').catch(() => {});
  const stopKilling = qmp.onEvent(({ event }) => {
    if (event === 'RESUME') kill();
  });
  const setLink = (up: boolean) => qmp.execute('set_link', { name: 'colo0', up });
  await setLink(false);
  kill();
  const status = await a.until(
    'a dead secondary',
    ({ secondary }) => secondary?.unmatched === true,
    NOTICED_MS_MAX,
  );
  t.diagnostic(`a dead secondary: ${JSON.stringify([status.secondary, status.traffic.releasedBy])}`);
  assert.equal(status.phase, 'protected');
  const seen = await eventsOf(a, 'compare.unmatched');
  assert.equal(seen.length, 1);
  assert.equal(seen[0].epochs, EPOCHS_UNMATCHED_MAX);
  assert.ok(Number(seen[0].releasedFrames) >= EPOCHS_UNMATCHED_MAX);
  t.diagnostic(JSON.stringify(seen[0]));

  stopKilling();
  await setLink(true);
  await a.checkpoint();
  await a.until('a living secondary', ({ secondary }) => secondary?.unmatched === false, NOTICED_MS_MAX);
  const over = await eventsOf(a, 'compare.unmatched-over');
  assert.deepEqual(
    over.map(({ cause }) => cause),
    ['match'],
  );
  await sleep(500);
  stop.abort();
  const report = await running;
  assert.ok(report.ok, JSON.stringify(report.findings.kept.slice(0, 3)));
});
