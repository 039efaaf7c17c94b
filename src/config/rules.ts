/**
 * The schema of `rules:` in a node's YAML file: which flows, and what is done with them. docs/rules.md explains each action.
 *
 * A rule without effect is a mistake, and refused: one that an earlier rule of the same action covers wholly, or one for flows that
 * another rule exempts from all comparison.
 */
import { isIP } from 'node:net';
import { z } from 'zod';
import { OPERATOR_RULES_MAX, type OperatorRule, UNIFIED_FIELDS } from '../compare/operator-rules.ts';
import {
  type ClientPrefix,
  describeMatch,
  describePrefix,
  type FlowMatch,
  isWithin,
  maskOf,
  PROTOCOL_NAMES,
} from '../flow/match.ts';
import { IP_PROTOCOL } from '../wire/ipv4.ts';

const conflict = { code: 'custom', params: { coloCode: 'COLO_CONFIG_CONFLICT' } } as const;

/** Extension headers of IPv6, which a packet has before its protocol. */
const EXTENSIONS: readonly number[] = [
  IP_PROTOCOL.hopByHop,
  IP_PROTOCOL.ipv6Routing,
  IP_PROTOCOL.ipv6Fragment,
  IP_PROTOCOL.ipv6Destination,
];

const port = z.int().min(1).max(65535);

const protocol = z
  .union([z.string(), z.int()], { error: 'write a name, as in esp, or a number from 1 to 254' })
  .transform((given, context): number => {
    const number = typeof given === 'number' ? given : (PROTOCOL_NAMES.get(given) ?? null);
    const text = JSON.stringify(given);
    if (number === null)
      context.addIssue(
        `there is no protocol ${text}; write its number, or ${[...PROTOCOL_NAMES.keys()].join(', ')}`,
      );
    else if (number < 1 || number > 254)
      context.addIssue(`${text} is no protocol; write a number from 1 to 254`);
    else if (EXTENSIONS.includes(number))
      context.addIssue(`${text} is an extension header of IPv6; write the protocol that follows it`);
    else if (number === IP_PROTOCOL.igmp) context.addIssue('IGMP is never compared; remove the rule');
    else return number;
    return z.NEVER;
  });

const client = z.string().transform((text, context): ClientPrefix => {
  const [address, length, ...rest] = text.split('/');
  const version = rest.length > 0 || address.includes('%') ? 0 : isIP(address);
  if (version !== 4 && version !== 6) {
    context.addIssue(
      `${JSON.stringify(text)} is no address; write one, or a prefix as in 10.0.0.0/8 or 2001:db8::/32`,
    );
    return z.NEVER;
  }
  const bitsMax = version === 4 ? 32 : 128;
  const bits = length === undefined ? bitsMax : /^[0-9]{1,3}$/.test(length) ? Number(length) : bitsMax + 1;
  if (bits > bitsMax) {
    context.addIssue(`an IPv${version} prefix has 0 to ${bitsMax} bits; correct the number after the "/"`);
    return z.NEVER;
  }
  const words = version === 4 ? [wordOf(address.split('.').map(Number))] : ipv6Words(address);
  const prefix = { version, words: words.map((word, i) => word & maskOf(bits - 32 * i)), bits } as const;
  if (prefix.words.some((word, i) => word !== words[i])) {
    context.addIssue(`${text} has bits after its prefix; write ${describePrefix(prefix)}`);
    return z.NEVER;
  }
  return prefix;
});

