/** `npm run bench -- service` with one row in one column: the guest with services boots, and the last line is the contract's. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Rows } from '../../bench/service/claims.ts';
import { runBench } from './last-line.ts';

test('the last line has the figures of each row and column, and nothing else', async (t) => {
  const options = ['--rows', 'redis-incr', '--columns', 'unprotected', '--rounds', '1', '--seconds', '1'];
  const { status, lastLine } = await runBench(t, 'service', ...options);
  assert.equal(status, 0);
  const { rows, ...rest } = lastLine as { rows: Rows };
  assert.deepEqual(rest, {});
  assert.deepEqual(Object.keys(rows), ['redis-incr']);
  assert.deepEqual(Object.keys(rows['redis-incr']), ['unprotected']);
  const { rate, p50, p99, ...counts } = rows['redis-incr'].unprotected ?? assert.fail();
  assert.ok(rate > 0 && p50 > 0 && p99 >= p50);
  assert.deepEqual(counts, { div1000: 0, cp1000: 0 });
});
