/** The story of the demo, as the page shows it. */
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';
import { Counter } from '../../lab/clients/counter.ts';
import { Echo } from '../../lab/clients/echo.ts';
import { type Served, serve } from '../../lab/dashboard.ts';
import { Stage } from '../../lab/stage.ts';
import { formatMs } from '../../src/cli/output.ts';
import { violationsOf } from './browser.ts';
import { type Check, openPage } from './dashboard.ts';
import { PICTURE_BYTES_MAX, pictureOf } from './picture.ts';

const DESKTOP: BrowserContextOptions = { viewport: { width: 1280, height: 1000 }, colorScheme: 'light' };
const DARK_PHONE: BrowserContextOptions = {
  viewport: { width: 390, height: 844 },
  colorScheme: 'dark',
  isMobile: true,
  hasTouch: true,
};
/** How long the plots go on after the failover. */
const SEEN_MS = 15_000;
const TRIES_MAX = 20;
const PICTURE_TITLE =
  'The dashboard of a pair that is protected again after a failover: both nodes, a time line with the parts of the blackout, and plots';
const SHOWN_MS_MAX = 20_000;
/** Of processor time, with and without pages. */
const MEASURED_MS = 20_000;
const TICKS_PER_S = 100;
const COST_PERCENT_MAX = 1;

/** Writes a picture of each step into `out`, and one of the page after the failover to the path `picture`. */
export async function story(browser: Browser, out: string, picture: string, check: Check): Promise<void> {
  const stage = await Stage.open({ ip: 'v4' });
  const served: Served[] = [];
  const ended = new AbortController();
  try {
    const a = stage.node('a');
    const b = stage.node('b');
    await stage.boot(a);
    const ofA = await serve(join(a.runDirectory, 'control.sock'));
    served.push(ofA);
    const look = async (page: Page, name: string): Promise<void> => {
      const found = await violationsOf(page);
      check(
        `axe-core finds nothing serious: ${name}`,
        found.length === 0,
        found.length === 0 ? '' : JSON.stringify(found),
      );
      await page.screenshot({ path: join(out, `${name}.png`), fullPage: true });
    };
    const pageA = await openPage(browser, ofA.url, check, DESKTOP);
    check('the token is not in the address any more', !pageA.url().includes('#'), '');
    await shows(pageA, check, 'UNPROTECTED');
    check('the tab says it too', (await pageA.title()).startsWith('UNPROTECTED'), await pageA.title());
    await look(pageA, '1-alone');

    await stage.protect(a, b);
    const ofB = await serve(join(b.runDirectory, 'control.sock'));
    served.push(ofB);
    const pageB = await openPage(browser, ofB.url, check, DARK_PHONE);
    await shows(pageA, check, 'Protected');
    await shows(pageB, check, 'Protected');
    const clients = [
      new Echo({ target: stage.targets.echo, everyMs: 20, seed: 1 }),
      new Counter({ target: stage.targets.counter }),
    ];
    const running = Promise.all(clients.map((client) => client.run(ended.signal)));
    await sleep(8000);
    await look(pageA, '2-protected');
    await look(pageB, '2-protected-phone');
    const width = await pageB.evaluate<number>('document.documentElement.scrollWidth');
    check('on a phone nothing is wider than the screen', width <= 390, `${width} px`);
    await costs(browser, a.pid, join(a.runDirectory, 'control.sock'), check);
    const { peer } = await a.status();
    check(
      'each node knows what the other does',
      peer.summary?.role === 'secondary',
      JSON.stringify(peer.summary),
    );

    await byKeyboard(pageA, check);
    await look(pageA, '3-checkpoint');

    await a.kill();
    await b.until('promotion', ({ phase }) => phase === 'alone', SHOWN_MS_MAX);
    await shows(pageA, check, 'STALE: the node does not reply');
    const stale = await pageA.innerText('body');
    check('a stale page does not say that the VM is protected', !/^Protected /m.test(stale));
    await shows(pageB, check, 'UNPROTECTED');
    const done = b.events().find(({ type }) => type === 'failover.done');
    const [detect, promote] = [Number(done?.detectMs), Number(done?.promoteMs)];
    const text = `Blackout of at most ${formatMs(detect + promote)}: ${formatMs(detect)} to detect the failure, ${formatMs(promote)} to promote`;
    await shows(pageB, check, text);
    await look(pageA, '4-stale');
    await look(pageB, '4-failover-phone');

    await stage.protect(b, a);
    await shows(pageA, check, 'Protected');
    await look(pageA, '5-protected-again');
    await sleep(SEEN_MS);
    const svg = await pictureOf(browser, ofB.url, PICTURE_TITLE);
    writeFileSync(picture, svg);
    const isWhole = ['Protected', 'Blackout of at most', 'Held output'].every((words) => svg.includes(words));
    check('the picture has the state, the failover and the plots', isWhole);
    check(
      'the picture is a small file of text',
      svg.length < PICTURE_BYTES_MAX && !/<image|<script/.test(svg),
      `${svg.length} bytes`,
    );
    ended.abort();
    await running;

    const refused = await openPage(browser, `${new URL(ofA.url).origin}/#${'x'.repeat(32)}`, check, DESKTOP);
    await shows(refused, check, 'No access');
    await look(refused, '6-no-access');
    await ofA.stop();
    await shows(pageA, check, 'STALE: the dashboard does not reply');
    await look(pageA, '7-no-dashboard');
  } finally {
    ended.abort();
    for (const one of served) await one.stop();
    await stage.close();
  }
}