const match = z
  .strictObject({
    tcp: port.optional().describe("The VM's port of a TCP connection."),
    udp: port.optional().describe("The VM's port of UDP datagrams."),
    protocol: protocol.optional().describe('A whole IP protocol, by name or number.'),
    client: client.optional().describe("The client's address or prefix."),
  })
  .superRefine((given, context) => {
    const named = Object.keys(given);
    const protocols = named.filter((key) => key !== 'client');
    if (named.length === 0)
      context.addIssue({ ...conflict, message: 'a match names nothing; give tcp, udp, protocol or client' });
    else if (protocols.length > 1)
      context.addIssue({
        ...conflict,
        path: [protocols[1]],
        message: `no flow has both ${protocols.join(' and ')}; write a rule for each`,
      });
  })
  .transform(({ tcp, udp, protocol = null, client = null }): FlowMatch => {
    if (tcp !== undefined) return { protocol: IP_PROTOCOL.tcp, port: tcp, client };
    if (udp !== undefined) return { protocol: IP_PROTOCOL.udp, port: udp, client };
    return { protocol, port: null, client };
  });

/** The keys of a rule that are an action; a rule has one of them. */
const ACTIONS = ['exempt', 'intervalMsMin', 'unify'] as const;

const rule = z
  .strictObject({
    match: match.describe('Which flows: all that is named has to be so.'),
    exempt: z.literal(true).optional().describe('These flows are not compared, and so not protected.'),
    intervalMsMin: z
      .int()
      .min(1)
      .optional()
      .describe('The least time between two checkpoints for differences of these flows.'),
    unify: z
      .literal(UNIFIED_FIELDS)
      .optional()
      .describe('The field in which replies of both VMs may differ.'),
  })
  .superRefine((given, context) => {
    const [first, second] = ACTIONS.filter((action) => given[action] !== undefined);
    const { protocol, port } = given.match;
    if (first === undefined)
      context.addIssue({ ...conflict, message: 'a rule does nothing; give exempt, intervalMsMin or unify' });
    else if (second !== undefined)
      context.addIssue({
        ...conflict,
        path: [second],
        message: `a rule does one thing: ${first} or ${second}; write a rule for each`,
      });
    else if (given.unify !== undefined && (protocol !== IP_PROTOCOL.tcp || port === null))
      context.addIssue({
        ...conflict,
        path: ['unify'],
        message: `${given.unify} is in TCP; give the VM's port in match.tcp`,
      });
  });

export const rules = z
  .array(rule)
  .max(OPERATOR_RULES_MAX)
  .superRefine((list, context) => {
    for (const place of list.keys()) {
      const message = uselessBecause(list, place);
      if (message !== null)
        context.addIssue({ ...conflict, path: [place], message: `${named(list, place)} ${message}` });
    }
  });

/** Returns why the rule at `place` has no effect, or null. */
function uselessBecause(list: readonly OperatorRule[], place: number): string | null {
  const one = list[place];
  for (const [at, other] of list.entries()) {
    if (at === place || !isWithin(one.match, other.match)) continue;
    const isSame = ACTIONS.every((action) => (one[action] === undefined) === (other[action] === undefined));
    if (isSame && at < place) return `never counts: ${named(list, at)} covers all of it; remove one`;
    if (!isSame && other.exempt === true)
      return `contradicts ${named(list, at)}, which exempts all of it; remove one`;
  }
  return null;
}

const named = (list: readonly OperatorRule[], place: number): string =>
  `rules.${place} (${describeMatch(list[place].match)})`;

function wordOf(bytes: readonly number[]): number {
  return bytes.reduce((word, byte) => (word << 8) | byte, 0);
}

/** Returns the four words of an IPv6 address. */
function ipv6Words(text: string): number[] {
  const [head, tail] = text.split('::');
  const left = groupsOf(head);
  const right = tail === undefined ? [] : groupsOf(tail);
  const groups = [...left, ...new Array<number>(8 - left.length - right.length).fill(0), ...right];
  return [0, 2, 4, 6].map((at) => (groups[at] << 16) | groups[at + 1]);
}

function groupsOf(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((part) => {
    if (!part.includes('.')) return [Number.parseInt(part, 16)];
    const word = wordOf(part.split('.').map(Number));
    return [word >>> 16, word & 0xffff];
  });
}
