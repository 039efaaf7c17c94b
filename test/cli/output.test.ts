import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseBytes, parseCount, parseSeconds } from '../../src/cli/options.ts';
import { formatBytes, formatCount, formatMs } from '../../src/cli/output.ts';

test('durations are shown in the unit that fits', () => {
  const cases: [number | null, string][] = [
    [null, '-'],
    [0, '0 ms'],
    [5.54, '5.5 ms'],
    [9.96, '10 ms'],
    [999.4, '999 ms'],
    [999.6, '1 s'],
    [2400, '2.4 s'],
    [99_960, '1 min 40 s'],
    [200_000, '3 min 20 s'],
    [119_999, '2 min 0 s'],
    [11_000_000, '3 h 3 min'],
  ];
  for (const [ms, text] of cases) assert.equal(formatMs(ms), text);
});

test('bytes and counts are shown rounded and in groups of digits', () => {
  assert.deepEqual([0, 1023, 1024, 1_500_000, 2 ** 40].map(formatBytes), [
    '0 B',
    '1023 B',
    '1 KiB',
    '1.4 MiB',
    '1 TiB',
  ]);
  assert.deepEqual([0, 999, 1000, 1_234_567].map(formatCount), ['0', '999', '1 000', '1 234 567']);
});

test('numbers of options are parsed, and others refused', () => {
  assert.deepEqual(
    ['5000', '64k', '100M', '2GiB'].map(parseBytes),
    [5000, 65_536, 104_857_600, 2_147_483_648],
  );
  for (const text of ['', '0', '1.5k', '-1', '1x', '999999999999t'])
    assert.throws(() => parseBytes(text), /Give bytes/, text);
  assert.deepEqual(['0', '0.5', '60'].map(parseSeconds), [0, 0.5, 60]);
  for (const text of ['', 'x', '-1', '1e9', 'NaN'])
    assert.throws(() => parseSeconds(text), /Give seconds/, text);
  assert.equal(parseCount('12'), 12);
  assert.throws(() => parseCount('1.5'), /whole number/);
});
