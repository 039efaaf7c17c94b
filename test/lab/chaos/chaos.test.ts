/** What a run of chaos is made of and what it comes to, without a bed. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Bed } from '../../../lab/bed/bed.ts';
import { Bag, FAILURES } from '../../../lab/chaos/failures.ts';
import { readOptions, USAGE } from '../../../lab/chaos/options.ts';
import type { ChaosResult } from '../../../lab/chaos/run.ts';
import { summaryOf } from '../../../lab/chaos/summary.ts';
import { rowsOf, tableLines } from '../../../lab/chaos/table.ts';
import { Random } from '../../../lab/clients/random.ts';
import { readDoc } from '../../docs/tables.ts';

const names = (seed: number, count: number): string[] => {
  const bag = new Bag(new Random(seed), FAILURES);
  return Array.from({ length: count }, () => bag.next().name);
};

test('the same seed picks the same failures, another seed others', () => {
  assert.deepEqual(names(1, 50), names(1, 50));
  assert.notDeepEqual(names(1, 50), names(2, 50));
});

test('a run as long as the list has each failure once', () => {
  const all = FAILURES.map(({ name }) => name).sort();
  for (const seed of [1, 2, 3]) assert.deepEqual(names(seed, all.length).sort(), all);
});

test('a clock steps to where it is not yet', () => {
  const clocks = FAILURES.find(({ name }) => name === 'step clock') ?? assert.fail();
  const whatWith = (clock: string): Set<string> => {
    const bed = { hosts: { a: { node: { clock } }, b: { node: { clock } } } } as unknown as Bed;
    const seeds = Array.from({ length: 100 }, (_, seed) => seed + 1);
    return new Set(
      seeds.map((seed) => clocks.choose({ bed, primary: 'a', random: new Random(seed) }).what.split(' ')[2]),
    );
  };
  assert.deepEqual(whatWith('+0'), new Set(['+1h', '+26h', '-3h']));
  assert.deepEqual(whatWith('+26h'), new Set(['+1h', '-3h']));
});

test('docs/chaos.md and the usage list every failure', () => {
  for (const { name } of FAILURES) {
    assert.ok(readDoc('docs/chaos.md').includes(`| ${name} |`), name);
    assert.ok(USAGE.includes(name), name);
  }
});

test('options: defaults, all of them, and mistakes', () => {
  const { kinds, ...rest } = readOptions([]) ?? assert.fail();
  assert.deepEqual(rest, { seed: 1, failures: 10, arbiter: 'etcd', disks: 'no-disks', output: 'text' });
  assert.equal(kinds.length, FAILURES.length);
  const given = [
    '--seed',
    '7',
    '--failures',
    '50',
    '--arbiter',
    'directory',
    '--disks',
    '--json',
    '--only',
    'stop node,kill node',
  ];
  const read = readOptions(given) ?? assert.fail();
  assert.deepEqual([read.seed, read.failures, read.disks, read.output], [7, 50, 'disks', 'json']);
  assert.deepEqual(
    read.kinds.map(({ name }) => name),
    ['stop node', 'kill node'],
  );
  assert.equal(readOptions(['-h']), null);
  for (const args of [
    ['--seed', 'x'],
    ['--failures', '0'],
    ['--arbiter', 'raft'],
    ['--only', 'kill it'],
    ['--only', 'kill etcd leader', '--arbiter', 'directory'],
    ['--sede', '1'],
    ['more'],
  ])
    assert.throws(() => readOptions(args), { code: 'COLO_USAGE' }, args.join(' '));
});

const GOOD: ChaosResult = {
  outcomes: [
    { failure: 'kill node', what: '', blackoutMs: 400, protectedMs: 3000 },
    { failure: 'cut link', what: '', blackoutMs: 1, protectedMs: 2 },
    { failure: 'kill node', what: '', blackoutMs: 500, protectedMs: 4000 },
    { failure: 'kill node', what: '', blackoutMs: 900, protectedMs: 9000 },
  ],
  checked: { acknowledged: 100, lost: 0, broken: 0, texts: [] },
  voices: { frames: 10, seconds: [] },
  unrecorded: 0,
  broke: null,
  disksEqual: null,
};
const OPTIONS = { seed: 1, failures: 4, arbiter: 'etcd' } as const;

test('the table has medians that were measured, and maxima', () => {
  const rows = rowsOf(GOOD.outcomes);
  assert.deepEqual(rows[1], {
    ...{ failure: 'kill node', count: 3 },
    ...{ blackoutMs: { median: 500, max: 900 }, protectedMs: { median: 4000, max: 9000 } },
  });
  assert.match(tableLines(rows)[3], /^kill node +3 +500 +900 +4\.0 +9\.0$/);
});

test('a failure after which the pair was never protected is never, not 0', () => {
  const rows = rowsOf([{ failure: 'cut link', what: '', blackoutMs: 60_000, protectedMs: null }]);
  assert.match(tableLines(rows)[2], /^cut link +1 +60000 +60000 +never +never$/);
});

test('with disks a run is right only if both images are equal, and without them nothing is said of any', () => {
  assert.equal('disksEqual' in summaryOf(OPTIONS, GOOD), false);
  const equal = summaryOf(OPTIONS, { ...GOOD, disksEqual: true });
  assert.deepEqual([equal.ok, equal.disksEqual], [true, true]);
  const different = summaryOf(OPTIONS, { ...GOOD, disksEqual: false });
  assert.deepEqual([different.ok, different.disksEqual], [false, false]);
});

test('a run is right only if it did what was asked, saw something, and found nothing', () => {
  const { ok, failures, acknowledgedLost, secondVoices, protectedAtEnd } = summaryOf(OPTIONS, GOOD);
  assert.deepEqual([ok, failures, acknowledgedLost, secondVoices, protectedAtEnd], [true, 4, 0, 0, true]);
  const second = { host: 'a', atMs: 1, after: 2 } as const;
  const bad: readonly Partial<ChaosResult>[] = [
    { outcomes: GOOD.outcomes.slice(1) },
    { checked: { ...GOOD.checked, acknowledged: 0 } },
    { checked: { ...GOOD.checked, lost: 1 } },
    { checked: { ...GOOD.checked, broken: 1 } },
    { voices: { frames: 0, seconds: [] } },
    { voices: { frames: 10, seconds: [second] } },
    { unrecorded: 1 },
    { unrecorded: null },
    { broke: 'not protected' },
  ];
  for (const part of bad)
    assert.equal(summaryOf(OPTIONS, { ...GOOD, ...part }).ok, false, JSON.stringify(part));
});
