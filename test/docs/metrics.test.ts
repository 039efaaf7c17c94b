/** docs/metrics.md against the code: every metric with its type and labels, and alerts that name real ones. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
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
