/** A standard output that nobody reads: a pager that waits, a log shipper that hangs, a terminal after Ctrl+S. */
import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { constants } from 'node:os';
import { createInterface } from 'node:readline';
import { test } from 'node:test';
import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import { udp } from '../compare/rig.ts';
import { tempFolder } from '../temp-folder.ts';
import { startColo, startInTerminal } from './colo.ts';
import { comparePeers, comparePlaces, matches } from './dropin-process.ts';

const lineOf = (path: string): string[] => ['compare', ...comparePlaces(path), '--json'];

const REPORTS = 10_000;
const { SIGUSR2 } = constants.signals;

/** Makes it print some 3 MiB. Signals that are pending together arrive as one, so each one waits for the one before. */
async function makePrint(child: ChildProcess): Promise<void> {
  const isPending = (): boolean => {
    const [, pending] = /^ShdPnd:\s+(\w+)$/m.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8')) ?? [];
    return ((BigInt(`0x${pending}`) >> BigInt(SIGUSR2 - 1)) & 1n) === 1n;
  };
  for (let i = 0; i < REPORTS; i++) {
    child.kill('SIGUSR2');
    while (isPending()) await nextTurn();
  }
}

test('events that nobody reads take no more than a bounded memory, and are counted', async (t) => {
  const path = tempFolder(t);
  const child = startColo(lineOf(path));
  t.after(() => child.kill('SIGKILL'));
  const peers = await comparePeers(t, path);
  await makePrint(child);
  await matches(peers, udp('unread'));
  const events: { type: string; seq: number; events?: number }[] = [];
  createInterface(child.stdout).on('line', (line) => {
    events.push(JSON.parse(line));
    child.emit('event');
  });
  while (events.at(-1)?.type !== 'events.unprinted') await once(child, 'event');
  const [lost] = events.filter(({ type }) => type === 'events.unprinted');
  const printed = events.length - 1;
  assert.ok(Buffer.byteLength(JSON.stringify(events)) < 2 * 1024 * 1024, 'no more than the bound was kept');
  assert.equal(printed + lost.events!, lost.seq, 'each event was printed, or counted');
  const end = once(child, 'close');
  child.kill('SIGTERM');
  assert.deepEqual(await end, [0, null]);
  assert.equal(events.at(-1)?.type, 'compare.stopped');
});

test('a process whose output nobody reads ends when it is told to', async (t) => {
  const path = tempFolder(t);
  const child = startColo(lineOf(path));
  t.after(() => child.kill('SIGKILL'));
  await comparePeers(t, path);
  await makePrint(child);
  const end = once(child, 'exit');
  child.kill('SIGTERM');
  assert.deepEqual(await Promise.race([end, sleep(5000, 'it still runs')]), [0, null]);
});

test('a terminal that is stopped (Ctrl+S) does not stop the traffic', async (t) => {
  const path = tempFolder(t);
  // Once script(1) is stopped, nobody reads the terminal.
  const { terminal, pid } = await startInTerminal(t, lineOf(path));
  const peers = await comparePeers(t, path);
  terminal.kill('SIGSTOP');
  for (let i = 0; i < 1000; i++) {
    process.kill(pid, 'SIGUSR2');
    await sleep(1);
  }
  const passed = await Promise.race([matches(peers, udp('unread')).then(() => true), sleep(3000, false)]);
  terminal.kill('SIGCONT');
  assert.ok(passed, 'no frame passed while the terminal was stopped');
});
