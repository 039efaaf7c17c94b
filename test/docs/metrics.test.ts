/** Compares docs/metrics.md with the code: every metric with its type and labels. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CHECKPOINT_REASONS } from '../../src/checkpoint/report.ts';
import { createMetrics } from '../../src/observe/metrics.ts';
import { fakeStatus } from '../observe/fake-node.ts';
import { codeOf, readDoc, tableRows } from './tables.ts';

const metrics = await createMetrics({ status: fakeStatus, eventsUnwritten: () => 0 }).describe();

test('docs/metrics.md lists every metric', () => {
  const [table] = readDoc('docs/metrics.md').split('\n## Alerts\n');
  const documented = tableRows(table).map(([name, type, labels]) => {
    return [codeOf(name), type, labels.replaceAll('`', '')].join(' ').trim();
  });
  const inCode = metrics.map(({ name, type, labels }) => `${name} ${type} ${labels.join(', ')}`.trim());
  assert.deepEqual(documented.toSorted(), inCode.toSorted());
});

test('docs/metrics.md lists every reason of a checkpoint', () => {
  const [, list] = /Reasons of checkpoints: ([\s\S]*?)\n\n/.exec(readDoc('docs/metrics.md')) ?? [];
  const documented = [...(list ?? '').matchAll(/`([a-z-]+)`/g)].map(([, reason]) => reason);
  assert.deepEqual(documented.toSorted(), [...CHECKPOINT_REASONS].toSorted());
});
