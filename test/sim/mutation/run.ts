/** Runs worlds from seed 1 on until one breaks a rule; hook.ts has applied a mutation. Prints one line of JSON. */
import { runWorld } from '../world.ts';

const seedsMax = Number(process.argv[2]);
let found: { seeds: number; rule: string; text: string } | null = null;
for (let seed = 1; seed <= seedsMax && found === null; seed++) {
  const { violations } = await runWorld(seed, {});
  if (violations.length > 0) found = { seeds: seed, rule: violations[0].rule, text: violations[0].text };
}
process.stdout.write(`${JSON.stringify(found)}\n`);
