/**
 * Loaded before anything else (`--import`) in a process that runs worlds with one fault in the production code:
 * COLO_SIM_MUTATION names it.
 */
import { readFileSync } from 'node:fs';
import { registerHooks } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { MUTATIONS } from './mutations.ts';

const ROOT = new URL('../../../', import.meta.url);
const name = process.env.COLO_SIM_MUTATION;
const mutation = MUTATIONS.find((one) => one.name === name);
if (mutation === undefined) throw new Error(`COLO_SIM_MUTATION names no mutation: ${name}`);
const target = new URL(mutation.file, ROOT).href;
let applied = false;

registerHooks({
  load(url, context, next) {
    const loaded = next(url, context);
    if (url !== target) return loaded;
    applied = true;
    const source = readFileSync(fileURLToPath(url), 'utf8').replace(mutation.find, () => mutation.put);
    return { ...loaded, source };
  },
});

process.on('exit', (code) => {
  if (code === 0 && !applied) {
    process.stderr.write(`${pathToFileURL(mutation.file)} was never loaded: the mutation did nothing\n`);
    process.exitCode = 1;
  }
});
