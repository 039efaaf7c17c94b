/** Signals and lost outputs that must not end, or open, a process that carries a VM's network. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { udp } from '../compare/rig.ts';
import { tempFolder } from '../temp-folder.ts';
import { isAlive, printed, startColo, startInTerminal } from './colo.ts';
import { comparePeers, comparePlaces, DropInProcess, matches } from './dropin-process.ts';
import { muteNodeYaml } from './mute-node.ts';

const COLO = join(import.meta.dirname, '../../bin/colo');

/** Asserts that frames pass a `colo compare` whose places are in the folder. */
async function passes(t: TestContext, path: string): Promise<void> {
  const peers = await comparePeers(t, path);
  for (let i = 0; i < 3; i++) await matches(peers, udp(`${i}`));
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
  ['main.ts', (path: string) => startColo(['compare', ...comparePlaces(path)])],
  ['bin/colo', (path: string) => spawn(COLO, ['compare', ...comparePlaces(path)])],
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
        ? comparePlaces(path)
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

test('colo node continues after SIGHUP', async (t) => {
  const path = tempFolder(t);
  writeFileSync(join(path, 'a.yaml'), muteNodeYaml(path));
  const child = startColo(['node', '-c', join(path, 'a.yaml')]);
  t.after(() => child.kill('SIGKILL'));
  await printed(child.stdout, 'node.started');
  for (let i = 0; i < 3; i++) {
    child.kill('SIGHUP');
    await sleep(50);
  }
  const exit = once(child, 'exit');
  child.kill('SIGTERM');
  const [, signal] = (await exit) as [number | null, string | null];
  assert.equal(signal, null, 'it was stopped in order');
});

test('colo compare continues when its terminal is closed', async (t) => {
  const path = tempFolder(t);
  const { terminal, pid } = await startInTerminal(t, ['compare', ...comparePlaces(path)]);
  terminal.kill('SIGKILL');
  await once(terminal, 'exit');
  await passes(t, path);
  process.kill(pid, 'SIGTERM');
  while (isAlive(pid)) await sleep(20);
});

test('colo compare continues when the disk of its log is full', async (t) => {
  const path = tempFolder(t);
  const full = openSync('/dev/full', 'w');
  const child = spawn(COLO, ['compare', ...comparePlaces(path)], { stdio: ['ignore', full, full] });
  t.after(() => child.kill('SIGKILL'));
  await passes(t, path);
  await ended(child);
});

for (const [first, second] of [
  ['SIGINT', 'SIGTERM'],
  ['SIGTERM', 'SIGINT'],
  ['SIGTERM', 'SIGTERM'],
] as const) {
  test(`${second} after ${first} ends a process that still waits for a reader`, async (t) => {
    const path = tempFolder(t);
    const colo = new DropInProcess(t, 'compare', ...comparePlaces(path));
    const { primary, out } = await comparePeers(t, path);
    await colo.until('stream.up', 3);
    out.socket.pause();
    primary.send(...Array.from({ length: 3000 }, (_, i) => udp(`${i}`.padEnd(1000))));
    await colo.reached(3000, 'primaryFrames');
    const exit = once(colo.child, 'exit');
    colo.child.kill(first);
    // It releases what it holds, and then waits for one second at most.
    await colo.reached(1, 'releasedFrames');
    colo.child.kill(second);
    assert.deepEqual(await exit, [1, null]);
    assert.deepEqual(colo.of('compare.stopped'), []);
  });
}

test('a full disk is an error of a command that only prints, in one line', async () => {
  for (const args of [['node', '--print-schema'], ['compare', '--help'], ['--help'], ['node', '--help']]) {
    const child = spawn(COLO, args, { stdio: ['ignore', openSync('/dev/full', 'w'), 'pipe'] });
    let errors = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      errors += text;
    });
    assert.deepEqual(await once(child, 'close'), [1, null]);
    assert.match(errors, /^COLO_OUTPUT: the output cannot be written: ENOSPC.*\n$/);
  }
});

async function ended(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit');
  child.kill('SIGTERM');
  assert.deepEqual(await exit, [0, null]);
}
