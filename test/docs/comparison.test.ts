/** Compares docs/comparison.md with compare/classes.ts: the code classifies an example of each row as the row does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { COMPARE_AS, compareAs } from '../../src/compare/classes.ts';
import { PacketView, parsePacket } from '../../src/wire/packet.ts';
import {
  arpFrame,
  ethernet,
  fragmentExtension,
  icmpFrame,
  ipv4,
  ipv6,
  paddingExtension,
  tcpFrame,
  udpFrame,
} from '../frames.ts';
import { readDoc, tableRows } from './tables.ts';

const some = Buffer.alloc(16);
const icmpv6 = (...types: number[]): Buffer[] => types.map((type) => icmpFrame({ version: 6, type }));

const inIpv4 = (...protocols: number[]): Buffer[] =>
  protocols.map((protocol) => ethernet(0x0800, ipv4({ protocol }, some)));
const udpLite = ethernet(0x86dd, ipv6({ next: 136, extensions: [paddingExtension(0)] }, some));
const icmp = (...types: number[]): Buffer[] => types.map((type) => icmpFrame({ type }));

/** Examples by the first cell of the row. */
const EXAMPLES: Record<string, Buffer[]> = {
  TCP: [tcpFrame({}), tcpFrame({ version: 6, tags: [{ id: 5 }] }), tcpFrame({ ipOptions: [1, 1, 1, 1] })],
  'UDP, UDP-Lite': [
    udpFrame({}),
    udpFrame({ version: 6, tags: [{ id: 1, type: 0x9100 }, { id: 2 }] }),
    udpLite,
  ],
  'DHCP and DHCPv6 of the guest (UDP)': [
    udpFrame({ source: '0.0.0.0', destination: '255.255.255.255', sourcePort: 68, destinationPort: 67 }),
    udpFrame({ version: 6, destination: 'ff02::1:2', sourcePort: 546, destinationPort: 547 }),
  ],
  'ICMP and ICMPv6 echo, and what is not named here': [...icmp(0, 8, 13, 14), ...icmpv6(128, 129, 138, 200)],
  'ICMP errors (3, 4, 5, 11, 12), ICMPv6 errors (below 128)': [
    ...icmp(3, 4, 5, 11, 12),
    ...icmpv6(1, 2, 3, 4, 127),
  ],
  'NDP (ICMPv6 133 to 137)': icmpv6(133, 134, 135, 136, 137),
  'MLD (ICMPv6 130 to 132, 143)': icmpv6(130, 131, 132, 143),
  IGMP: inIpv4(2),
  'ARP, RARP, LLDP': [arpFrame(), ethernet(0x8035, some), ethernet(0x88cc, some)],
  'IP fragments': [
    ethernet(0x0800, ipv4({ protocol: 6, moreFragments: true }, some)),
    ethernet(0x0800, ipv4({ protocol: 2, fragmentOffset: 8 }, some)),
    ethernet(0x86dd, ipv6({ next: 58, extensions: [fragmentExtension(0, true, 1)] }, some)),
  ],
  SCTP: inIpv4(132),
  'AH, in IPv6 behind extension headers too': [
    ...inIpv4(51),
    ethernet(0x86dd, ipv6({ next: 51, extensions: [paddingExtension(43)] }, some)),
  ],
  'any other IP protocol: GRE, ESP, ...': [
    ...inIpv4(47, 50, 4, 33, 253),
    ethernet(0x86dd, ipv6({ next: 50 }, some)),
  ],
  'any other EtherType, and what has three VLAN tags or more': [
    ethernet(0x88b5, some),
    tcpFrame({ tags: [{ id: 1 }, { id: 2 }, { id: 3 }] }),
  ],
};

const rows = tableRows(readDoc('docs/comparison.md')).filter(([, as]) => Object.hasOwn(COMPARE_AS, as));

test('docs/comparison.md has exactly the rows with an example here', () => {
  assert.deepEqual(rows.map(([what]) => what).sort(), Object.keys(EXAMPLES).sort());
});

for (const [what, as] of rows) {
  test(`${what}: ${as}, as in docs/comparison.md`, () => {
    for (const frame of EXAMPLES[what] ?? []) {
      const view = new PacketView();
      parsePacket(frame, 0, frame.length, view);
      assert.equal(compareAs(view), COMPARE_AS[as as keyof typeof COMPARE_AS], frame.toString('hex'));
    }
  });
}
