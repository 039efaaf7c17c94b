/** ARP for IPv4 over Ethernet (RFC 826): offsets, relative to the packet's first byte. */

export const ARP = {
  protocol: 2,
  lengths: 4,
  operation: 6,
  senderMac: 8,
  senderIp: 14,
  targetIp: 24,
  bytes: 28,
} as const;

export const ARP_REQUEST = 1;
/** Six bytes of a MAC and four of an IPv4 address. */
export const ARP_LENGTHS = 0x0604;
