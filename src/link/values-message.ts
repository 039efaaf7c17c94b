/**
 * VALUES: what clients were told of fields of which the primary's VM has another value (translate/unified-values.ts). Like OFFSETS, it
 * takes the place of the one before, and nothing of what a peer sent is believed.
 *
 * Limits: VALUES_MAX values, all in one message.
 */
import { z } from 'zod';
import { LIMITS } from '../limits.ts';
import type { UnifiedValue } from '../translate/unified-values.ts';
import { HTTP_DATE_BYTES, httpSeconds } from '../unify/http-date.ts';
import type { Seq } from '../units.ts';
import { flowFields, flowProblem, keyOf, nameOf } from './offsets-message.ts';

/** As many as an OffsetMap has. */
export const VALUES_MAX = 2 * LIMITS.unifiedValuesMax;

const date = z
  .string()
  .length(HTTP_DATE_BYTES)
  .refine((text) => !Number.isNaN(httpSeconds(Buffer.from(text, 'latin1'), 0)), 'it is no HTTP date');

const value = z
  .object({
    ...flowFields,
    /** the place of the value in the stream, as the client counts */
    seq: z.int32(),
    /** the VM's own value, and the one that the client has */
    own: date,
    told: date,
  })
  .check(({ value, issues }) => {
    const message = flowProblem(value);
    if (message !== null) issues.push({ code: 'custom', message, input: value });
  });

export const valuesSchema = z.object({ values: z.array(value).max(VALUES_MAX) });
/** The body of the message. */
export type Values = z.infer<typeof valuesSchema>;

/** Returns the body that carries these values. */
export function valuesMessage(values: readonly UnifiedValue[]): Values {
  return {
    values: values.map(({ key, seq, own, told }) => ({
      ...nameOf(key),
      seq,
      own: Buffer.from(own).toString('latin1'),
      told: Buffer.from(told).toString('latin1'),
    })),
  };
}

/** Returns the values of a message. */
export function valuesOf({ values }: Values): UnifiedValue[] {
  return values.map(({ seq, own, told, ...name }) => ({
    key: Int32Array.from(keyOf(name)),
    seq: seq as Seq,
    own: Uint8Array.from(Buffer.from(own, 'latin1')),
    told: Uint8Array.from(Buffer.from(told, 'latin1')),
  }));
}
