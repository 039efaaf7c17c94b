/** A copy of this checkout, in which packages are built: a pack changes package.json for as long as it takes. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ROOT } from '../docs/tables.ts';

/** Of every file of the packages that the tests build: 2030-01-02T03:04:05Z. */
export const SOURCE_SECONDS = Date.UTC(2030, 0, 2, 3, 4, 5) / 1000;

/** Copies what git has or would add, with this checkout's dependencies, into `folder`. */
export function copyCheckout(folder: string): void {
  // A build in the copy would else install what lacks, through the link to this checkout's dependencies.
  const stamp = join(ROOT, 'node_modules/.colo-installed');
  if (
    !existsSync(stamp) ||
    readFileSync(stamp, 'utf8') !== readFileSync(join(ROOT, 'package-lock.json'), 'utf8')
  )
    throw new Error(`the dependencies are not those of package-lock.json; run: npm run setup (in ${ROOT})`);
  const listed = spawnSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: ROOT,
    encoding: 'utf8',
  });
  for (const file of listed.stdout.split('\0')) {
    if (file === '' || !existsSync(join(ROOT, file))) continue;
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    cpSync(join(ROOT, file), join(folder, file));
  }
  symlinkSync(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
}

/** The environment of a build. */
export const buildEnv = (): NodeJS.ProcessEnv => ({
  ...process.env,
  SOURCE_DATE_EPOCH: String(SOURCE_SECONDS),
});

export type Packed = { filename: string; files: { path: string; mode: number }[] };

/** Runs `npm pack` in a copy; its file is in `into` then. */
export function packCheckout(checkout: string, into: string): Packed {
  const printed = must('npm', ['pack', '--json', '--pack-destination', into], checkout);
  // npm 11 and later ones print an object by package, former ones a list.
  const [packed] = Object.values(JSON.parse(printed) as Record<string, Packed>);
  return packed;
}

/** Installs a package into a project as npm would, beside its dependencies, which are this checkout's; returns its folder. */
export function installBeside(file: string, project: string): string {
  const installed = join(project, 'node_modules/colo-proxy');
  mkdirSync(installed, { recursive: true });
  must('tar', ['-xzf', file, '--strip-components=1', '-C', installed], project);
  const lock = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean }>;
  };
  for (const [path, { dev }] of Object.entries(lock.packages)) {
    if (path === '' || dev === true || path.includes('node-linux-')) continue;
    const at = join(project, path);
    mkdirSync(dirname(at), { recursive: true });
    symlinkSync(join(ROOT, path), at);
  }
  return installed;
}

function must(command: string, args: readonly string[], cwd: string): string {
  const ran = spawnSync(command, args, { cwd, encoding: 'utf8', env: buildEnv() });
  if (ran.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${ran.error?.message ?? ran.stderr}`);
  return ran.stdout;
}
