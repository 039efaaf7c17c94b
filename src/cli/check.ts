/** One line of `colo doctor`. */

/** `ok`: a node can start. `advice` is what to do: '' if all is well, and given with `ok` it is a warning. */
export type Check = { name: string; ok: boolean; found: string; advice: string };

export const good = (name: string, found: string): Check => ({ name, ok: true, found, advice: '' });
export const warning = (name: string, found: string, advice: string): Check => ({
  name,
  ok: true,
  found,
  advice,
});
export const problem = (name: string, found: string, advice: string): Check => ({
  name,
  ok: false,
  found,
  advice,
});
