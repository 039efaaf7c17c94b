/** The options of `npm run chaos`. */
import { parseArgs } from 'node:util';
import { ColoError, messageOf } from '../../src/error.ts';
import type { BedArbiter } from '../bed/bed.ts';
import { FAILURES, type Failure } from './failures.ts';

export const USAGE = `usage: npm run chaos -- [options]

Two hosts, a client and an etcd of three members in network namespaces, a protected guest, clients that check every reply, and failures
picked at random. After each the pair must be protected again by itself. Needs root, or user namespaces.

  --seed N             the same seed picks the same failures (default 1)
  --failures K         how many (default 10; each takes about 10 s)
  --only NAME,NAME     only these kinds
  --arbiter KIND       etcd (default), or directory: one that both hosts share
  --disks              the guest has a disk, to which one of the clients has it write; at the end both images are compared
  --json               progress and table go to standard error; the last line on standard output is the result

kinds: ${FAILURES.map(({ name }) => name).join(', ')}
Exit codes: 0 nothing acknowledged was lost, no connection broke, never two voices, protected at the end; 1 not; 2 wrong usage.
`;

export type Options = {
  readonly seed: number;
  readonly failures: number;
  readonly kinds: readonly Failure[];
  readonly arbiter: BedArbiter;
  readonly disks: 'disks' | 'no-disks';
  readonly output: 'text' | 'json';
};

/** Returns null if only help is wanted. Throws COLO_USAGE. */
export function readOptions(args: readonly string[]): Options | null {
  let values: Record<string, string | boolean | undefined>;
  try {
    ({ values } = parseArgs({
      args: [...args],
      options: {
        seed: { type: 'string' },
        failures: { type: 'string' },
        only: { type: 'string' },
        arbiter: { type: 'string' },
        disks: { type: 'boolean' },
        json: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    }));
  } catch (cause) {
    throw new ColoError('COLO_USAGE', messageOf(cause), { cause });
  }
  if (values.help === true) return null;
  const arbiter = values.arbiter ?? 'etcd';
  if (arbiter !== 'etcd' && arbiter !== 'directory')
    throw new ColoError('COLO_USAGE', `--arbiter is etcd or directory, not ${arbiter}`);
  return {
    seed: wholeNumber('seed', values.seed ?? '1'),
    failures: wholeNumber('failures', values.failures ?? '10'),
    kinds: kindsOf(values.only, arbiter),
    arbiter,
    disks: values.disks === true ? 'disks' : 'no-disks',
    output: values.json === true ? 'json' : 'text',
  };
}

function wholeNumber(name: string, text: string | boolean): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1 || value > 1e6)
    throw new ColoError('COLO_USAGE', `--${name} is a whole number from 1 to 1000000, not ${text}`);
  return value;
}

function kindsOf(only: string | boolean | undefined, arbiter: BedArbiter): Failure[] {
  const possible = FAILURES.filter(({ needs }) => needs === 'nothing' || needs === arbiter);
  if (typeof only !== 'string') return possible;
  return only.split(',').map((name) => {
    const failure = possible.find((one) => one.name === name);
    if (failure === undefined)
      throw new ColoError(
        'COLO_USAGE',
        `with the arbiter ${arbiter} there is no failure "${name}": see --help`,
      );
    return failure;
  });
}
