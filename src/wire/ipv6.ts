/** IPv6 header offsets (RFC 8200), relative to the header's first byte. */

export const IPV6 = {
  payloadLength: 4,
  nextHeader: 6,
  hopLimit: 7,
  source: 8,
  destination: 24,
  headerBytes: 40,
} as const;

/** More extension headers than this is not traffic but an attack on the parser (RFC 9099 section 2.1). */
export const IPV6_EXTENSION_HEADERS_MAX = 8;
