/** What `colo doctor` says of the fence command. It does not run it: that would switch the other host off. */
import { accessSync, constants, statSync } from 'node:fs';
import { basename, delimiter, join } from 'node:path';
import type { NodeConfig } from '../config/node-config.ts';
import { type Check, good, problem, warning } from './check.ts';

export function checkFence({ fence }: NodeConfig, searchPath: string = process.env.PATH ?? ''): Check[] {
  if (fence === undefined) return [];
  const [program, ...args] = fence.command;
  const places = program.includes('/')
    ? [program]
    : searchPath.split(delimiter).map((at) => join(at, program));
  const found = places.find(isExecutable);
  if (found === undefined) {
    const advice = 'install it, or correct fence.command: no promotion succeeds without it';
    return [problem('fence', `there is no program ${program} that this user may run`, advice)];
  }
  // fence-agents read their standard input only if they get no arguments.
  if (basename(program).startsWith('fence_') && args.length > 0) {
    const advice =
      'with arguments it does not read action=off from the node; run it from a script (docs/operation.md)';
    return [warning('fence', `${found} with arguments`, advice)];
  }
  return [good('fence', `${found} (not run)`)];
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
