/**
 * A rolling upgrade of a real pair, from this build to a copy of it with another version number: the VM is protected before and after,
 * and clients see no more than the move. Then a build of another link version, which the pair refuses.
 */
import assert from 'node:assert/strict';
import { readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Echo } from '../../lab/clients/echo.ts';
import { UdpLoad } from '../../lab/clients/udp.ts';
import { otherBuild } from '../../lab/other-build.ts';
import { LabNode } from '../../lab/pair.ts';
import { Stage } from '../../lab/stage.ts';
import { LINK_VERSION } from '../../src/link/link-protocol.ts';
import { ROOT } from '../docs/tables.ts';
import { tempFolder } from '../temp-folder.ts';
import { lostOutsideFirstCopies } from './first-copies.ts';

const PROTECT_MS_MAX = 60_000;
/** Clients stand while the VM's last memory is copied, and during the move. */
const GAP_MS_MAX = 2000;

const inBuild = (node: LabNode, checkout: string) =>
  new LabNode(node.name, node.configFile, node.runDirectory, checkout);

const untilPrimary = (node: LabNode) =>
  node.until('protected', ({ role, phase }) => role === 'primary' && phase === 'protected', PROTECT_MS_MAX);

test('an upgrade of both nodes in turn keeps the VM protected, and clients see no more than the move', async (t) => {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  const next = otherBuild(
    join(tempFolder(t), 'build'),
    'package.json',
    `"version": "${version}"`,
    `"version": "${version}-next"`,
  );
  const stage = await Stage.open({ ip: 'v4' });
  let [a, b] = [stage.node('a'), stage.node('b')];
  const nodes = [a, b];
  t.after(async () => {
    for (const node of nodes) await node.stop();
    await stage.close();
  });
  const start = (node: LabNode) => {
    nodes.push(node);
    node.start();
    return node;
  };
  await stage.boot(a);
  await stage.protect(a, b);
  const stop = new AbortController();
  const echo = new Echo({ target: stage.targets.echo, everyMs: 10, seed: 11, drainMs: 5000 });
  const udp = new UdpLoad({
    target: stage.targets.countedUdp,
    service: 'counted',
    perSecond: 100,
    drainMs: 2000,
  });
  const startMs = performance.now();
  const running = Promise.all([echo.run(stop.signal), udp.run(stop.signal)]);
  await sleep(1000);

  // The secondary first.
  await b.stop();
  b = start(inBuild(b, next));
  await untilPrimary(a);
  assert.match(readFileSync(`/proc/${b.pid}/cmdline`, 'utf8'), new RegExp(`${next}/src/cli/main.ts`));
  assert.notEqual(readlinkSync(`/proc/${b.pid}/exe`), '');
  await sleep(1000);
  const moveMs = performance.now();
  await b.ask('POST', '/failover');
  await untilPrimary(b);
  const moveGap = Math.max(
    ...[echo, udp].map(
      ({ arrivals }) => arrivals.longestGap(moveMs - 100, moveMs + 500, performance.now())?.ms ?? 0,
    ),
  );
  await sleep(1000);
  await a.stop();
  a = start(inBuild(a, next));
  await untilPrimary(b);
  await sleep(1000);
  stop.abort();
  const [session, datagrams] = await running;
  const gap = Math.max(
    ...[echo, udp].map(
      ({ arrivals }) => arrivals.longestGap(startMs, performance.now() - 3000, performance.now())?.ms ?? 0,
    ),
  );
  t.diagnostic(
    `longest gap ${gap.toFixed(0)} ms, at the move ${moveGap.toFixed(0)} ms; ${datagrams.lost} of ${datagrams.sent} datagrams lost, ${session.echoed} echoes`,
  );
  assert.ok(session.ok && datagrams.ok);
  assert.equal(session.broken.count, 0);
  assert.equal(datagrams.duplicates, 0);
  assert.deepEqual(lostOutsideFirstCopies(datagrams.lostAtMs, [a, b]), []);
  assert.ok(gap < GAP_MS_MAX, `a client waited for ${gap} ms`);

  // A release with another link version: the pair has to do without it.
  const version6 = `LINK_VERSION = ${LINK_VERSION};`;
  const foreign = otherBuild(
    join(tempFolder(t), 'build'),
    'src/link/link-protocol.ts',
    version6,
    version6.replace(/\d+/, '999'),
  );
  await a.stop();
  await b.until('alone', ({ phase }) => phase === 'alone', PROTECT_MS_MAX);
  a = start(inBuild(a, foreign));
  const refused = () =>
    a
      .events()
      .find(({ type, message }) => type === 'link.dial-failed' && /COLO_LINK_VERSION/.test(String(message)));
  for (let waitedMs = 0; refused() === undefined; waitedMs += 100) {
    assert.ok(waitedMs < 10_000, 'no refusal by its link version');
    await sleep(100);
  }
  assert.match(String(refused()?.message), new RegExp(`link version ${LINK_VERSION}|link version 999`));
  assert.equal((await b.status()).phase, 'alone');
});
