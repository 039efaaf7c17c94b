import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { fenceParameters, runFenceCommand } from '../../src/node/fence-command.ts';
import { isAlive } from '../cli/colo.ts';
import { tempFolder } from '../temp-folder.ts';

const never = new AbortController().signal;
const sh = (script: string, timeoutMs = 10_000) => ({ command: ['/bin/sh', '-c', script], timeoutMs });

test('a command that ends with 0 has fenced; it gets its parameters as fence-agents do', async (t) => {
  const given = join(tempFolder(t), 'given');
  await runFenceCommand(sh(`cat > ${given}; echo done`), 'b', never);
  assert.equal(readFileSync(given, 'utf8'), 'action=off\nnodename=b\nplug=b\nport=b\n');
  assert.equal(fenceParameters('b'), readFileSync(given, 'utf8'));
});

test('a command that does not read its input may end with 0', async () => {
  await runFenceCommand(sh('exec 0<&-; exit 0'), 'b', never);
});

test('what a command has started keeps no node from ending', async (t) => {
  const started = join(tempFolder(t), 'pid');
  const script = `import { runFenceCommand } from ${JSON.stringify(join(import.meta.dirname, '../../src/node/fence-command.ts'))};
    await runFenceCommand(${JSON.stringify(sh(`sleep 100 & echo $! >${started}; exit 0`))}, 'b', new AbortController().signal);`;
  const args = ['--disable-warning=ExperimentalWarning', '--input-type=module', '-e', script];
  await promisify(execFile)(process.execPath, args);
  const pid = Number(readFileSync(started, 'utf8'));
  assert.ok(isAlive(pid), 'it has ended before what its command had started');
  process.kill(pid, 'SIGKILL');
});

test('any other status is a failure, with the last line that was printed', async () => {
  await assert.rejects(runFenceCommand(sh('echo first; echo no route >&2; exit 2'), 'b', never), {
    code: 'COLO_FENCE_FAILED',
    message: '"/bin/sh" ended with status 2: no route',
  });
  await assert.rejects(runFenceCommand(sh('kill -9 $$'), 'b', never), {
    code: 'COLO_FENCE_FAILED',
    message: '"/bin/sh" ended with SIGKILL and printed nothing',
  });
});

test('a program that is not there is a failure that names it', async () => {
  await assert.rejects(runFenceCommand({ command: ['/no/such/fence'], timeoutMs: 1000 }, 'b', never), {
    code: 'COLO_FENCE_START',
    message: '"/no/such/fence" cannot be started: there is no such program; correct fence.command',
  });
});

/** A command that has a child, which writes the file after a second. */
const withChild = (path: string) => `(sleep 1; touch ${path}) & echo busy; wait`;

test('at its time-out a command is killed with its children', async (t) => {
  const late = join(tempFolder(t), 'late');
  await assert.rejects(runFenceCommand(sh(withChild(late), 200), 'b', never), {
    code: 'COLO_FENCE_TIMEOUT',
    message: '"/bin/sh" did not end within fence.timeoutMs: busy',
  });
  await sleep(1300);
  assert.equal(existsSync(late), false);
});

test('a command that fails leaves no child behind, which could meet the next run', async (t) => {
  const late = join(tempFolder(t), 'late');
  await assert.rejects(runFenceCommand(sh(`(sleep 1; touch ${late}) & exit 1`), 'b', never));
  await sleep(1300);
  assert.equal(existsSync(late), false);
});

test('the end of the node ends a command with its children', async (t) => {
  const late = join(tempFolder(t), 'late');
  const node = new AbortController();
  const run = runFenceCommand(sh(withChild(late)), 'b', node.signal);
  setTimeout(() => node.abort(), 100);
  await assert.rejects(run, { code: 'COLO_FENCE_ENDED' });
  await assert.rejects(runFenceCommand(sh('sleep 5'), 'b', node.signal), { code: 'COLO_FENCE_ENDED' });
  await sleep(1300);
  assert.equal(existsSync(late), false);
});
