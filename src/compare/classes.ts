/**
 * What is compared, and how: the one table of it. docs/comparison.md shows the same rows, and a test holds them together.
 *
 * stream: byte stream in the client's sequence space. datagram: payload, in order per flow.
 * whole: everything after the Ethernet header (non-IP) or after the IP header. quote: whole, except what two VMs may
 * quote differently of one packet (rules/icmp-error.ts). pieces: reassembled first, then compared as a datagram or whole.
 * harmless: means the same whenever it is sent (idempotent) and changes nothing that a client relies on. So the PVM's is
 * released at once, uncompared, and the SVM's is dropped, unless it is a question that the PVM does not ask (questions.ts).
 *
 * A flow has one rule, so the rule follows from what is in the flow's key: the packet's kind, not its ICMP type.
 */
import { ETHER_TYPE } from '../wire/ethernet.ts';
import {
  ICMPV6_MLD_FIRST,
  ICMPV6_MLD_LAST,
  ICMPV6_MLDV2_REPORT,
  ICMPV6_NDP_FIRST,
  ICMPV6_NDP_LAST,
  quotesPacket,
} from '../wire/icmp.ts';
import { IP_PROTOCOL } from '../wire/ipv4.ts';
import { PACKET, type PacketView } from '../wire/packet.ts';

export const COMPARE_AS = { stream: 0, datagram: 1, whole: 2, harmless: 3, quote: 4, pieces: 5 } as const;
export type CompareAs = (typeof COMPARE_AS)[keyof typeof COMPARE_AS];

/**
 * The rules' numbers: places in the table (rules/table.ts), and what a flow's row says. Below RULES_MAX. `exempt` follows from no
 * packet, but from the operator's rules.
 */
export const RULE = { datagram: 0, tcp: 1, icmp: 2, exempt: 3 } as const;
export type RuleNumber = (typeof RULE)[keyof typeof RULE];
export const RULES_MAX = 16;

export function compareAs(view: PacketView): CompareAs {
  switch (view.kind) {
    case PACKET.tcp:
      return COMPARE_AS.stream;
    case PACKET.udp:
      return COMPARE_AS.datagram;
    case PACKET.icmp:
      return quotesPacket(4, view.icmpType) ? COMPARE_AS.quote : COMPARE_AS.whole;
    case PACKET.icmpv6:
      if (quotesPacket(6, view.icmpType)) return COMPARE_AS.quote;
      return isHarmlessIcmpv6(view.icmpType) ? COMPARE_AS.harmless : COMPARE_AS.whole;
    case PACKET.nonIp:
      return isHarmlessEtherType(view.etherType) ? COMPARE_AS.harmless : COMPARE_AS.whole;
    case PACKET.otherIp:
      if (view.fragment) return COMPARE_AS.pieces;
      return view.protocol === IP_PROTOCOL.igmp ? COMPARE_AS.harmless : COMPARE_AS.whole;
    default:
      return COMPARE_AS.whole;
  }
}

/** Returns the number of the rule that compares a packet's flow. */
export function ruleOf(view: PacketView): RuleNumber {
  switch (view.kind) {
    case PACKET.tcp:
      return RULE.tcp;
    case PACKET.icmp:
    case PACKET.icmpv6:
      return RULE.icmp;
    default:
      return RULE.datagram;
  }
}

function isHarmlessEtherType(etherType: number): boolean {
  return etherType === ETHER_TYPE.arp || etherType === ETHER_TYPE.rarp || etherType === ETHER_TYPE.lldp;
}

function isHarmlessIcmpv6(type: number): boolean {
  return (
    (type >= ICMPV6_NDP_FIRST && type <= ICMPV6_NDP_LAST) ||
    (type >= ICMPV6_MLD_FIRST && type <= ICMPV6_MLD_LAST) ||
    type === ICMPV6_MLDV2_REPORT
  );
}
