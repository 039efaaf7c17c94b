/** Reads Markdown tables in docs/ as rows of trimmed cells. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export const ROOT = join(import.meta.dirname, '../..');

export function readDoc(name: string): string {
  return readFileSync(join(ROOT, name), 'utf8');
}

/** Returns every row of every table, without heads and the lines below them. */
export function tableRows(markdown: string): string[][] {
  const lines = markdown.split('\n');
  const rows: string[][] = [];
  let inTable = false;
  for (const [i, line] of lines.entries()) {
    if (!line.startsWith('|')) {
      inTable = false;
      continue;
    }
    const isHead = /^\|[\s:|-]+\|$/.test(lines[i + 1] ?? '');
    const isRule = /^\|[\s:|-]+\|$/.test(line);
    if (isHead || isRule) inTable = true;
    else if (inTable)
      rows.push(
        line
          .slice(1, -1)
          .split('|')
          .map((cell) => cell.trim()),
      );
  }
  return rows;
}

/** Returns the text of a cell that is one code span, or null. */
export function codeOf(cell: string): string | null {
  return /^`([^`]+)`$/.exec(cell)?.[1] ?? null;
}
