/**
 * Builds the dashboard's page: from `page/` into `page/built/`, which `colo dashboard` serves in a checkout, or into `dist/page/` of a
 * package. Nothing of it is fetched when the page runs.
 */
import { copyFileSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { build } from 'esbuild';

const PAGE = join(import.meta.dirname, '../page');
/** Those that have Map.groupBy, of which the advice makes use: since 2024. */
const TARGETS = ['chrome117', 'firefox119', 'safari17.4'];

/** Puts the page's files into the folder. Two that do so at once do not mix: each file is moved into its place whole. */
export async function buildPage(folder: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const work = mkdtempSync(join(folder, 'new-'));
  try {
    const { outputFiles } = await build({
      entryPoints: [join(PAGE, 'main.tsx')],
      outdir: work,
      entryNames: 'page',
      write: false,
      bundle: true,
      minify: true,
      format: 'esm',
      target: TARGETS,
      jsx: 'automatic',
      jsxImportSource: 'preact',
      legalComments: 'eof',
      logLevel: 'error',
    });
    for (const { path, contents } of outputFiles) writeFileSync(path, contents);
    for (const file of ['index.html', 'icon.svg']) copyFileSync(join(PAGE, file), join(work, file));
    for (const file of ['index.html', 'icon.svg', 'page.css', 'page.js'])
      renameSync(join(work, file), join(folder, file));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

if (import.meta.main) await buildPage(join(PAGE, 'built'));
