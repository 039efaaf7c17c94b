/** A pair with a fence command: the promotion of a lost primary's secondary waits for it, one that was asked for does not. */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Echo } from '../../lab/clients/echo.ts';
import { Stage } from '../../lab/stage.ts';
import { tempFolder } from '../temp-folder.ts';
import { goesOn } from './goes-on.ts';

const PROMOTION_MS_MAX = 20_000;

test('a secondary goes on when its fence command has succeeded, and clients keep their connection', async (t) => {
  const folder = tempFolder(t);
  const [runs, ready, agent] = ['runs', 'ready', 'fence-peer'].map((name) => join(folder, name));
  // It fails until the test says that the host is off.
  writeFileSync(
    agent,
    `#!/bin/sh\n{ tr '\\n' ' '; echo; } >> ${runs}\ntest -e ${ready} || { echo no route; exit 1; }\n`,
  );
  chmodSync(agent, 0o755);
  const stage = await Stage.open({ ip: 'v4', config: { fence: { command: [agent] } } });
  t.after(() => stage.close());
  const [a, b] = [stage.node('a'), stage.node('b')];
  await stage.boot(a);
  await stage.protect(a, b);
  const stop = new AbortController();
  const echo = new Echo({ target: stage.targets.echo, everyMs: 20, seed: 5, drainMs: 8000 });
  const running = echo.run(stop.signal);
  await sleep(500);

  await b.ask('POST', '/failover');
  await a.until('protected', ({ role, phase }) => role === 'secondary' && phase === 'protected', 30_000);
  assert.equal(existsSync(runs), false, 'a primary that has yielded is not fenced');
  await sleep(500);

  await b.kill();
  await a.until('second failure', ({ fence }) => (fence?.failed ?? 0) >= 2, PROMOTION_MS_MAX);
  const waiting = await a.status();
  assert.equal(waiting.phase, 'promoting');
  assert.match(waiting.fence?.message ?? '', /^COLO_FENCE_FAILED: .* ended with status 1: no route$/);
  const echoed = echo.echoed;
  await sleep(500);
  assert.equal(echo.echoed, echoed, 'nobody serves clients before the fence is done');
  writeFileSync(ready, '');
  await a.until('promotion', ({ phase }) => phase === 'alone', PROMOTION_MS_MAX);
  await goesOn(echo, echoed, 3000);
  stop.abort();
  const report = await running;
  assert.ok(report.ok, JSON.stringify(report.findings.kept.slice(0, 3)));
  assert.equal(report.broken.count, 0);
  for (const line of readFileSync(runs, 'utf8').trim().split('\n'))
    assert.equal(line.trim(), 'action=off nodename=b plug=b port=b');
  const done = a.events().filter(({ type }) => type === 'fence.done');
  assert.equal(done.length, 1);
  t.diagnostic(
    `${waiting.fence?.failed} failures, then fenced in ${Math.round(done[0].tookMs as number)} ms`,
  );
});
