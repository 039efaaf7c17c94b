import type { Break } from './break.ts';
import { COMPARE } from './breaks-compare.ts';
import { CORE } from './breaks-core.ts';
import { DROPIN } from './breaks-dropin.ts';
import { LINK } from './breaks-link.ts';
import { SIM } from './breaks-sim.ts';
import { TRANSLATE } from './breaks-translate.ts';

export const BREAKS: readonly Break[] = [...COMPARE, ...TRANSLATE, ...LINK, ...DROPIN, ...CORE, ...SIM];

/** Invariants that no break can reach: the message, and the reason. */
export const EXCEPTIONS: ReadonlyMap<string, string> = new Map([]);
