/**
 * The rules of docs/architecture.md about imports and sizes:
 *
 * - the core knows nothing of Node, and arrows between the folders of `src` point downward only;
 * - no file imports itself through others, in any folder of the repository; an `import type` counts like any other;
 * - a file has at most 500 lines in `src`, and 600 elsewhere.
 *
 * A file that is longer is listed here with its reason. An entry that is no longer needed fails the test too.
 */
import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { ROOT, readDoc, tableRows } from './tables.ts';

/** Lowest first. Folders of one line may import each other. */
const LAYERS = [
  ['error.ts', 'limits.ts', 'units.ts', 'wasm.d.ts'],
  ['endpoint.ts'],
  ['wire'],
  ['flow'],
  ['frames'],
  ['unify'],
  ['compare'],
  ['divergence'],
  ['translate'],
  ['io'],
  ['link'],
  ['pair'],
  ['datapath'],
  ['checkpoint'],
  ['disk'],
  ['qemu', 'observe', 'config', 'capture'],
  ['node', 'node.ts', 'dropin', 'diff', 'dashboard', 'init'],
  ['cli'],
];
const CORE = ['wire', 'flow', 'frames', 'unify', 'compare', 'divergence', 'translate'];
const FOLDERS = ['src', 'page', 'lab', 'bench', 'demo', 'scripts', 'test'];

/** A file with more lines than its folder allows, and why. */
const ROOMS: Record<string, string> = {};

const LINES_MAX = { src: 500, elsewhere: 600 };

type Arrow = { from: string; to: string };

const files = FOLDERS.flatMap((folder) =>
  globSync('**/*.{ts,tsx,mjs}', { cwd: join(ROOT, folder) }).map((file) => join(folder, file)),
).sort();
const texts = new Map(files.map((file) => [file, readFileSync(join(ROOT, file), 'utf8')]));
/** An `import type` is an import: the reader of one file has to open the other. */
const imports: Arrow[] = [...texts].flatMap(([from, text]) => {
  const statements = text.matchAll(/^(?:import|export)\s+(?:[^;'"]*?\s+from\s+)?'([^']+)'/gm);
  const dynamic = text.matchAll(/\bimport\('([^']+)'\)/g);
  return [...statements, ...dynamic].map(([, to]) => ({ from, to: resolve(from, to) }));
});
const arrows = imports.filter(({ to }) => texts.has(to));

function resolve(from: string, to: string): string {
  return to.startsWith('.') ? normalize(join(dirname(from), to)) : to;
}

const isInSrc = (path: string): boolean => path.startsWith('src/');
const topOf = (path: string): string => path.split('/')[1];
const layerOf = (path: string): number => LAYERS.findIndex((layer) => layer.includes(topOf(path)));

const next = new Map<string, string[]>();
for (const { from, to } of arrows) next.set(from, [...(next.get(from) ?? []), to]);

/** Returns a shortest way from one file to the other along the imports, or null. */
function wayBetween(from: string, to: string): string[] | null {
  const ways = [[from]];
  const seen = new Set([from]);
  for (const way of ways) {
    for (const file of next.get(way[way.length - 1]) ?? []) {
      if (file === to) return [...way, to];
      if (!seen.has(file)) ways.push([...way, file]);
      seen.add(file);
    }
  }
  return null;
}

test('every file of src/ is in a layer', () => {
  for (const file of files.filter(isInSrc)) assert.ok(layerOf(file) >= 0, file);
});

test('every relative import leads to a file', () => {
  for (const { from, to } of imports) {
    if (!/^(?:src|page|lab|bench|demo|scripts|test)\//.test(to)) continue;
    assert.ok(texts.has(to) || existsSync(join(ROOT, to)), `${from} imports ${to}`);
  }
});

test('the core imports nothing but the core and what is injected', () => {
  for (const { from, to } of imports.filter(({ from }) => isInSrc(from) && CORE.includes(topOf(from)))) {
    assert.ok(texts.has(to), `${from} imports ${to}`);
    assert.notEqual(to, 'src/endpoint.ts', `${from} imports ${to}`);
  }
});

test('arrows between folders point downward', () => {
  const upward = arrows.filter(({ from, to }) => isInSrc(from) && layerOf(to) > layerOf(from));
  assert.deepEqual(upward, []);
});

test('src imports nothing of the folders beside it', () => {
  for (const { from, to } of arrows) assert.ok(!isInSrc(from) || isInSrc(to), `${from} imports ${to}`);
});

test('no file imports itself by a way through others, type imports included', () => {
  for (const file of files) {
    const circle = wayBetween(file, file)?.join(' -> ') ?? 'none';
    assert.equal(circle, 'none');
  }
});

test('a file has at most 500 lines in src, 600 elsewhere', () => {
  const over = [...texts].filter(([file, text]) => {
    const max = isInSrc(file) ? LINES_MAX.src : LINES_MAX.elsewhere;
    return text.split('\n').length - 1 > max;
  });
  assert.deepEqual(over.map(([file]) => file).sort(), Object.keys(ROOMS).sort());
});

test('docs/architecture.md names every folder of src', () => {
  const text = readDoc('docs/architecture.md');
  const inFolders = files.filter((file) => isInSrc(file) && file.split('/').length > 2);
  for (const folder of new Set(inFolders.map(topOf))) assert.ok(text.includes(`\n  ${folder}/`), folder);
});

test('docs/architecture.md answers each question with files that exist, but for those called new', () => {
  const answers = tableRows(readDoc('docs/architecture.md')).filter(([question]) => question.endsWith('?'));
  assert.ok(answers.length > 0);
  for (const [question, cell] of answers) {
    const named = [...cell.matchAll(/(new: )?`([\w/-]+\.ts)`/g)];
    assert.ok(named.length > 0, question);
    for (const [, isNew, path] of named) assert.equal(texts.has(`src/${path}`), isNew === undefined, path);
  }
});

test('nothing in drop-in pauses the reading of a port: who would have to act may be the one that waits for it', () => {
  for (const [file, text] of texts) {
    if (!file.startsWith('src/dropin/')) continue;
    const pauses = text.match(/\bValve\b|\bshutIf\b|\bpauseReading\b/);
    assert.equal(pauses, null, `${file} pauses reading`);
  }
});
