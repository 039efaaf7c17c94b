/** ICMP and ICMPv6 (RFC 792, RFC 4443, RFC 4861, RFC 3810): offsets, and the message types that this code tells apart. */

export const ICMP = { type: 0, code: 1, checksum: 2, id: 4, sequence: 6, headerBytes: 8 } as const;

export const ICMP_ECHO_REPLY = 0;
export const ICMP_ECHO_REQUEST = 8;
export const ICMPV6_ECHO_REQUEST = 128;
export const ICMPV6_ECHO_REPLY = 129;
/** Bytes of an error's header; the packet that it quotes follows (RFC 792, RFC 4443 section 3). */
export const ICMP_QUOTE = 8;
const ICMP_ERRORS = [3, 4, 5, 11, 12];
const ICMPV6_INFORMATIONAL = 128;

/** Returns true if an ICMP (IP version 4) or ICMPv6 (version 6) message quotes the packet that it is about. */
export function quotesPacket(version: number, type: number): boolean {
  return version === 6 ? type < ICMPV6_INFORMATIONAL : ICMP_ERRORS.includes(type);
}

/** MLD: query, report, done. */
export const ICMPV6_MLD_FIRST = 130;
export const ICMPV6_MLD_LAST = 132;
/** NDP: router and neighbour solicitation and advertisement, redirect. */
export const ICMPV6_NDP_FIRST = 133;
export const ICMPV6_NDP_LAST = 137;
export const ICMPV6_MLDV2_REPORT = 143;
export const ICMPV6_ROUTER_SOLICITATION = 133;
export const ICMPV6_NEIGHBOR_SOLICITATION = 135;
export const ICMPV6_NEIGHBOR_ADVERTISEMENT = 136;
/** The target's offset in a neighbour solicitation or advertisement, and the bytes up to its end (RFC 4861 sections 4.3 and 4.4). */
export const NEIGHBOR = { target: 8, bytes: 24 } as const;