async function shows(page: Page, check: Check, text: string): Promise<void> {
  const isThere = await page
    .getByText(text)
    .first()
    .waitFor({ timeout: SHOWN_MS_MAX })
    .then(
      () => true,
      () => false,
    );
  check(`the page shows "${text}"`, isThere, isThere ? '' : (await page.innerText('body')).slice(0, 500));
}

/** A checkpoint by keyboard alone: to the button, Enter, to the answer, Enter. */
async function byKeyboard(page: Page, check: Check): Promise<void> {
  const name = () => page.evaluate<string>("document.activeElement?.textContent?.trim() ?? ''");
  for (let i = 0; i < 20 && !(await name()).startsWith('Checkpoint'); i++) await page.keyboard.press('Tab');
  check('the keyboard reaches an action', (await name()).startsWith('Checkpoint'), await name());
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor({ timeout: SHOWN_MS_MAX });
  await page.keyboard.press('Escape');
  await page.getByRole('dialog').waitFor({ state: 'detached', timeout: SHOWN_MS_MAX });
  check('Escape answers no', !(await page.innerText('main')).includes('Checkpoint was'), '');
  // On a busy machine the pair may be taking one just then, and says so.
  let tries = 0;
  do {
    tries += 1;
    await page.getByRole('button', { name: /^Checkpoint/ }).focus();
    await page.keyboard.press('Enter');
    for (let i = 0; i < 5 && (await name()) !== 'Checkpoint'; i++) await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.getByText(/Checkpoint was (not )?done/).waitFor({ timeout: SHOWN_MS_MAX });
  } while (tries < TRIES_MAX && (await page.innerText('main')).includes('COLO_CHECKPOINT_RUNNING'));
  await shows(page, check, 'Checkpoint was done in');
}

/** The node's processor time, with one more dashboard that has three pages, and without that. */
async function costs(browser: Browser, nodePid: number, socket: string, check: Check): Promise<void> {
  const dashboard = await serve(socket);
  const pages = await Promise.all([1, 2, 3].map(() => openPage(browser, dashboard.url, check, DESKTOP)));
  const withPages = await usedPercent(nodePid);
  for (const page of pages) await page.context().close();
  await dashboard.stop();
  const without = await usedPercent(nodePid);
  check(
    `a dashboard with three pages costs the node at most ${COST_PERCENT_MAX}% of a processor`,
    withPages - without <= COST_PERCENT_MAX,
    `${withPages.toFixed(1)}% with it, ${without.toFixed(1)}% without`,
  );
}

async function usedPercent(pid: number): Promise<number> {
  const before = ticksOf(pid);
  await sleep(MEASURED_MS);
  return (100 * (ticksOf(pid) - before) * 1000) / TICKS_PER_S / MEASURED_MS;
}

function ticksOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /s, '')
    .split(' ');
  return Number(fields[11]) + Number(fields[12]);
}
