import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Findings } from '../../../lab/clients/findings.ts';
import { NumberSet } from '../../../lab/clients/number-set.ts';
import { Random } from '../../../lab/clients/random.ts';
import { Samples } from '../../../lab/clients/samples.ts';

test('a number is in the set once, wherever its page is', () => {
  const set = new NumberSet(2);
  for (const value of [0, 31, 32, 32_767, 32_768, 65_535]) {
    assert.equal(set.add(value), 'added');
    assert.equal(set.add(value), 'present');
  }
  assert.equal(set.size, 6);
  assert.equal(set.add(65_536), 'full');
  assert.equal(set.add(1), 'added');
});

test('percentiles are exact, and those of the newest samples when there are too many', () => {
  const samples = new Samples();
  assert.equal(samples.percentile(0.5), 0);
  for (let value = 2000; value >= 1; value -= 1) samples.add(value);
  assert.equal(samples.percentile(0.5), 1000);
  assert.equal(samples.percentile(0.99), 1980);
  assert.equal(samples.percentile(1), 2000);
  for (let i = 0; i < Samples.KEPT_MAX; i += 1) samples.add(1);
  assert.equal(samples.percentile(1), 1);
  assert.equal(samples.max, 2000);
});

test('the generator repeats a seed’s numbers, differs between seeds, and never stays at zero', () => {
  const fill = (seed: number) => {
    const bytes = Buffer.alloc(64);
    new Random(seed).fill(bytes);
    return bytes.toString('hex');
  };
  assert.equal(fill(1), fill(1));
  assert.equal(new Set(Array.from({ length: 1000 }, (_, seed) => fill(seed))).size, 1000);
  assert.doesNotMatch(fill(0x9e3779b9), /^(00)+$/);
  const random = new Random(3);
  const seen = new Set(Array.from({ length: 1000 }, () => random.between(5, 8)));
  assert.deepEqual([...seen].sort(), [5, 6, 7, 8]);
});

test('all findings are counted, and a bounded number is stored', () => {
  const findings = new Findings<number>();
  for (let i = 0; i < 1500; i += 1) findings.add(i);
  assert.equal(findings.count, 1500);
  assert.equal(findings.kept.length, 1000);
});
