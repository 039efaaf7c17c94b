/** The files of the page. A package has them; a checkout builds them on first use, and again after a change (scripts/build-page.ts). */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ColoError } from '../error.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const BUILDER = join(ROOT, 'scripts/build-page.ts');
/** A package has no builder: there they are beside the compiled code. */
const BUILT = existsSync(BUILDER)
  ? join(ROOT, 'page/built')
  : fileURLToPath(new URL('../page', import.meta.url));
const BUILD_MS_MAX = 60_000;

export type Asset = { readonly type: string; readonly bytes: Buffer };
export type Assets = Readonly<Record<string, Asset>>;

const TYPES = {
  '/': ['index.html', 'text/html; charset=utf-8'],
  '/page.js': ['page.js', 'text/javascript; charset=utf-8'],
  '/page.css': ['page.css', 'text/css; charset=utf-8'],
  '/icon.svg': ['icon.svg', 'image/svg+xml'],
} as const;

/** Returns the page's files by path. Throws COLO_DASHBOARD_PAGE. */
export function loadAssets(folder: string = BUILT): Assets {
  if (folder === BUILT && existsSync(BUILDER) && isOld()) build();
  try {
    return Object.fromEntries(
      Object.entries(TYPES).map(([path, [file, type]]) => [
        path,
        { type, bytes: readFileSync(join(folder, file)) },
      ]),
    );
  } catch (cause) {
    throw new ColoError(
      'COLO_DASHBOARD_PAGE',
      `the page's files cannot be read in ${folder}; install colo-proxy again, or run "npm run setup" in its checkout`,
      { cause },
    );
  }
}

/** Whether a file of the page's sources is newer than what was built of them. */
function isOld(): boolean {
  const built = statSync(join(BUILT, 'page.js'), { throwIfNoEntry: false });
  if (built === undefined) return true;
  const sources = readdirSync(join(ROOT, 'page')).map((file) => join(ROOT, 'page', file));
  return [...sources, BUILDER].some((file) => {
    const stat = statSync(file);
    return stat.isFile() && stat.mtimeMs > built.mtimeMs;
  });
}

function build(): void {
  const { status, stderr, error } = spawnSync(process.execPath, [BUILDER], {
    encoding: 'utf8',
    timeout: BUILD_MS_MAX,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  if (status === 0) return;
  const why = error?.message ?? stderr.split('\n').find((line) => /error/i.test(line)) ?? 'no reason given';
  throw new ColoError(
    'COLO_DASHBOARD_PAGE',
    `the page cannot be built (${why}); run "npm run setup" in ${ROOT}, and "colo dashboard" once as its owner`,
  );
}
