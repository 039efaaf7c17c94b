/** `npm pack`: what is in the package, and that it runs and type-checks where only its dependencies are. */
import assert from 'node:assert/strict';
import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { ROOT } from '../docs/tables.ts';
import { tempFolder } from '../temp-folder.ts';
import { buildEnv, copyCheckout, installBeside, type Packed, packCheckout } from './checkout.ts';

type Manifest = {
  version: string;
  engines: { node: string };
  man: string[];
  dependencies: Record<string, string>;
};

const folder = tempFolder();
const checkout = join(folder, 'checkout');
const project = join(folder, 'project');
const nodes = join(folder, 'bin');
let packed: Packed;
let installed = '';
let manifestBefore = '';

const run = (
  command: string,
  args: readonly string[],
  cwd: string,
  path?: string,
): SpawnSyncReturns<string> =>
  spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    env: path === undefined ? buildEnv() : { ...buildEnv(), PATH: path },
  });

const colo = (...args: string[]): SpawnSyncReturns<string> =>
  run(join(installed, 'bin/colo'), args, folder, `${nodes}:/usr/bin:/bin`);

before(() => {
  copyCheckout(checkout);
  manifestBefore = readFileSync(join(checkout, 'package.json'), 'utf8');
  packed = packCheckout(checkout, folder);
  installed = installBeside(join(folder, packed.filename), project);
  mkdirSync(nodes);
  symlinkSync(process.execPath, join(nodes, 'node'));
});

