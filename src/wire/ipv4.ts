/** IPv4 header offsets (RFC 791), relative to the header's first byte. */

export const IPV4 = {
  versionIhl: 0,
  totalLength: 2,
  id: 4,
  fragment: 6,
  ttl: 8,
  protocol: 9,
  checksum: 10,
  source: 12,
  destination: 16,
  headerBytesMin: 20,
} as const;

/** What the length field of IPv4, and that of IPv6, says at most. */
export const IP_LENGTH_MAX = 0xffff;

export const IPV4_MORE_FRAGMENTS = 0x2000;
export const IPV4_OFFSET_MASK = 0x1fff;

export const IP_PROTOCOL = {
  hopByHop: 0,
  icmp: 1,
  igmp: 2,
  tcp: 6,
  udp: 17,
  dccp: 33,
  ipv6Routing: 43,
  ipv6Fragment: 44,
  gre: 47,
  esp: 50,
  ah: 51,
  icmpv6: 58,
  ipv6NoNext: 59,
  ipv6Destination: 60,
  sctp: 132,
  udpLite: 136,
} as const;
