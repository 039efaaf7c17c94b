/**
 * Announcements: after a promotion, and when the uplink comes up, the network must learn where the VM's addresses are now. Switches
 * learn its MAC address, in each VLAN of its own; neighbours update ARP and NDP caches that may have another one. One frame per
 * address, repeated, since any can get lost.
 */
import type { Place } from '../link/places-message.ts';
import { ARP_REQUEST } from '../wire/arp.ts';
import { ETHER_TYPE } from '../wire/ethernet.ts';
import { ICMPV6_NEIGHBOR_ADVERTISEMENT } from '../wire/icmp.ts';
import { IP_PROTOCOL } from '../wire/ipv4.ts';
import { frameIn, writeIcmpv6Checksum } from './own-frame.ts';

const BROADCAST = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
const RARP_REQUEST = 3;
/** ff02::1 and its Ethernet group (RFC 2464 section 7) */
const ALL_NODES = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
const ALL_NODES_MAC = [0x33, 0x33, 0, 0, 0, 1];
const OVERRIDE = 0x20;
const TARGET_LINK_LAYER_OPTION = [2, 1];

/**
 * Returns frames with their stream length prefix, for each place: RARP for the MAC, gratuitous ARP (RFC 5227) per IPv4, NA
 * (RFC 4861) per IPv6.
 */
export function announcements(mac: string, places: readonly Place[]): Uint8Array[] {
  const own = mac.split(':').map((part) => Number.parseInt(part, 16));
  const zero4 = [0, 0, 0, 0];
  return places.flatMap(({ tags, addresses }) => [
    frameIn(tags, arp(own, ETHER_TYPE.rarp, RARP_REQUEST, zero4, own, zero4)),
    ...addresses.map((hex) => {
      const bytes = [...Buffer.from(hex, 'hex')];
      if (bytes.length > zero4.length) return frameIn(tags, neighborAdvertisement(own, bytes));
      return frameIn(tags, arp(own, ETHER_TYPE.arp, ARP_REQUEST, bytes, [0, 0, 0, 0, 0, 0], bytes));
    }),
  ]);
}

/** Adds addresses of the configuration, as text, to the place without tags. */
export function withConfigured(places: readonly Place[], addresses: readonly string[]): Place[] {
  const configured = addresses.map((text) => {
    const bytes = text.includes(':') ? ipv6Bytes(text) : text.split('.').map(Number);
    return Buffer.from(bytes).toString('hex');
  });
  return places.map((place) =>
    place.tags.length > 0
      ? place
      : { ...place, addresses: [...new Set([...configured, ...place.addresses])] },
  );
}

function arp(
  own: number[],
  etherType: number,
  operation: number,
  senderIp: number[],
  targetMac: number[],
  targetIp: number[],
): number[] {
  const head = [...BROADCAST, ...own, etherType >> 8, etherType & 255];
  return [...head, 0, 1, 8, 0, 6, 4, 0, operation, ...own, ...senderIp, ...targetMac, ...targetIp];
}

function neighborAdvertisement(own: number[], address: number[]): number[] {
  const icmp = [
    ICMPV6_NEIGHBOR_ADVERTISEMENT,
    0,
    0,
    0,
    OVERRIDE,
    0,
    0,
    0,
    ...address,
    ...TARGET_LINK_LAYER_OPTION,
    ...own,
  ];
  writeIcmpv6Checksum(icmp, address, ALL_NODES);
  const hopLimit = 255;
  const ip = [0x60, 0, 0, 0, 0, icmp.length, IP_PROTOCOL.icmpv6, hopLimit, ...address, ...ALL_NODES];
  return [...ALL_NODES_MAC, ...own, ETHER_TYPE.ipv6 >> 8, ETHER_TYPE.ipv6 & 255, ...ip, ...icmp];
}

/** The sixteen bytes of an IPv6 literal that the configuration has checked. */
function ipv6Bytes(text: string): number[] {
  const [head, tail] = text.split('::');
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const middle = new Array<number>(8 - left.length - right.length).fill(0);
  return [...left, ...middle, ...right].flatMap((group) => [group >> 8, group & 255]);
}

function groups(text: string): number[] {
  if (text === '') return [];
  return text.split(':').flatMap((part) => {
    if (!part.includes('.')) return [Number.parseInt(part, 16)];
    const [a, b, c, d] = part.split('.').map(Number);
    return [(a << 8) | b, (c << 8) | d];
  });
}