test('the package has compiled code with types, pages and units, and nothing that only a checkout needs', () => {
  const paths = packed.files.map(({ path }) => path);
  for (const wanted of [
    'bin/colo',
    'dist/cli/main.js',
    'dist/node.js',
    'dist/page/index.html',
    'dist/page/page.js',
    'dist/node.d.ts',
    'dist/man/colo-status.1',
    'dist/completion/colo',
    'dist/completion/_colo',
    'deploy/systemd/colo@.service',
    'deploy/prometheus/colo-alerts.yaml',
    'deploy/grafana/colo-dashboard.json',
    'docs/operation.md',
    'LICENSE',
    'README.md',
    'CHANGELOG.md',
  ])
    assert.ok(paths.includes(wanted), wanted);
  assert.deepEqual(
    paths.filter((path) => /^(src|test|lab|bench|demo|scripts|node_modules)\//.test(path)),
    [],
  );
  assert.deepEqual(
    paths.filter((path) => path.endsWith('.ts') && !path.endsWith('.d.ts')),
    [],
  );
});

test('its manifest says what it needs, and no compiled file imports anything else', () => {
  const manifest = JSON.parse(readFileSync(join(installed, 'package.json'), 'utf8')) as Manifest;
  const { version, dependencies } = JSON.parse(manifestBefore) as Manifest;
  assert.deepEqual(
    [manifest.version, manifest.engines, manifest.dependencies],
    [version, { node: '>=24' }, dependencies],
  );
  assert.deepEqual(
    Object.keys(manifest).filter((key) => /^(scripts|devDep|optionalDep)/.test(key)),
    [],
  );
  for (const page of manifest.man) assert.match(readFileSync(join(installed, page), 'utf8'), /^\.TH COLO/m);
  const imported = packed.files
    .filter(({ path }) => path.endsWith('.js'))
    .flatMap(({ path }) => {
      const text = readFileSync(join(installed, path), 'utf8');
      const statements = text.matchAll(/^(?:import|export)\b(?:[^;'"]*?\bfrom)?\s*'([^'.][^']*)'/gm);
      const dynamic = text.matchAll(/\bimport\('([^'.][^']*)'\)/g);
      return [...statements, ...dynamic].map(([, name]) => name);
    })
    .filter((name) => !name.startsWith('node:'));
  assert.deepEqual([...new Set(imported)].toSorted(), Object.keys(dependencies).toSorted());
});

test('a pack leaves the checkout as it was', () => {
  assert.equal(readFileSync(join(checkout, 'package.json'), 'utf8'), manifestBefore);
  assert.ok(!existsSync(join(checkout, '.colo-package.json')));
});

test('a manifest that a killed pack has left is put back', () => {
  writeFileSync(join(checkout, '.colo-package.json'), manifestBefore);
  writeFileSync(join(checkout, 'package.json'), '{"type":"module"}');
  const ran = run(process.execPath, ['scripts/package/npm.ts', 'after'], checkout);
  assert.equal(ran.status, 0, ran.stderr);
  assert.equal(readFileSync(join(checkout, 'package.json'), 'utf8'), manifestBefore);
});

test('the package runs on the Node of the PATH: commands, certificates, and the calls that a node makes of libc', () => {
  const { version } = JSON.parse(manifestBefore) as Manifest;
  assert.deepEqual([colo('--version').stdout, colo('--version').stderr], [`${version}\n`, '']);
  assert.match(colo('node', '--print-schema').stdout, /"runDirectory"/);
  const certs = colo('certs', '--pair', 'web', '--nodes', 'a', 'b', '--out', join(folder, 'certs'), '--json');
  assert.deepEqual([certs.status, certs.stderr], [0, '']);
  // The code of a node is loaded only when one is started.
  writeFileSync(
    join(project, 'load.mjs'),
    "import { startNode } from 'colo-proxy';\nconsole.log(typeof startNode);\n",
  );
  const loaded = run(process.execPath, ['load.mjs'], project);
  assert.deepEqual([loaded.stdout, loaded.stderr], ['function\n', '']);
});

test('its dashboard serves the page that is in the package', async () => {
  const args = [
    'dashboard',
    '--socket',
    join(folder, 'no.sock'),
    '--listen',
    'tcp-listen:127.0.0.1:0',
    '--json',
  ];
  const child = spawn(join(installed, 'bin/colo'), args, {
    env: { ...buildEnv(), PATH: `${nodes}:/usr/bin:/bin` },
  });
  try {
    const [line] = (await once(child.stdout, 'data')) as [Buffer];
    const { origin } = new URL((JSON.parse(line.toString()) as { url: string }).url);
    const script = await fetch(`${origin}/page.js`);
    assert.deepEqual(
      Buffer.from(await script.arrayBuffer()),
      readFileSync(join(installed, 'dist/page/page.js')),
    );
  } finally {
    child.kill();
  }
});

test('it runs with the flags for V8 that a checkout has', () => {
  const fake = join(folder, 'fake');
  mkdirSync(fake);
  writeFileSync(join(fake, 'node'), '#!/bin/sh\n[ "$1" = --version ] && echo v24.0.0 || echo "$@"\n');
  chmodSync(join(fake, 'node'), 0o755);
  const given = run(join(installed, 'bin/colo'), ['status'], folder, `${fake}:/usr/bin:/bin`).stdout;
  for (const flag of [
    '--min-semi-space-size=16',
    '--max-inlined-bytecode-size-cumulative=5000',
    '--disable-sigusr1',
  ])
    assert.ok(given.includes(flag), flag);
  assert.ok(given.trim().endsWith(`${installed}/dist/cli/main.js status`), given);
});

test('a Node that is too old, or none, is one line', () => {
  const old = join(folder, 'old');
  mkdirSync(old);
  writeFileSync(join(old, 'node'), '#!/bin/sh\necho v20.19.0\n');
  chmodSync(join(old, 'node'), 0o755);
  // Without Debian's own node, if there is one.
  const tools = join(folder, 'tools');
  mkdirSync(tools);
  for (const tool of ['sh', 'readlink', 'dirname']) symlinkSync(`/usr/bin/${tool}`, join(tools, tool));
  for (const [path, what] of [
    [`${old}:${tools}`, 'v20.19.0'],
    [tools, 'no Node'],
  ]) {
    const ran = run(join(installed, 'bin/colo'), ['status'], folder, path);
    assert.deepEqual(
      [ran.status, ran.stdout, ran.stderr],
      [1, '', `COLO_SETUP_NODE: colo needs Node 24 or later, and ${what} is on the PATH\n`],
    );
  }
});

test('a program that starts a node type-checks against the package', () => {
  writeFileSync(
    join(project, 'own.ts'),
    `import { startNode } from 'colo-proxy';
import { loadNodeConfig } from 'colo-proxy/config';
const { control, done } = await startNode(loadNodeConfig('a.yaml'), { onEvent: ({ type }) => console.log(type) });
const phase: string = control.status().phase;
// @ts-expect-error: it is a word
const wrong: number = control.status().phase;
console.log(phase, wrong, await done);
`,
  );
  writeFileSync(join(project, 'package.json'), '{"type":"module"}');
  mkdirSync(join(project, 'node_modules/@types'), { recursive: true });
  symlinkSync(join(ROOT, 'node_modules/@types/node'), join(project, 'node_modules/@types/node'));
  symlinkSync(join(ROOT, 'node_modules/undici-types'), join(project, 'node_modules/undici-types'));
  const options = [
    '--noEmit',
    '--strict',
    '--target',
    'esnext',
    '--module',
    'nodenext',
    '--types',
    'node',
    'own.ts',
  ];
  const ran = run(join(ROOT, 'node_modules/.bin/tsc'), options, project);
  assert.deepEqual([ran.status, ran.stdout], [0, '']);
});
