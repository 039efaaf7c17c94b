/**
 * `npm run page`: the dashboard in real Chromium, before a real pair: alone, protected, a failover, and a node that is gone; by
 * mouse and keyboard, in light and dark, on a desktop and on a phone. Each picture is checked by axe-core, and written to a folder; with
 * `--picture`, that of README to docs/dashboard.svg.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { workFolder } from '../../lab/process.ts';
import { startBrowser } from './browser.ts';
import { flood } from './flood.ts';
import { story } from './story.ts';

const { values } = parseArgs({ options: { out: { type: 'string' }, picture: { type: 'boolean' } } });
const out = values.out ?? join(workFolder(), 'pictures');
mkdirSync(out, { recursive: true });
const picture = join(
  values.picture === true ? join(import.meta.dirname, '../../docs') : out,
  'dashboard.svg',
);

const failures: string[] = [];
/** Prints what was seen, and remembers what was not as it should be. */
function check(what: string, isRight: boolean, seen = ''): void {
  process.stdout.write(`${isRight ? 'ok     ' : 'FAILED '} ${what}${seen === '' ? '' : `: ${seen}`}\n`);
  if (!isRight) failures.push(what);
}

const browser = await startBrowser();
try {
  process.stdout.write(`Chromium ${browser.version()}\n`);
  await story(browser, out, picture, check);
  await flood(browser, check);
} finally {
  await browser.close();
}
process.stdout.write(failures.length === 0 ? 'page: ok\n' : `page: ${failures.length} failed\n`);
process.exitCode = failures.length === 0 ? 0 : 1;
