#!/usr/bin/env node
// Runs one of the checkout's TypeScript programs on the Node that the checkout pins.
// This file is plain JavaScript for Node 20, because it is what makes the newer Node available:
// the pinned one arrives as an npm package that carries the binary itself.
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stamp = join(root, 'node_modules', '.colo-installed');

const fail = (code, text) => {
  process.stderr.write(`${code}: ${text}\n`);
  process.exit(1);
};

const installed = () =>
  existsSync(stamp) && statSync(stamp).size > 0 && readFileSync(stamp, 'utf8') === lock();
const lock = () => readFileSync(join(root, 'package-lock.json'), 'utf8');

const install = () => {
  process.stderr.write('colo: installing npm packages (once per checkout) ...\n');
  const done = spawnSync('npm', ['ci', '--no-fund', '--no-audit', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
  });
  if (done.error) fail('COLO_SETUP_NPM', `cannot start npm (${done.error.message}); install npm 11`);
  if (done.status !== 0) fail('COLO_SETUP_NPM', `"npm ci" failed in ${root}; its own message is above`);
  writeFileSync(stamp, lock());
};

const pinnedNode = () => {
  const local = join(root, 'node_modules', `node-${process.platform}-${process.arch}`, 'bin', 'node');
  if (existsSync(local)) return local;
  if (Number(process.versions.node.split('.')[0]) >= 24) return process.execPath;
  return fail(
    'COLO_SETUP_NODE',
    `no pinned Node for ${process.platform}-${process.arch}; install Node 24 or later`,
  );
};

const args = process.argv.slice(2);
if (!installed()) install();
if (args[0] === '--setup-only') process.exit(0);
const node = pinnedNode();
const child = spawn(node, ['--disable-warning=ExperimentalWarning', join(root, args[0]), ...args.slice(1)], {
  stdio: 'inherit',
});
// The terminal sends Ctrl-C to the whole group; only signals sent to this process alone need passing on.
for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
process.on('SIGINT', () => {});
child.on('exit', (code, signal) => {
  process.exitCode = signal === null ? code : 128 + (signal === 'SIGINT' ? 2 : 15);
});
