/** Runs one simulated world and prints what it reports; the exit code is 1 if a rule was broken. */
import { runWorld } from '../sim/world.ts';

const { violations } = await runWorld(Number(process.argv[2]));
for (const { rule, text } of violations) console.log(rule === 'assertion' ? `COLO_INVARIANT ${text}` : text);
if (violations.length > 0) process.exitCode = 1;
