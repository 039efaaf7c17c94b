/** IPv6 header offsets (RFC 8200), relative to the header's first byte. */

export const IPV6 = {
  payloadLength: 4,
  nextHeader: 6,
  hopLimit: 7,
  source: 8,
  destination: 24,
  headerBytes: 40,
} as const;

/** The fragment extension header (RFC 8200 section 4.5). */
export const IPV6_FRAGMENT = { offset: 2, id: 4, headerBytes: 8, offsetMask: 0xfff8, more: 1 } as const;

/** A packet with more extension headers is an attack on the parser (RFC 9099 section 2.1) and counts as malformed. */
export const IPV6_EXTENSION_HEADERS_MAX = 8;
