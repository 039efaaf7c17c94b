/**
 * OFFSETS: the connections whose client knows other numbers than the primary's VM, in fields of their own. The words of
 * the translator's rows are its own affair; this file converts them, and believes nothing of what a peer sent.
 *
 * A map may need several messages. The first one begins a new map, the last one completes it, and only a complete map
 * is passed on: the map before it is right until then.
 *
 * Limits: OFFSETS_PER_MESSAGE entries in one message, LIMITS.translationsMax in one map.
 */
import { z } from 'zod';
import { ColoError } from '../error.ts';
import { tcpFlowOf, tcpKeyOf } from '../flow/key.ts';
import { LIMITS } from '../limits.ts';
import { IP_PROTOCOL } from '../wire/ipv4.ts';

/** Entries in one message. With every number at its longest they fit into MESSAGE_BYTES_MAX (link-protocol.ts). */
export const OFFSETS_PER_MESSAGE = 256;

/** One connection as the translator exports and imports it. */
export type ConnectionOffsets = {
  /** the flow's key, with the port that the VM uses */
  key: number[];
  vmIsn: number;
  seqDelta: number;
  tsDelta: number;
  /** the VM's port as the client knows it */
  clientPort: number;
};

/** A connection's name, as far as types go: zod takes three times as long to check the ranges as `flowProblem`. */
export const flowFields = {
  family: z.literal([4, 6]),
  vlans: z.array(z.int32()).max(2),
  protocol: z.literal(IP_PROTOCOL.tcp),
  vmAddress: z.string(),
  vmPort: z.int32(),
  clientAddress: z.string(),
  clientPort: z.int32(),
} as const;

const connection = z.object({
  ...flowFields,
  vmPortAtClient: z.int32(),
  vmIsn: z.int32(),
  seqDelta: z.int32(),
  tsDelta: z.int32(),
});

export const offsetsSchema = z.object({
  first: z.boolean(),
  last: z.boolean(),
  offsets: z
    .array(connection)
    .max(OFFSETS_PER_MESSAGE)
    .check(({ value, issues }) => {
      for (const [nth, entry] of value.entries()) {
        const message = flowProblem(entry) ?? portProblem(entry.vmPortAtClient);
        if (message !== null) issues.push({ code: 'custom', message, path: [nth], input: entry });
      }
    }),
});
/** The body of one message. */
export type Offsets = z.infer<typeof offsetsSchema>;
type Entry = Offsets['offsets'][number];
type ConnectionName = Omit<Entry, 'vmPortAtClient' | 'vmIsn' | 'seqDelta' | 'tsDelta'>;

const ADDRESS = { 4: /^[0-9a-f]{8}$/, 6: /^[0-9a-f]{32}$/ } as const;
const PORT_MAX = 0xffff;
const VLAN_MAX = 0xfff;

/** Returns what is wrong with a connection's name whose types are right, or null. */
export function flowProblem(name: ConnectionName): string | null {
  const address = ADDRESS[name.family];
  if (!address.test(name.vmAddress) || !address.test(name.clientAddress))
    return `an address is not one of IPv${name.family}`;
  const { vlans } = name;
  for (const id of vlans) if (id < 0 || id > VLAN_MAX) return `a VLAN id is ${id}`;
  if (vlans[0] === 0) return 'the outer VLAN id is 0';
  return portProblem(name.vmPort) ?? portProblem(name.clientPort);
}

function portProblem(port: number): string | null {
  return port < 0 || port > PORT_MAX ? `a port is ${port}` : null;
}

/** Returns the bodies of the messages that carry this map. */
export function offsetsMessages(map: readonly ConnectionOffsets[]): Offsets[] {
  const bodies: Offsets[] = [];
  for (let from = 0; from === 0 || from < map.length; from += OFFSETS_PER_MESSAGE) {
    const to = from + OFFSETS_PER_MESSAGE;
    bodies.push({ first: from === 0, last: to >= map.length, offsets: map.slice(from, to).map(entryOf) });
  }
  return bodies;
}

/** Puts a map together from its messages. */
export class OffsetsReader {
  private parts: ConnectionOffsets[] | null = null;

  /** Takes one message; returns the map when this was its last one. Throws COLO_LINK_GARBLED. */
  read(body: Offsets): ConnectionOffsets[] | null {
    if (body.first) this.parts = [];
    const { parts } = this;
    if (parts === null) throw garbled('OFFSETS continue a map that never began');
    if (parts.length + body.offsets.length > LIMITS.translationsMax)
      throw garbled(`OFFSETS of more than ${LIMITS.translationsMax} connections`);
    for (const entry of body.offsets) parts.push(offsetsOf(entry));
    if (!body.last) return null;
    this.parts = null;
    return parts;
  }
}

/** Returns the name of the connection with this key. */
export function nameOf(key: ArrayLike<number>): ConnectionName {
  const flow = tcpFlowOf(key);
  return {
    family: flow.family,
    vlans: [...flow.vlans],
    protocol: IP_PROTOCOL.tcp,
    vmAddress: flow.localAddress,
    vmPort: flow.localPort,
    clientAddress: flow.remoteAddress,
    clientPort: flow.remotePort,
  };
}

/** Returns the key of the connection with this name. */
export function keyOf(name: ConnectionName): number[] {
  return tcpKeyOf({
    family: name.family,
    vlans: name.vlans,
    localAddress: name.vmAddress,
    localPort: name.vmPort,
    remoteAddress: name.clientAddress,
    remotePort: name.clientPort,
  });
}

function entryOf({ key, vmIsn, seqDelta, tsDelta, clientPort }: ConnectionOffsets): Entry {
  return { ...nameOf(key), vmPortAtClient: clientPort, vmIsn, seqDelta, tsDelta };
}

function offsetsOf({ vmPortAtClient, vmIsn, seqDelta, tsDelta, ...name }: Entry): ConnectionOffsets {
  return { key: keyOf(name), vmIsn, seqDelta, tsDelta, clientPort: vmPortAtClient };
}

function garbled(what: string): ColoError {
  return new ColoError('COLO_LINK_GARBLED', `the peer sent ${what}; the link is closed and opened again`);
}
