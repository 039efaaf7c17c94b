/** A flood of events, a page that reads it, and one that does not: nobody's memory grows. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { startColo } from '../cli/colo.ts';
import { nodesIn } from '../cli/with-node.ts';
import { tempFolder } from '../temp-folder.ts';
import { messagesOf, open } from './rig.ts';

const folder = tempFolder();
const withNode = nodesIn(folder);

const FLOOD = 100_000;
const ROUND = 100;
/** V8 may let its heap grow by that before it collects; a queue of the flood would take 40 MB for each of the slow pages. */
const GROWN_MIB_MAX = 60;
const SLOW_PAGES = 4;

function rssMib(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
}

test('after 100 000 events the dashboard has no more memory, and slow pages learn how many they missed', async (t) => {
  await withNode(async ({ socket, events }) => {
    const args = ['dashboard', '--socket', socket, '--listen', 'tcp-listen:127.0.0.1:0', '--json'];
    const child = startColo(args, folder);
    t.after(() => child.kill('SIGKILL'));
    child.stderr.pipe(process.stderr);
    const [line] = (await new Promise<Buffer>((resolve) => child.stdout.once('data', resolve)))
      .toString()
      .split('\n');
    const url = new URL((JSON.parse(line) as { url: string }).url);
    const port = Number(url.port);
    const headers = { authorization: `Bearer ${url.hash.slice(1)}` };
    const pid = child.pid ?? 0;

    let received = 0;
    let missed = 0;
    const page = messagesOf(await open(port, '/feed', { headers }));
    const reading = (async () => {
      for await (const { name, data } of page) {
        received += ((data.events as unknown[] | undefined) ?? []).length;
        if (name === 'events') missed += data.missed as number;
        if (received + missed >= FLOOD) return;
      }
    })();
    const slow = Array.from({ length: SLOW_PAGES }, () => {
      const socket = connect(port, '127.0.0.1');
      t.after(() => socket.destroy());
      socket.write(
        `GET /feed HTTP/1.1\r\nHost: ${url.host}\r\nAuthorization: ${headers.authorization}\r\n\r\n`,
      );
      return socket.pause();
    });
    // Enough for the heap to have its size.
    const emit = async (count: number): Promise<void> => {
      for (let i = 0; i < count; i++) {
        events.emit('checkpoint.committed', { pauseMs: 5, filler: 'x'.repeat(250), i });
        if (i % ROUND === 0) await sleep(1);
      }
    };
    await emit(FLOOD / 5);
    const before = rssMib(pid);
    await emit((4 * FLOOD) / 5);
    await reading;
    const grown = rssMib(pid) - before;
    t.diagnostic(
      `${Math.round(before)} MiB and ${Math.round(grown)} more; ${received} events shown, ${missed} missed`,
    );
    assert.ok(grown < GROWN_MIB_MAX, `grown by ${grown} MiB`);
    assert.ok(missed > 0 && received < FLOOD / 4);

    // A page that reads again gets what it may still have, and the number of the rest.
    const known = new Promise<void>((resolve) => {
      let sum = 0;
      let rest = '';
      slow[0].setEncoding('latin1').on('data', (chunk: string) => {
        const parts = (rest + chunk).split('\n\n');
        rest = parts.pop() ?? '';
        for (const part of parts) {
          const shown = part.match(/"seq":/g)?.length ?? 0;
          sum += shown + Number(/"missed":(\d+)\}/.exec(part)?.[1] ?? 0);
        }
        if (sum >= FLOOD) resolve();
      });
      slow[0].resume();
    });
    await known;
    child.kill('SIGTERM');
    assert.equal(await new Promise((resolve) => child.once('exit', resolve)), 0);
  });
});
