/** Pages of a dashboard in a browser. */
import type { Browser, BrowserContextOptions, Page } from 'playwright-core';

export type Check = (what: string, isRight: boolean, seen?: string) => void;

/** Opens a page in a context of its own, and checks that it asks nobody else and that nothing fails in it. */
export async function openPage(
  browser: Browser,
  url: string,
  check: Check,
  options: BrowserContextOptions = {},
): Promise<Page> {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const { origin } = new URL(url);
  page.on('request', (request) => {
    if (!request.url().startsWith(`${origin}/`))
      check(`the page asks only its own server`, false, request.url());
    if (/#|\?/.test(request.url())) check('no request has the token in its address', false, request.url());
  });
  page.on('pageerror', (error) => check('no error in the page', false, error.message));
  page.on('console', (message) => {
    // A server that is gone is part of the story, and so is an action that is refused: the page says why.
    if (
      message.type() === 'error' &&
      !/ERR_CONNECTION_REFUSED|ERR_INCOMPLETE_CHUNKED_ENCODING|status of (401|409)/.test(message.text())
    )
      check('no error in the console', false, message.text());
  });
  await page.goto(url);
  return page;
}
