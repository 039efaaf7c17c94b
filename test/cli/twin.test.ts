import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempFolder } from '../temp-folder.ts';
import { printed, runColo, startColo } from './colo.ts';
import { muteNodeYaml } from './mute-node.ts';

test('of two nodes with one name the one that starts later ends, and says why', {
  timeout: 30_000,
}, async (t) => {
  const path = tempFolder(t);
  // The file was copied to the other host.
  for (const [listen, peer] of [
    ['first', 'second'],
    ['second', 'first'],
  ])
    writeFileSync(join(path, `${listen}.yaml`), muteNodeYaml(path, { listen, peer }));
  const first = startColo(['node', '-c', join(path, 'first.yaml')]);
  t.after(() => first.kill('SIGKILL'));
  await printed(first.stdout, 'node.started');
  const { code, out } = await runColo(['node', '-c', join(path, 'second.yaml')]);
  assert.equal(code, 1);
  assert.match(out, /node\.stopped code=1 message="?COLO_LINK_TWIN: a node that calls itself "?/);
  assert.equal(first.exitCode, null);
});
