/** Finds the calls of `invariant(...)` in `src`. */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from '../docs/tables.ts';

export type Call = { readonly file: string; readonly line: number; readonly text: string };

export function invariantCalls(): Call[] {
  return globSync('src/**/*.ts', { cwd: ROOT })
    .sort()
    .flatMap((file) => callsIn(file, readFileSync(join(ROOT, file), 'utf8')));
}

/** Each call with its arguments' source text, declarations left out. */
export function callsIn(file: string, source: string): Call[] {
  return [...source.matchAll(/(?<!function )(?<![\w.])invariant\(/g)].map(({ index }) => ({
    file,
    line: source.slice(0, index).split('\n').length,
    text: source.slice(index, endOfCall(source, index)),
  }));
}

/** Returns the place after the parenthesis that closes the call at `from`; parentheses in strings do not count. */
function endOfCall(source: string, from: number): number {
  let open = 0;
  let quote = '';
  for (let at = from; at < source.length; at++) {
    const character = source[at];
    if (character === '\\') at++;
    else if (quote !== '') quote = character === quote ? '' : quote;
    else if ('\'"`'.includes(character)) quote = character;
    else if (character === '(') open++;
    else if (character === ')' && --open === 0) return at + 1;
  }
  throw new Error(`an invariant without an end: ${source.slice(from, from + 80)}`);
}
