/** `npm run bench -- service` with one row in one column: the guest with services boots, and the last line is the contract's. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { test } from 'node:test';

const MAIN = join(import.meta.dirname, '../../bench/main.ts');

test('the last line has the figures of each row and column, and nothing else', async (t) => {
  const options = ['--rows', 'redis-incr', '--columns', 'unprotected', '--rounds', '1', '--seconds', '1'];
  const argv = ['--disable-warning=ExperimentalWarning', MAIN, 'service', ...options, '--json'];
  const child = spawn(process.execPath, argv, { stdio: ['ignore', 'pipe', 'inherit'] });
  t.after(() => child.kill('SIGKILL'));
  const exited = once(child, 'exit');
  const lines = (await text(child.stdout)).trim().split('\n');
  assert.deepEqual(await exited, [0, null]);
  const { rows, ...rest } = JSON.parse(lines.at(-1) ?? '');
  assert.deepEqual(rest, {});
  assert.deepEqual(Object.keys(rows), ['redis-incr']);
  assert.deepEqual(Object.keys(rows['redis-incr']), ['unprotected']);
  const { rate, p50, p99, ...counts } = rows['redis-incr'].unprotected;
  assert.ok(rate > 0 && p50 > 0 && p99 >= p50);
  assert.deepEqual(counts, { div1000: 0, cp1000: 0 });
});
