/** 100 000 events at a page that is open: its memory does not grow, and it says how many it left out. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Browser, CDPSession } from 'playwright-core';
import { serve } from '../../lab/dashboard.ts';
import { workFolder } from '../../lab/process.ts';
import { nodesIn } from '../cli/with-node.ts';
import { type Check, openPage } from './dashboard.ts';

const FLOOD = 100_000;
const ROUND = 100;
/** More than the page keeps. */
const SERVICES = 200;
const GROWN_MIB_MAX = 5;

export async function flood(browser: Browser, check: Check): Promise<void> {
  await nodesIn(join(workFolder()))(async ({ socket, events }) => {
    const served = await serve(socket);
    try {
      const page = await openPage(browser, served.url, check);
      const session = await page.context().newCDPSession(page);
      const emit = async (count: number): Promise<void> => {
        for (let i = 0; i < count; i++) {
          const flow = `tcp 192.0.2.1:80 <-> 192.0.2.9:${i % 60_000}`;
          const explained = { reason: 'diverged-bytes', class: 'clock', why: 'a time' } as const;
          events.emit('compare.diverged', { flow, service: `tcp ${i % SERVICES}`, ...explained });
          if (i % ROUND === 0) await sleep(5);
        }
        await sleep(2000);
      };
      await emit(FLOOD / 10);
      const before = await heapMib(session);
      await emit((9 * FLOOD) / 10);
      const after = await heapMib(session);
      const grown = after - before;
      check(
        `${FLOOD} events leave the page's memory as it was`,
        grown <= GROWN_MIB_MAX,
        `${before.toFixed(1)} MiB before, ${after.toFixed(1)} after`,
      );
      const text = await page.innerText('main');
      check(
        'the page says how many it left out',
        /You missed [0-9 ]+ events/.test(text),
        /You missed [0-9 ]+ events/.exec(text)?.[0],
      );
    } finally {
      await served.stop();
    }
  });
}

async function heapMib(session: CDPSession): Promise<number> {
  await session.send('HeapProfiler.collectGarbage');
  const { usedSize } = await session.send('Runtime.getHeapUsage');
  return usedSize / 1024 / 1024;
}
