/**
 * The rule of docs/architecture.md about imports: the core knows nothing of Node, and arrows between folders point
 * downward only. What does not hold is listed here, file by file, with its reason; an exception that is no longer
 * needed fails the test too.
 */
import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { ROOT, readDoc } from './tables.ts';

/** Lowest first. Folders of one line may import each other. */
const LAYERS = [
  ['error.ts', 'limits.ts', 'units.ts', 'wasm.d.ts'],
  ['endpoint.ts'],
  ['wire'],
  ['flow'],
  ['frames'],
  ['compare'],
  ['translate'],
  ['io'],
  ['link'],
  ['datapath'],
  ['checkpoint'],
  ['pair'],
  ['qemu', 'observe', 'config', 'capture'],
  ['node', 'node.ts', 'dropin', 'diff'],
  ['cli'],
];
const CORE = ['wire', 'flow', 'frames', 'compare', 'translate'];

/** `from -> to`, upward. */
const EXCEPTIONS: Record<string, string> = {};

type Import = { from: string; to: string; typeOnly: boolean };

const files = globSync('**/*.ts', { cwd: join(ROOT, 'src') }).sort();
const imports: Import[] = files.flatMap((from) => {
  const text = readFileSync(join(ROOT, 'src', from), 'utf8');
  const statements = text.matchAll(/^(?:import|export)\s+(type\s+)?(?:([^;'"]*?)\s+from\s+)?'([^']+)'/gm);
  const dynamic = text.matchAll(/\bimport\('([^']+)'\)/g);
  return [
    ...[...statements].map(([, type, names = '', to]) => ({
      from,
      to: resolve(from, to),
      typeOnly: type !== undefined || onlyTypes(names),
    })),
    ...[...dynamic].map(([, to]) => ({ from, to: resolve(from, to), typeOnly: false })),
  ];
});

function resolve(from: string, to: string): string {
  return to.startsWith('.') ? normalize(join(dirname(from), to)) : to;
}

function onlyTypes(names: string): boolean {
  const list =
    /^\{([\s\S]*)\}$/
      .exec(names.trim())?.[1]
      .split(',')
      .map((name) => name.trim()) ?? [];
  const named = list.filter((name) => name !== '');
  return named.length > 0 && named.every((name) => name.startsWith('type '));
}

function layerOf(path: string): number {
  const [top] = path.split('/');
  return LAYERS.findIndex((layer) => layer.includes(top));
}

test('every file of src/ is in a layer', () => {
  for (const file of files) assert.ok(layerOf(file) >= 0, file);
});

test('the core imports nothing but the core and what is injected', () => {
  for (const { from, to } of imports.filter(({ from }) => CORE.includes(from.split('/')[0]))) {
    assert.ok(files.includes(to), `${from} imports ${to}`);
    assert.notEqual(to, 'endpoint.ts', `${from} imports ${to}`);
  }
});

test('arrows between folders point downward', () => {
  const upward = imports.filter(({ from, to }) => files.includes(to) && layerOf(to) > layerOf(from));
  assert.deepEqual(upward.map(({ from, to }) => `${from} -> ${to}`).sort(), Object.keys(EXCEPTIONS).sort());
  for (const { from, to, typeOnly } of upward) {
    const claimed = EXCEPTIONS[`${from} -> ${to}`].includes('(type only)');
    assert.equal(typeOnly, claimed, `${from} -> ${to} is ${typeOnly ? '' : 'not '}for types only`);
  }
});

test('no file imports itself, by whatever way round', () => {
  const next = new Map<string, string[]>();
  for (const { from, to, typeOnly } of imports) {
    if (!typeOnly && files.includes(to)) next.set(from, [...(next.get(from) ?? []), to]);
  }
  const done = new Set<string>();
  const visit = (file: string, path: string[]): void => {
    assert.ok(!path.includes(file), `${[...path, file].join(' -> ')}`);
    if (done.has(file)) return;
    for (const to of next.get(file) ?? []) visit(to, [...path, file]);
    done.add(file);
  };
  for (const file of files) visit(file, []);
});

test('docs/architecture.md names every folder', () => {
  const text = readDoc('docs/architecture.md');
  for (const folder of new Set(
    files.filter((file) => file.includes('/')).map((file) => file.split('/')[0]),
  )) {
    assert.ok(text.includes(`\n  ${folder}/`), folder);
  }
});
