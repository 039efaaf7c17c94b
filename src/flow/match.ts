/**
 * Which flows a rule of the configuration is for: by IP protocol, by the VM's port, by the client's address or prefix. What it does
 * not name may be anything; what it names has to be so together.
 *
 * A frame that is not IP is in no such flow. Nor does a rule that names a port cover a fragment: only the first fragment of a
 * datagram has a port. The flow of the datagram that the fragments make has one again, except that of a TCP segment in fragments.
 */
import { IP_PROTOCOL } from '../wire/ipv4.ts';
import { ipVersionOf, isFragmentKey, localPort, protocolOf, REMOTE_WORD } from './key.ts';

/** `words`: the address, one word in IPv4 and four in IPv6; all bits after the first `bits` are 0. */
export type ClientPrefix = {
  readonly version: 4 | 6;
  readonly words: readonly number[];
  readonly bits: number;
};

/** null: any. A `port` is one of TCP or UDP, and then `protocol` is one of these. */
export type FlowMatch = {
  readonly protocol: number | null;
  readonly port: number | null;
  readonly client: ClientPrefix | null;
};

/** The names that a configuration may use in place of a number. */
export const PROTOCOL_NAMES: ReadonlyMap<string, number> = new Map([
  ['icmp', IP_PROTOCOL.icmp],
  ['tcp', IP_PROTOCOL.tcp],
  ['udp', IP_PROTOCOL.udp],
  ['dccp', IP_PROTOCOL.dccp],
  ['gre', IP_PROTOCOL.gre],
  ['esp', IP_PROTOCOL.esp],
  ['ah', IP_PROTOCOL.ah],
  ['icmpv6', IP_PROTOCOL.icmpv6],
  ['sctp', IP_PROTOCOL.sctp],
  ['udplite', IP_PROTOCOL.udpLite],
]);

/** Returns true if the flow with this key (key.ts) is one that the match is for. */
export function covers({ protocol, port, client }: FlowMatch, key: Int32Array): boolean {
  const version = ipVersionOf(key);
  if (version === 0 || (protocol !== null && protocolOf(key) !== protocol)) return false;
  if (port !== null && (isFragmentKey(key) || localPort(key) !== port)) return false;
  return client === null || (client.version === version && hasPrefix(key, REMOTE_WORD, client, client.bits));
}

/** Returns true if each flow that `match` covers is covered by `other`. */
export function isWithin(match: FlowMatch, other: FlowMatch): boolean {
  if (other.protocol !== null && other.protocol !== match.protocol) return false;
  if (other.port !== null && other.port !== match.port) return false;
  if (other.client === null) return true;
  const { client } = match;
  return (
    client !== null &&
    client.version === other.client.version &&
    client.bits >= other.client.bits &&
    hasPrefix(client.words, 0, other.client, other.client.bits)
  );
}

/** Returns true if the first `bits` bits of the address at `at` are those of the prefix. */
function hasPrefix(words: ArrayLike<number>, at: number, prefix: ClientPrefix, bits: number): boolean {
  for (let word = 0; word << 5 < bits; word++)
    if (((words[at + word] ^ prefix.words[word]) & maskOf(bits - (word << 5))) !== 0) return false;
  return true;
}

/** Returns a word of which the first `bits` bits are set: all of them from 32 on. */
export function maskOf(bits: number): number {
  return bits >= 32 ? -1 : bits <= 0 ? 0 : -1 << (32 - bits);
}

/** Returns a match as people read it: "tcp 80", "udp 53 from 10.0.0.0/8", "esp", "from fd00::/8". */
export function describeMatch({ protocol, port, client }: FlowMatch): string {
  const parts: string[] = [];
  if (protocol !== null) {
    const [name] = [...PROTOCOL_NAMES].find(([, number]) => number === protocol) ?? [];
    parts.push(name ?? `protocol ${protocol}`);
  }
  if (port !== null) parts.push(String(port));
  if (client !== null) parts.push(`from ${describePrefix(client)}`);
  return parts.join(' ');
}

/** Returns a prefix as it is written: an address alone if it is of one client. */
export function describePrefix({ version, words, bits }: ClientPrefix): string {
  if (version === 4) {
    const [word] = words;
    const text = [word >>> 24, (word >>> 16) & 255, (word >>> 8) & 255, word & 255].join('.');
    return bits === 32 ? text : `${text}/${bits}`;
  }
  const text = compressed(words.flatMap((word) => [word >>> 16, word & 0xffff]));
  return bits === 128 ? text : `${text}/${bits}`;
}

/** Returns an IPv6 address with its longest run of zeros left out (RFC 5952 section 4.2). */
function compressed(groups: readonly number[]): string {
  let from = 0;
  let length = 1;
  for (let at = 0; at < groups.length; at++) {
    let end = at;
    while (end < groups.length && groups[end] === 0) end++;
    if (end - at > length) [from, length] = [at, end - at];
  }
  const hex = (some: readonly number[]) => some.map((group) => group.toString(16)).join(':');
  return length === 1 ? hex(groups) : `${hex(groups.slice(0, from))}::${hex(groups.slice(from + length))}`;
}
