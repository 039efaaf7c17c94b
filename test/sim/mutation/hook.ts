/**
 * Runs a process with one fault in the production code. Load it before anything else (`--import`); the environment
 * variable COLO_MUTATION holds the fault, a `Patch` in JSON. The hook replaces the text as Node loads the file, so no
 * source file changes. The exit code is 1 if the process never loaded that file: then it has proven nothing.
 */
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { Patch } from './patch.ts';

const ROOT = new URL('../../../', import.meta.url);
const patch = JSON.parse(process.env.COLO_MUTATION ?? 'null') as Patch | null;
if (patch === null) throw new Error('COLO_MUTATION is not set');
const target = new URL(patch.file, ROOT).href;
let applied = false;

registerHooks({
  load(url, context, next) {
    const loaded = next(url, context);
    if (url !== target) return loaded;
    applied = true;
    const source = readFileSync(fileURLToPath(url), 'utf8').replace(patch.find, () => patch.put);
    return { ...loaded, source };
  },
});

process.on('exit', (code) => {
  if (code === 0 && !applied) {
    process.stderr.write(`${patch.file} was never loaded: its fault had no effect\n`);
    process.exitCode = 1;
  }
});
