import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkFence } from '../../src/cli/doctor-fence.ts';
import type { NodeConfig } from '../../src/config/node-config.ts';
import { tempFolder } from '../temp-folder.ts';

const folder = tempFolder();
const agent = join(folder, 'fence_test');
writeFileSync(agent, '#!/bin/sh\n');
chmodSync(agent, 0o755);
writeFileSync(join(folder, 'no-program'), '');

const check = (...command: string[]) =>
  checkFence({ fence: { command, timeoutMs: 1000 } } as unknown as NodeConfig, folder).map(
    ({ ok, found, advice }) => `${ok ? (advice === '' ? 'ok' : 'warning') : 'problem'} ${found}`,
  );

test('a configuration without a fence command is fine', () => {
  assert.deepEqual(checkFence({} as NodeConfig), []);
});

test('the program must be there, by its path or in PATH', () => {
  assert.deepEqual(check('fence_test'), [`ok ${agent} (not run)`]);
  assert.deepEqual(check(agent), [`ok ${agent} (not run)`]);
  assert.deepEqual(check('fence_none'), ['problem there is no program fence_none that this user may run']);
  for (const wrong of [join(folder, 'no-program'), folder])
    assert.deepEqual(check(wrong), [`problem there is no program ${wrong} that this user may run`]);
});

test('an agent with arguments would not read what the node writes', () => {
  assert.deepEqual(check('fence_test', '--ip=192.0.2.1'), [`warning ${agent} with arguments`]);
  assert.deepEqual(check('/bin/sh', '-c', 'fence_test'), ['ok /bin/sh (not run)']);
});
