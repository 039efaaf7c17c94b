/** A real pair of the npm package, as it is installed: compiled, on the Node of the PATH, beside its dependencies. */
import assert from 'node:assert/strict';
import { readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Echo } from '../../lab/clients/echo.ts';
import { LabNode } from '../../lab/pair.ts';
import { Stage } from '../../lab/stage.ts';
import { tempFolder } from '../temp-folder.ts';
import { copyCheckout, installBeside, packCheckout } from './checkout.ts';

const ALONE_MS_MAX = 30_000;

test('a pair of the npm package is protected, and a connection goes on when the primary dies', async (t) => {
  const folder = tempFolder(t);
  const checkout = join(folder, 'checkout');
  copyCheckout(checkout);
  const installed = installBeside(
    join(folder, packCheckout(checkout, folder).filename),
    join(folder, 'project'),
  );
  const stage = await Stage.open({ ip: 'v4' });
  const [a, b] = (['a', 'b'] as const).map((name) => {
    const { configFile, runDirectory } = stage.node(name);
    return new LabNode(name, configFile, runDirectory, installed);
  });
  t.after(async () => {
    for (const node of [a, b]) await node.stop();
    await stage.close();
  });
  await stage.boot(a);
  await stage.protect(a, b);
  assert.match(readFileSync(`/proc/${a.pid}/cmdline`, 'utf8'), new RegExp(`${installed}/dist/cli/main.js`));
  t.diagnostic(`on ${readlinkSync(`/proc/${a.pid}/exe`)}`);

  const stop = new AbortController();
  const echo = new Echo({ target: stage.targets.echo, everyMs: 10, seed: 7, drainMs: 5000 });
  const running = echo.run(stop.signal);
  await sleep(1000);
  await a.kill();
  await b.until('alone', ({ role, phase }) => role === 'primary' && phase === 'alone', ALONE_MS_MAX);
  await sleep(1000);
  stop.abort();
  const session = await running;
  assert.ok(session.ok, 'every byte came back');
  assert.equal(session.broken.count, 0);
});
