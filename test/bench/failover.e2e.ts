/** `npm run bench -- failover` with one row: real services outlive their primary, and nothing is lost. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RowFigures } from '../../bench/failover/row.ts';
import { runBench } from './last-line.ts';

test('ten clients of Redis count on through a failover, and no number is lost', async (t) => {
  const { status, lastLine } = await runBench(t, 'failover', '--rows', 'redis-incr10', '--seconds', '2');
  t.diagnostic(JSON.stringify(lastLine));
  assert.equal(status, 0);
  const { rows, ...rest } = lastLine as { rows: Record<string, RowFigures> };
  assert.deepEqual(rest, {});
  assert.deepEqual(Object.keys(rows), ['redis-incr10']);
  const { clients, before, underWay, after, gapMs, failed, broken, lost } = rows['redis-incr10'];
  assert.deepEqual({ clients, failed, broken, lost }, { clients: 10, failed: 0, broken: 0, lost: 0 });
  assert.ok(before > 0 && underWay <= 10 && after > 0 && gapMs > 0);
});
