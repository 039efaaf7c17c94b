/** The options of the bench. */
import { parseArgs } from 'node:util';
import { ColoError } from '../../src/error.ts';

export const PARTS = ['frames', 'pause', 'delay'] as const;
export type Part = (typeof PARTS)[number];

export const HELP = `npm run bench -- link [--json] [--parts P,P] [--count N] [--rounds N] [--seconds N] [--delays MS,MS]
  --parts P,P     of ${PARTS.join(', ')} (default all)
                  frames: frames per second and processor time per frame over plain TCP and over TLS, no VM
                  pause:  pause of a checkpoint with a plain link and with one inside TLS
                  delay:  a service whose pair's link, inside TLS, is late by so many ms each way
  --count N       checkpoints on each side (default 60)
  --rounds N      of frames and delay, of which each figure is the median (default 3)
  --seconds N     for each figure of a round (default 4)
  --delays MS,MS  (default 0,0.2,1,5)

Needs two processors to itself. The claim: a checkpoint's pause over TLS is at most 1.25 times the plain one (medians).
With --json the last line on standard output is {"frames":..., "pause":..., "delay":...}.`;

export type Options = {
  readonly parts: readonly Part[];
  readonly count: number;
  readonly rounds: number;
  readonly ms: number;
  readonly delaysMs: readonly number[];
};

const DELAY_MS_MAX = 100;

/** Returns null if only help was asked for. Throws COLO_USAGE. */
export function readOptions(args: string[]): Options | null {
  try {
    const string = { type: 'string' } as const;
    const { values } = parseArgs({
      args,
      options: {
        ...{ parts: string, count: string, rounds: string, seconds: string, delays: string },
        help: { type: 'boolean', short: 'h', default: false },
      },
    });
    if (values.help) return null;
    const asked = values.parts?.split(',') ?? PARTS;
    for (const name of asked)
      if (!(PARTS as readonly string[]).includes(name))
        throw new Error(`--parts: there is no part "${name}"; choose of ${PARTS.join(', ')}`);
    return {
      parts: PARTS.filter((part) => asked.includes(part)),
      count: whole('count', values.count ?? '60', 10_000),
      rounds: whole('rounds', values.rounds ?? '3', 100),
      ms: whole('seconds', values.seconds ?? '4', 3600) * 1000,
      delaysMs: (values.delays ?? '0,0.2,1,5').split(',').map(delayOf),
    };
  } catch (cause) {
    throw new ColoError('COLO_USAGE', `${(cause as Error).message}\n${HELP}`);
  }
}

function whole(name: string, text: string, max: number): number {
  const value = Number(text);
  if (Number.isInteger(value) && value >= 1 && value <= max) return value;
  throw new Error(`--${name} takes a whole number from 1 to ${max}`);
}

function delayOf(text: string): number {
  const ms = Number(text);
  if (text.trim() !== '' && ms >= 0 && ms <= DELAY_MS_MAX) return ms;
  throw new Error(`--delays takes milliseconds from 0 to ${DELAY_MS_MAX}, not "${text}"`);
}
