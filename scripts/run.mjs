#!/usr/bin/env node
// Runs one of the checkout's TypeScript programs on the Node that the checkout pins.
// This file is plain JavaScript for Node 20, because it is what makes the newer Node available:
// the pinned one arrives as an npm package that carries the binary itself.
import { spawn, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const stamp = join(root, 'node_modules', '.colo-installed');
/** scripts/env and bin/colo look there too. */
const ownLibraries = join(root, 'node_modules', '.colo-lib');
const given = process.env.LD_LIBRARY_PATH;
/** The pinned Node needs this library, and a Debian without a compiler lacks it. */
const LIBRARY = { file: 'libatomic.so.1', package: 'libatomic1' };
const LIBRARY_FOLDERS = ['/lib', '/lib64', '/usr/lib', '/usr/lib64', '/usr/local/lib'];

const fail = (code, text) => {
  process.stderr.write(`${code}: ${text}\n`);
  process.exit(1);
};

const installed = () =>
  existsSync(stamp) && statSync(stamp).size > 0 && readFileSync(stamp, 'utf8') === lock();
const lock = () => readFileSync(join(root, 'package-lock.json'), 'utf8');

/** Sets the library path of all programs started from now on; scripts/env does the same for later commands. */
const useLibraries = (folder) => {
  process.env.LD_LIBRARY_PATH = [folder, given].filter(Boolean).join(':');
};

const machineHasLibrary = () => {
  const triplet = `${process.arch === 'x64' ? 'x86_64' : 'aarch64'}-linux-gnu`;
  const folders = LIBRARY_FOLDERS.flatMap((folder) => [folder, join(folder, triplet)]);
  return folders.some((folder) => existsSync(join(folder, LIBRARY.file)));
};

/** Fetches Debian's package with package lists of our own: the machine's may be old or missing. */
const fetchLibrary = (into) => {
  process.stderr.write(`colo: fetching ${LIBRARY.package}, which this machine does not have ...\n`);
  const run = (command, ...args) => {
    const done = spawnSync(command, args, { cwd: into, encoding: 'utf8' });
    if (done.status === 0) return;
    const why = done.error?.message ?? done.stderr.trim();
    fail(
      'COLO_SETUP_NODE',
      `the pinned Node needs ${LIBRARY.file}, and it cannot be fetched (${why}); as root: apt-get install ${LIBRARY.package}`,
    );
  };
  for (const folder of ['state/lists/partial', 'cache/archives/partial'])
    mkdirSync(join(into, folder), { recursive: true });
  writeFileSync(join(into, 'status'), '');
  const dirs = [`Dir::State=${into}/state`, `Dir::State::status=${into}/status`, `Dir::Cache=${into}/cache`];
  const options = [...dirs, 'APT::Sandbox::User='].flatMap((option) => ['-o', option]);
  run('apt-get', '-qq', ...options, 'update');
  run('apt-get', '-qq', ...options, 'download', LIBRARY.package);
  const [file] = readdirSync(into).filter((name) => name.endsWith('.deb'));
  run('dpkg', '-x', file, 'root');
  const found = readdirSync(join(into, 'root'), { recursive: true }).find((path) =>
    path.endsWith(`/${LIBRARY.file}`),
  );
  return dirname(join(into, 'root', found));
};

const install = () => {
  process.stderr.write('colo: installing npm packages (once per checkout) ...\n');
  const work = mkdtempSync(join(tmpdir(), 'colo-setup-'));
  process.on('exit', () => rmSync(work, { recursive: true, force: true }));
  const libraries = machineHasLibrary() ? null : fetchLibrary(work);
  if (libraries !== null) useLibraries(libraries);
  const done = spawnSync('npm', ['ci', '--no-fund', '--no-audit', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
  });
  if (done.error) fail('COLO_SETUP_NPM', `cannot start npm (${done.error.message}); install npm 11`);
  if (done.status !== 0) fail('COLO_SETUP_NPM', `"npm ci" failed in ${root}; its own message is above`);
  if (libraries !== null) {
    cpSync(libraries, ownLibraries, { recursive: true, verbatimSymlinks: true });
    useLibraries(ownLibraries);
  }
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
// The terminal sends Ctrl-C to the whole group; other signals reach only this process, which passes them on.
for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
process.on('SIGINT', () => {});
child.on('exit', (code, signal) => {
  process.exitCode = signal === null ? code : 128 + (signal === 'SIGINT' ? 2 : 15);
});
