/** Signals and lost outputs that must not end, or open, a process that carries a VM's network. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { udp } from '../compare/rig.ts';
import { tempFolder } from '../temp-folder.ts';
import { startColo } from './colo.ts';
import { DropInProcess, Peer } from './dropin-process.ts';

const COLO = join(import.meta.dirname, '../../bin/colo');

function placesOf(path: string): string[] {
  const places = ['--primary-in', `unix-listen:${path}/pri`, '--secondary-in', `unix-listen:${path}/sec`];
  return [...places, '--out', `unix-listen:${path}/out`];
}

/** Asserts that frames pass a `colo compare` whose places are in the folder. */
async function passes(t: TestContext, path: string): Promise<void> {
  const [out, primary, secondary] = await Promise.all(
    ['out', 'pri', 'sec'].map((name) => Peer.connectWhenThere(t, { path: join(path, name) })),
  );
  for (let i = 0; i < 3; i++) {
    primary.send(udp(`${i}`));
    secondary.send(udp(`${i}`));
    assert.deepEqual(await out.next(), udp(`${i}`));
  }
}

/** Returns the TCP ports on which the process listens. */
function listeningPorts(pid: number): string[] {
  const LISTEN = '0A';
  const rows = ['tcp', 'tcp6'].flatMap((name) =>
    readFileSync(`/proc/${pid}/net/${name}`, 'utf8').trim().split('\n').slice(1),
  );
  const columns = rows.map((row) => row.trim().split(/\s+/));
  return columns.filter(([, , , state]) => state === LISTEN).map(([, local]) => local.split(':')[1]);
}

for (const [name, start] of [
  ['main.ts', (path: string) => startColo(['compare', ...placesOf(path)])],
  ['bin/colo', (path: string) => spawn(COLO, ['compare', ...placesOf(path)])],
] as const) {
  test(`SIGUSR1 opens no debugger and does not end the process: ${name}`, async (t) => {
    const path = tempFolder(t);
    const child = start(path);
    t.after(() => child.kill('SIGKILL'));
    let errors = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors += text;
    });
    await once(child.stdout, 'data');
    for (let i = 0; i < 3; i++) {
      child.kill('SIGUSR1');
      await sleep(100);
    }
    assert.equal(errors, '', 'Node announces its debugger there');
    assert.ok(!listeningPorts(child.pid as number).includes((9229).toString(16).toUpperCase()));
    await passes(t, path);
    await ended(child);
  });
}

for (const command of ['compare', 'rewrite']) {
  test(`colo ${command} continues after SIGHUP`, async (t) => {
    const path = tempFolder(t);
    const places =
      command === 'compare'
        ? placesOf(path)
        : ['in', 'guest-in', 'guest-out', 'out'].flatMap((name) => [
            `--${name}`,
            `unix-listen:${path}/${name}`,
          ]);
    const colo = new DropInProcess(t, command, ...places);
    await colo.until(`${command}.started`);
    for (let i = 0; i < 3; i++) colo.child.kill('SIGHUP');
    await colo.report();
    if (command === 'compare') await passes(t, path);
    await colo.stop();
  });
}

test('colo compare continues when its terminal is closed', async (t) => {
  const path = tempFolder(t);
  const line = [
    process.execPath,
    join(import.meta.dirname, '../../src/cli/main.ts'),
    'compare',
    ...placesOf(path),
  ];
  const pidFile = join(path, 'pid');
  // script(1) opens a pseudo terminal for the command.
  const shell = `echo $$ >${pidFile}; exec ${line.join(' ')}`;
  const terminal = spawn('script', ['-qec', shell, '/dev/null'], { stdio: ['pipe', 'pipe', 'ignore'] });
  t.after(() => terminal.kill('SIGKILL'));
  while (!(await once(terminal.stdout, 'data')).join('').includes('started'));
  const pid = Number(readFileSync(pidFile, 'utf8'));
  t.after(() => isAlive(pid) && process.kill(pid, 'SIGKILL'));
  terminal.kill('SIGKILL');
  await once(terminal, 'exit');
  await passes(t, path);
  process.kill(pid, 'SIGTERM');
  while (isAlive(pid)) await sleep(20);
});

test('colo compare continues when the disk of its log is full', async (t) => {
  const path = tempFolder(t);
  const full = openSync('/dev/full', 'w');
  const child = spawn(COLO, ['compare', ...placesOf(path)], { stdio: ['ignore', full, full] });
  t.after(() => child.kill('SIGKILL'));
  await passes(t, path);
  await ended(child);
});

function isAlive(pid: number): boolean {
  try {
    // A process without a parent that waits for it stays as a zombie.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

async function ended(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit');
  child.kill('SIGTERM');
  assert.deepEqual(await exit, [0, null]);
}
