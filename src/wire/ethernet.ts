/** Ethernet II, with any number of 802.1Q / 802.1ad tags up to two (IEEE 802.3, 802.1Q). 0x9100 is 802.1ad's forerunner. */

export const ETHERNET = {
  destination: 0,
  source: 6,
  etherType: 12,
  headerBytes: 14,
  tagBytes: 4,
} as const;

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
