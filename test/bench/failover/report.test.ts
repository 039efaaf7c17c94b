/** The options of `npm run bench -- failover`, and what it prints and returns of figures that are made up. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { BenchResult } from '../../../bench/bench.ts';
import type { RowFigures, RowOutcome } from '../../../bench/failover/row.ts';
import { type Outcomes, readOptions, report } from '../../../bench/failover.ts';
import { ROWS, SESSION_ROWS } from '../../../bench/service/rows.ts';

const RIGHT: RowFigures = {
  ...{ clients: 10, before: 3000, underWay: 10, after: 2500, p50: 12.5, gapMs: 812.4 },
  ...{ detectMs: 700.2, promoteMs: 80.6, rejoinMs: 9000, failed: 0, broken: 0, lost: 0 },
};

function reported(outcomes: Outcomes): BenchResult & { printed: string } {
  const lines: string[] = [];
  const result = report(outcomes, (line) => lines.push(line));
  return { ...result, printed: lines.join('\n') };
}

const of = (change: Partial<RowFigures>, wrong: readonly string[] = []): ReturnType<typeof reported> =>
  reported(new Map([['redis-incr10', { figures: { ...RIGHT, ...change }, wrong }]]));

test('without options every row fails over, after five seconds', () => {
  assert.deepEqual(readOptions([]), { rows: [...Object.keys(ROWS), ...Object.keys(SESSION_ROWS)], ms: 5000 });
});

test('options are taken in the order that was asked for, and help asks for nothing else', () => {
  assert.deepEqual(readOptions(['--rows', 'dns,redis-incr', '--seconds', '2']), {
    rows: ['dns', 'redis-incr'],
    ms: 2000,
  });
  assert.equal(readOptions(['--rows', 'dns', '--help']), null);
});

test('what cannot be run is refused', () => {
  for (const [args, message] of [
    [['--rows', 'redis'], /no row "redis"; choose of redis-incr, /],
    [['--rows', 'dns-half'], /no row "dns-half"/],
    [['--rows', 'toString'], /no row "toString"/],
    [['--seconds', '0'], /--seconds takes a whole number from 1 to/],
    [['--columns', 'ours'], /--columns/],
  ] as const)
    assert.throws(() => readOptions([...args]), { code: 'COLO_USAGE', message }, args.join(' '));
});

test('a row without a failure is right, and its line has every figure', () => {
  const result = of({});
  assert.equal(result.ok, true);
  assert.deepEqual(result.failures, []);
  assert.match(result.printed, /^redis-incr10 +10 +3000 +10 +2500 +12\.5 +812 +700 +81 +9000 +0 +0 +0$/m);
  assert.match(result.printed, /^checked of redis-incr10: no number twice; .*acknowledged$/m);
});

test('the last line has the rows alone', () => {
  assert.deepEqual(of({}).lastLine, { rows: { 'redis-incr10': RIGHT } });
});

test('what runs beside a row is checked, too', () => {
  const result = reported(new Map([['redis-beside-upload', { figures: RIGHT, wrong: [] }]]));
  assert.match(result.printed, /; beside it: the status; at the end each byte of the file$/m);
});

for (const figure of ['failed', 'broken', 'lost'] as const)
  test(`one that is ${figure} fails the bench`, () => {
    const result = of({ [figure]: 1 }, ['9 were counted, and 8 acknowledged']);
    assert.equal(result.ok, false);
    assert.match(result.printed, /^FAILED: redis-incr10: 9 were counted, and 8 acknowledged$/m);
  });

for (const when of ['before', 'after'] as const)
  test(`a row without a request ${when} the failover shows nothing`, () => {
    const result = of({ [when]: 0 });
    assert.equal(result.ok, false);
    assert.match(result.printed, new RegExp(`^FAILED: redis-incr10: no request ${when} the failover$`, 'm'));
  });

test('of many failures the first ones are printed', () => {
  const { failures } = of({ failed: 7 }, ['a', 'b', 'c', 'd', 'e', 'f', 'g']);
  assert.deepEqual((failures as string[]).slice(4), ['redis-incr10: e', 'redis-incr10: and 2 more']);
});

test('a row that did not end fails the bench, and has no figures', () => {
  const result = reported(
    new Map<string, RowOutcome | Error>([
      ['dns', new Error('node b did not reach promotion in 180000 ms')],
      ['redis-incr10', { figures: RIGHT, wrong: [] }],
    ]),
  );
  assert.equal(result.ok, false);
  assert.deepEqual(Object.keys(result.rows as object), ['redis-incr10']);
  assert.match(result.printed, /^FAILED: dns: node b did not reach promotion/m);
});

test('no row at all is no proof', () => {
  assert.equal(reported(new Map()).ok, false);
});
