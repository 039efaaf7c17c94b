/**
 * `npm run build`: makes from a checkout what every package holds, in `dist/`: JavaScript with its types, man pages, shell
 * completion. `dist/` is emptied first, and the same sources give the same bytes.
 */
import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildProgram } from '../../src/cli/program.ts';
import { ColoError, messageOf } from '../../src/error.ts';
import { buildPage } from '../build-page.ts';
import { bashCompletion } from '../manual/bash.ts';
import { describeCommand } from '../manual/commands.ts';
import { manPages } from '../manual/man.ts';
import { zshCompletion } from '../manual/zsh.ts';
import { DIST, ROOT, readManifest, sourceSeconds } from './paths.ts';

type Step = { readonly makes: string; readonly run: () => void | Promise<void> };

/** All that is in dist/. */
const STEPS: readonly Step[] = [
  { makes: 'JavaScript and types', run: compile },
  { makes: 'the page of the dashboard', run: () => buildPage(join(DIST, 'page')) },
  { makes: 'man pages and completion', run: writeManual },
];

/** Throws COLO_PACKAGE if a step fails. */
export async function build(): Promise<void> {
  rmSync(DIST, { recursive: true, force: true });
  for (const { makes, run } of STEPS) {
    process.stderr.write(`colo: making ${makes} ...\n`);
    await run();
  }
}

function compile(): void {
  const tsc = join(ROOT, 'node_modules/.bin/tsc');
  const ran = spawnSync(tsc, ['--project', 'tsconfig.build.json'], { cwd: ROOT, encoding: 'utf8' });
  if (ran.status !== 0)
    throw new ColoError('COLO_PACKAGE', `the compiler failed: ${ran.error?.message ?? ran.stdout.trim()}`);
}

function writeManual(): void {
  const root = describeCommand(buildProgram());
  const date = new Date(sourceSeconds() * 1000).toISOString().slice(0, 'yyyy-mm-dd'.length);
  const { version } = readManifest();
  const files = new Map([
    ...[...manPages(root, { version, date })].map(([name, text]) => [join('man', name), text] as const),
    ['completion/colo', bashCompletion(root)],
    ['completion/_colo', zshCompletion(root)],
  ]);
  for (const folder of ['man', 'completion']) mkdirSync(join(DIST, folder), { recursive: true });
  for (const [path, text] of files) writeFileSync(join(DIST, path), text);
}

if (import.meta.main) {
  try {
    await build();
  } catch (error) {
    const code = error instanceof ColoError ? error.code : 'COLO_PACKAGE';
    process.stderr.write(`${code}: ${messageOf(error)}\n`);
    process.exitCode = 1;
  }
}
