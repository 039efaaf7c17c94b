/** A picture of the page for README: an SVG of what the browser has laid out and drawn, so it is text. */
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Browser } from 'playwright-core';

const IN_PAGE = join(import.meta.dirname, 'in-page.mjs');
const VIEWPORT = { width: 1280, height: 1000 };
/** Until the page has a new sample, and the plots are drawn with it. */
const DRAWN_MS = 2000;
/** As a file of the project. */
export const PICTURE_BYTES_MAX = 100_000;

/** Returns the page at `url` down to the end of its plots. */
export async function pictureOf(browser: Browser, url: string, title: string): Promise<string> {
  const context = await browser.newContext({ viewport: VIEWPORT, colorScheme: 'light' });
  try {
    const page = await context.newPage();
    await page.addInitScript({ path: IN_PAGE });
    await page.goto(url);
    await page.locator('.plots canvas').first().waitFor();
    await sleep(DRAWN_MS);
    return await page.evaluate<string>(`coloPicture('.plots', ${JSON.stringify(title)})`);
  } finally {
    await context.close();
  }
}
