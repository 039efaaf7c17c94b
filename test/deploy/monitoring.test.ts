/**
 * The alert rules and the dashboard of deploy/ against what a node exports: every metric, every label and every fixed value of a
 * label that they name exists, and docs/metrics.md has the same alerts as the file.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parse } from 'yaml';
import { createMetrics } from '../../src/observe/metrics.ts';
import { codeOf, readDoc, tableRows } from '../docs/tables.ts';
import { fakeStatus, REPORT } from '../observe/fake-node.ts';
import { namedIn, resultLabels } from './promql.ts';

type Alert = {
  alert: string;
  expr: string;
  for?: string;
  labels: Record<string, string>;
  annotations: { summary: string };
};
type Query = { expr: string; legendFormat: string };
type Panel = { id: number; type: string; title: string; gridPos: Place; targets?: Query[] };
type Place = { x: number; y: number; w: number; h: number };
type Dashboard = {
  panels: Panel[];
  templating: { list: { name: string; query: string | { query: string } }[] };
  annotations: { list: { expr: string }[] };
};

/** Prometheus gives each series these. */
const SCRAPED = ['instance', 'job'];
const COLUMNS = 24;

const metrics = createMetrics({ status: fakeStatus, eventsUnwritten: () => 0 });
metrics.observeCheckpoint(REPORT);
const labelsOf = new Map((await metrics.describe()).map(({ name, labels }) => [name, labels]));
const scrape = await metrics.render();

const alerts = (
  parse(readDoc('deploy/prometheus/colo-alerts.yaml')) as { groups: { rules: Alert[] }[] }
).groups.flatMap(({ rules }) => rules);
const dashboard = JSON.parse(readDoc('deploy/grafana/colo-dashboard.json')) as Dashboard;
const queries = dashboard.panels.flatMap(({ title, targets = [] }) =>
  targets.map(({ expr, legendFormat }) => ({ title, expr, legendFormat })),
);
const variables = dashboard.templating.list.map(({ name, query }) => ({
  title: `variable ${name}`,
  expr: typeof query === 'string' ? '' : query.query,
}));
const expressions = [
  ...alerts.map(({ alert, expr }) => ({ title: alert, expr })),
  ...queries,
  ...variables,
  ...dashboard.annotations.list.map(({ expr }) => ({ title: 'annotation', expr })),
];

function labelsOfMetric(metric: string): readonly string[] {
  const histogram = metric.replace(/_(bucket|sum|count)$/, '');
  const labels = labelsOf.get(metric) ?? labelsOf.get(histogram);
  assert.ok(labels !== undefined, `there is no metric ${metric}`);
  const own = metric.endsWith('_bucket') ? ['le'] : [];
  return [...labels, ...own, ...SCRAPED];
}

test('every metric and every label of the alerts and the dashboard is one that a node exports', () => {
  assert.ok(alerts.length >= 15 && queries.length >= 40);
  for (const { title, expr } of expressions) {
    const { selectors, grouping } = namedIn(expr);
    assert.ok(selectors.length > 0 || title === 'variable datasource', `${title}: no metric in ${expr}`);
    const known = new Set(selectors.flatMap(({ metric }) => labelsOfMetric(metric)));
    for (const { metric, matchers } of selectors)
      for (const { label } of matchers)
        assert.ok(labelsOfMetric(metric).includes(label), `${title}: ${metric} has no label ${label}`);
    for (const label of grouping) assert.ok(known.has(label), `${title}: no label ${label} in ${expr}`);
  }
});

test('every fixed value of a label is one that a node exports', () => {
  for (const { title, expr } of expressions)
    for (const { metric, matchers } of namedIn(expr).selectors)
      for (const { label, operator, value } of matchers) {
        // Names of nodes and pairs are their operator's.
        if (operator !== '=' || ['node', 'pair'].includes(label)) continue;
        const exported = scrape
          .split('\n')
          .some((line) => line.startsWith(`${metric}{`) && line.includes(`${label}="${value}"`));
        assert.ok(exported, `${title}: no ${metric}{${label}="${value}"}`);
      }
});

test('a legend and a summary use labels that their expression leaves', () => {
  const texts = [
    ...queries.map(({ title, expr, legendFormat }) => ({ title, expr, text: legendFormat })),
    ...alerts.map(({ alert, expr, annotations }) => ({ title: alert, expr, text: annotations.summary })),
  ];
  for (const { title, expr, text } of texts) {
    const left =
      resultLabels(expr) ?? namedIn(expr).selectors.flatMap(({ metric }) => labelsOfMetric(metric));
    for (const [, label] of text.matchAll(/\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}/g))
      assert.ok(left.includes(label), `${title}: ${expr} leaves no label ${label}`);
  }
});

test('docs/metrics.md has the same alerts as the file', () => {
  const [, section] = readDoc('docs/metrics.md').split('\n## Alerts\n');
  const documented = tableRows(section).map(([name]) => codeOf(name));
  assert.deepEqual(
    documented,
    alerts.map(({ alert }) => alert),
  );
  const severities = new Set(alerts.map(({ labels }) => labels.severity));
  assert.deepEqual([...severities].toSorted(), ['critical', 'warning']);
});

test('every alert that the docs and the events name is in the file', () => {
  const known = new Set(alerts.map(({ alert }) => alert));
  for (const page of ['operation', 'failures', 'configuration', 'two-hosts', 'metrics'])
    for (const [, name] of readDoc(`docs/${page}.md`).matchAll(/`(Colo[A-Z]\w+)`/g))
      assert.ok(known.has(name), `docs/${page}.md names ${name}`);
});

test('the panels have numbers of their own, lie side by side, and have queries', () => {
  const { panels } = dashboard;
  assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
  for (const [i, { title, type, gridPos, targets }] of panels.entries()) {
    assert.ok(gridPos.x + gridPos.w <= COLUMNS, title);
    if (type !== 'row') assert.ok((targets ?? []).length > 0, title);
    for (const other of panels.slice(i + 1)) assert.ok(!overlap(gridPos, other.gridPos), title);
  }
});

const overlap = (a: Place, b: Place): boolean =>
  a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h;
