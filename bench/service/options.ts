/** What the options of the benches with services share. Errors are plain: the caller makes them COLO_USAGE. */
import type { Row } from './rows.ts';

/** Returns the names of a list, or all if there is none. Throws for one that no row has; `fullName` removes what may be added. */
export function rowNames(
  list: string | undefined,
  rows: Readonly<Record<string, Row>>,
  fullName = (name: string): string => name,
): readonly string[] {
  const names = list?.split(',') ?? Object.keys(rows);
  for (const name of names)
    if (!Object.hasOwn(rows, fullName(name)))
      throw new Error(`--rows: there is no row "${name}"; choose of ${Object.keys(rows).join(', ')}`);
  return names;
}

/** Throws unless the text is a whole number from 1 to `max`. */
export function wholeNumber(name: string, text: string, max: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= max) return value;
  throw new Error(`--${name} takes a whole number from 1 to ${max}`);
}

/** Returns the lines about the rows for a usage text. */
export function rowLines(rows: Readonly<Record<string, Row>>): string {
  const lines = Object.entries(rows).map(
    ([name, { about }]) => `${''.padEnd(23)}${name.padEnd(20)} ${about}`,
  );
  return lines.join('\n');
}
