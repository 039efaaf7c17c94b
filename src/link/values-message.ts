/**
 * VALUES: what clients were told of fields of which the primary's VM has another value (translate/unified-values.ts). Like OFFSETS, it
 * takes the place of the one before, and nothing of what a peer sent is believed.
 *
 * Limits: VALUES_MAX values, all in one message.
 */
import { z } from 'zod';
import { tcpFlowOf, tcpKeyOf } from '../flow/key.ts';
import { LIMITS } from '../limits.ts';
import type { UnifiedValue } from '../translate/unified-values.ts';
import { HTTP_DATE_BYTES, httpSeconds } from '../unify/http-date.ts';
import type { Seq } from '../units.ts';
import { IP_PROTOCOL } from '../wire/ipv4.ts';
import { flowFields, flowProblem } from './offsets-message.ts';

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
    values: values.map(({ key, seq, own, told }) => {
      const flow = tcpFlowOf(key);
      return {
        family: flow.family,
        vlans: [...flow.vlans],
        protocol: IP_PROTOCOL.tcp,
        vmAddress: flow.localAddress,
        vmPort: flow.localPort,
        clientAddress: flow.remoteAddress,
        clientPort: flow.remotePort,
        seq,
        own: Buffer.from(own).toString('latin1'),
        told: Buffer.from(told).toString('latin1'),
      };
    }),
  };
}

/** Returns the values of a message. */
export function valuesOf({ values }: Values): UnifiedValue[] {
  return values.map(({ seq, own, told, ...flow }) => ({
    key: Int32Array.from(
      tcpKeyOf({
        family: flow.family,
        vlans: flow.vlans,
        localAddress: flow.vmAddress,
        localPort: flow.vmPort,
        remoteAddress: flow.clientAddress,
        remotePort: flow.clientPort,
      }),
    ),
    seq: seq as Seq,
    own: Uint8Array.from(Buffer.from(own, 'latin1')),
    told: Uint8Array.from(Buffer.from(told, 'latin1')),
  }));
}
