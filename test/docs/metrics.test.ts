/** Compares docs/metrics.md with the code: every metric with its type and labels, and alerts that use existing ones. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CHECKPOINT_REASONS } from '../../src/checkpoint/report.ts';
import { createMetrics } from '../../src/observe/metrics.ts';
import { fakeStatus } from '../observe/fake-node.ts';
import { codeOf, readDoc, tableRows } from './tables.ts';

const metrics = await createMetrics({ status: fakeStatus, eventsUnwritten: () => 0 }).describe();

test('docs/metrics.md lists every metric', () => {
  const documented = tableRows(readDoc('docs/metrics.md')).map(([name, type, labels]) => {
    return [codeOf(name), type, labels.replaceAll('`', '')].join(' ').trim();
  });
  const inCode = metrics.map(({ name, type, labels }) => `${name} ${type} ${labels.join(', ')}`.trim());
  assert.deepEqual(documented.toSorted(), inCode.toSorted());
});

test('the alert rules of docs/metrics.md use metrics that exist', () => {
  const [, rules] = /```yaml\n([\s\S]*?)```/.exec(readDoc('docs/metrics.md')) ?? [];
  assert.ok(rules !== undefined, 'a block of rules');
  const known = new Set(metrics.map(({ name }) => name));
  const expressions = rules.split('\n').filter((line) => line.includes('expr:'));
  const used = expressions.flatMap((line) => line.match(/colo_[a-z_]+/g) ?? []);
  assert.ok(expressions.length >= 4 && used.length >= expressions.length);
  for (const name of used) assert.ok(known.has(name.replace(/_(bucket|sum|count)$/, '')), name);
});

test('docs/metrics.md lists every reason of a checkpoint', () => {
  const [, list] = /Reasons of checkpoints: ([\s\S]*?)\n\n/.exec(readDoc('docs/metrics.md')) ?? [];
  const documented = [...(list ?? '').matchAll(/`([a-z-]+)`/g)].map(([, reason]) => reason);
  assert.deepEqual(documented.toSorted(), [...CHECKPOINT_REASONS].toSorted());
});
