/** `colo node` as systemd's service: ready, watched, and untouched by signals that are not for it. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { tempFolder } from '../temp-folder.ts';
import { startColo } from './colo.ts';
import { muteNodeYaml } from './mute-node.ts';
import { NotifySocket } from './notify-socket.ts';

const WATCHDOG_MS = 600;

test('a node is ready when it runs, alive while its event loop turns, and says that it stops', async (t) => {
  const path = tempFolder(t);
  const systemd = new NotifySocket(join(path, 'notify'), t);
  writeFileSync(join(path, 'a.yaml'), muteNodeYaml(path));
  const child = startColo(['node', '-c', join(path, 'a.yaml')], path, {
    NOTIFY_SOCKET: join(path, 'notify'),
    WATCHDOG_USEC: String(WATCHDOG_MS * 1000),
  });
  t.after(() => child.kill('SIGKILL'));
  child.stdout.resume();
  const seen: string[] = [];
  const until = async (wanted: string) => {
    while (!seen.some((text) => text.split('\n').includes(wanted))) {
      await sleep(20);
      seen.push(...systemd.take());
    }
  };
  await until('STATUS=primary, alone');
  assert.equal(seen[0], 'READY=1');

  // The watchdog sees what no process list shows: a node that does not run.
  child.kill('SIGSTOP');
  await sleep(WATCHDOG_MS / 3);
  systemd.take();
  await sleep(2 * WATCHDOG_MS);
  assert.deepEqual(systemd.take(), []);
  child.kill('SIGCONT');
  seen.length = 0;
  await until('WATCHDOG=1');

  for (const signal of ['SIGHUP', 'SIGUSR1'] as const) child.kill(signal);
  seen.length = 0;
  await until('WATCHDOG=1');

  const exit = once(child, 'exit');
  child.kill('SIGTERM');
  await until('STOPPING=1');
  assert.deepEqual((await exit).at(1), null, 'it was stopped in order');
});
