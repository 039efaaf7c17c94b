/**
 * General queries (IGMP, MLD) that the node gives its VM, so that the VM reports its multicast groups at the node's port.
 *
 * Goal: a bridge or switch that snoops sends a group to the ports on which it has heard reports. After a failover it has heard the new
 * primary's port report nothing, and would learn of it from its querier only, after up to two minutes (RFC 3376 section 8.2).
 *
 * Why the VM is asked, and its last reports are not remembered and repeated: what the VM answers is true. It knows its groups and
 * sources, in its own version of the protocol, those that it joined before this node existed, and not those that it left or lost in a
 * reboot; nobody has to parse, bound or hand over a table of reports. Its answer takes at most RESPONSE_MS.
 *
 * A query is input like any other: where there are two VMs, both get it, at one place in their order (rule 3). What they report is
 * harmless (compare/classes.ts): the PVM's leaves at once, the SVM's is dropped. So it parts nothing.
 *
 * | field       | value                                   | why                                                                  |
 * |-------------|-----------------------------------------|----------------------------------------------------------------------|
 * | version     | IGMPv3, MLDv2                           | one of an older version would turn the VM to it for four minutes     |
 * | source      | 0.0.0.0; the highest kind of fe80::     | neither wins an election of queriers against a VM that is one        |
 * | robustness, interval | 2, 125 s                       | the defaults of both protocols: the VM takes them over               |
 *
 * Nobody but the VM gets one: to the network the node would be another querier.
 */
import type { Place } from '../link/places-message.ts';
import { ETHER_TYPE } from '../wire/ethernet.ts';
import { ICMP, ICMPV6_MLD_FIRST } from '../wire/icmp.ts';
import { IP_PROTOCOL, IPV4 } from '../wire/ipv4.ts';
import { frameIn, writeChecksum, writeIcmpv6Checksum } from './own-frame.ts';

/** The VM spreads its reports over this time: IGMP counts in tenths of a second. */
const RESPONSE_MS = 100;
const ROBUSTNESS = 2;
const INTERVAL_S = 125;
/** Locally administered; the link-local address below is made of it (RFC 4291 appendix A). */
const QUERIER_MAC = [0xfe, 0x43, 0x4f, 0x4c, 0x4f, 0];
const QUERIER_IPV6 = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0xfc, 0x43, 0x4f, 0xff, 0xfe, 0x4c, 0x4f, 0];
/** 224.0.0.1 and ff02::1, with their Ethernet groups. */
const ALL_SYSTEMS = [224, 0, 0, 1];
const ALL_SYSTEMS_MAC = [1, 0, 0x5e, 0, 0, 1];
const ALL_NODES = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ALL_NODES_MAC = [0x33, 0x33, 0, 0, 0, 1];
const IGMP_QUERY = 0x11;
/** Routers look at packets with this option (RFC 2113, RFC 2711), and hosts require it. */
const ROUTER_ALERT_IPV4 = [0x94, 4, 0, 0];
const ROUTER_ALERT_IPV6 = [5, 2, 0, 0];

/** Returns a query of each protocol for each place, with their stream length prefix. */
export function membershipQueries(places: readonly Place[]): Uint8Array[] {
  return places.flatMap(({ tags }) => [frameIn(tags, igmpQuery()), frameIn(tags, mldQuery())]);
}

function igmpQuery(): number[] {
  const igmp = [IGMP_QUERY, RESPONSE_MS / 100, 0, 0, 0, 0, 0, 0, ROBUSTNESS, INTERVAL_S, 0, 0];
  writeChecksum(igmp, ICMP.checksum);
  const header = IPV4.headerBytesMin + ROUTER_ALERT_IPV4.length;
  const version = 0x40 | (header >> 2);
  const internetworkControl = 0xc0;
  const ip = [version, internetworkControl, 0, header + igmp.length, 0, 0, 0, 0, 1, IP_PROTOCOL.igmp, 0, 0];
  ip.push(0, 0, 0, 0, ...ALL_SYSTEMS, ...ROUTER_ALERT_IPV4);
  writeChecksum(ip, IPV4.checksum);
  return [...ALL_SYSTEMS_MAC, ...QUERIER_MAC, ETHER_TYPE.ipv4 >> 8, ETHER_TYPE.ipv4 & 255, ...ip, ...igmp];
}

function mldQuery(): number[] {
  const anyGroup = new Array<number>(16).fill(0);
  const mld = [ICMPV6_MLD_FIRST, 0, 0, 0, 0, RESPONSE_MS, 0, 0, ...anyGroup, ROBUSTNESS, INTERVAL_S, 0, 0];
  writeIcmpv6Checksum(mld, QUERIER_IPV6, ALL_NODES);
  const padding = [1, 0];
  const options = [IP_PROTOCOL.icmpv6, 0, ...ROUTER_ALERT_IPV6, ...padding];
  const ip = [0x60, 0, 0, 0, 0, options.length + mld.length, IP_PROTOCOL.hopByHop, 1];
  ip.push(...QUERIER_IPV6, ...ALL_NODES, ...options);
  return [...ALL_NODES_MAC, ...QUERIER_MAC, ETHER_TYPE.ipv6 >> 8, ETHER_TYPE.ipv6 & 255, ...ip, ...mld];
}
