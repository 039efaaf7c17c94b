/** docs/comparison.md against compare/classes.ts: an example of each row is classified as the row says. */
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
  tcpFrame,
  udpFrame,
} from '../frames.ts';
import { readDoc, tableRows } from './tables.ts';

const some = Buffer.alloc(16);
const icmpv6 = (...types: number[]): Buffer[] => types.map((type) => icmpFrame({ version: 6, type }));

/** By the first cell of the row. */
const EXAMPLES: Record<string, Buffer[]> = {
  TCP: [tcpFrame({}), tcpFrame({ version: 6, tags: [{ id: 5 }] })],
  UDP: [udpFrame({}), udpFrame({ version: 6 })],
  ICMP: [icmpFrame({ type: 0 }), icmpFrame({ type: 3 })],
  'ICMPv6 echo and errors': icmpv6(1, 2, 3, 4, 128, 129),
  'NDP (ICMPv6 133 to 137)': icmpv6(133, 134, 135, 136, 137),
  'MLD (ICMPv6 130 to 132, 143)': icmpv6(130, 131, 132, 143),
  IGMP: [ethernet(0x0800, ipv4({ protocol: 2 }, some))],
  'ARP, RARP, LLDP': [arpFrame(), ethernet(0x8035, some), ethernet(0x88cc, some)],
  'IP fragments': [
    ethernet(0x0800, ipv4({ protocol: 6, moreFragments: true }, some)),
    ethernet(0x0800, ipv4({ protocol: 2, fragmentOffset: 8 }, some)),
    ethernet(0x86dd, ipv6({ next: 58, extensions: [fragmentExtension(0, true, 1)] }, some)),
  ],
  'any other IP protocol': [
    ethernet(0x0800, ipv4({ protocol: 47 }, some)),
    ethernet(0x0800, ipv4({ protocol: 132 }, some)),
    ethernet(0x86dd, ipv6({ next: 50 }, some)),
  ],
  'any other EtherType': [ethernet(0x88b5, some)],
};

const rows = tableRows(readDoc('docs/comparison.md')).filter(([, as]) => Object.hasOwn(COMPARE_AS, as));

test('docs/comparison.md has the rows that are tried here', () => {
  assert.deepEqual(rows.map(([what]) => what).sort(), Object.keys(EXAMPLES).sort());
});

for (const [what, as] of rows) {
  test(`${what}: ${as}, as docs/comparison.md says`, () => {
    for (const frame of EXAMPLES[what] ?? []) {
      const view = new PacketView();
      parsePacket(frame, 0, frame.length, view);
      assert.equal(compareAs(view), COMPARE_AS[as as keyof typeof COMPARE_AS], frame.toString('hex'));
    }
  });
}
