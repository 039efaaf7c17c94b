/** Ethernet II with at most two 802.1Q or 802.1ad tags (IEEE 802.3, 802.1Q). EtherType 0x9100 came before 802.1ad. */

export const ETHERNET = {
  destination: 0,
  source: 6,
  etherType: 12,
  headerBytes: 14,
  tagBytes: 4,
} as const;

/** A frame of minimum size, without its checksum (IEEE 802.3 clause 4.4.2). */
export const ETHERNET_FRAME_BYTES_MIN = 60;

export const ETHER_TYPE = {
  ipv4: 0x0800,
  arp: 0x0806,
  rarp: 0x8035,
  vlan: 0x8100,
  qinq: 0x88a8,
  qinqOld: 0x9100,
  ipv6: 0x86dd,
  lldp: 0x88cc,
} as const;
