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

const nothing = Buffer.alloc(8);
const icmp6 = (type: number) => icmpFrame({ version: 6, type });

const ROWS: [string, Buffer, keyof typeof COMPARE_AS][] = [
  ['TCP', tcpFrame({}), 'stream'],
  ['TCP over IPv6 in a VLAN', tcpFrame({ version: 6, tags: [{ id: 5 }] }), 'stream'],
  ['UDP', udpFrame({}), 'datagram'],
  ['UDP-Lite', ethernet(0x0800, ipv4({ protocol: 136 }, nothing)), 'datagram'],
  ['ICMP', icmpFrame({ type: 0 }), 'whole'],
  ['ICMPv6 echo', icmp6(129), 'whole'],
  ['ICMPv6 destination unreachable', icmp6(1), 'quote'],
  ['ICMPv6 parameter problem', icmp6(4), 'quote'],
  ['ICMP destination unreachable', icmpFrame({ type: 3 }), 'quote'],
  ['ICMP timestamp reply', icmpFrame({ type: 14 }), 'whole'],
  ['MLD query', icmp6(130), 'harmless'],
  ['MLD done', icmp6(132), 'harmless'],
  ['router solicitation', icmp6(133), 'harmless'],
  ['neighbour advertisement', icmp6(136), 'harmless'],
  ['redirect', icmp6(137), 'harmless'],
  ['behind the last of NDP', icmp6(138), 'whole'],
  ['MLDv2 report', icmp6(143), 'harmless'],
  ['ARP', arpFrame(), 'harmless'],
  ['RARP', ethernet(0x8035, nothing), 'harmless'],
  ['LLDP', ethernet(0x88cc, nothing), 'harmless'],
  ['another EtherType', ethernet(0x88b5, nothing), 'whole'],
  ['IGMP', ethernet(0x0800, ipv4({ protocol: 2 }, nothing)), 'harmless'],
  ['a fragment of IGMP', ethernet(0x0800, ipv4({ protocol: 2, fragmentOffset: 8 }, nothing)), 'pieces'],
  ['GRE', ethernet(0x0800, ipv4({ protocol: 47 }, nothing)), 'whole'],
  ['a fragment of TCP', ethernet(0x0800, ipv4({ protocol: 6, moreFragments: true }, nothing)), 'pieces'],
  [
    'a fragment of NDP',
    ethernet(
      0x86dd,
      ipv6(
        { next: 58, extensions: [fragmentExtension(0, true, 1)] },
        Buffer.from([136, 0, 0, 0, 0, 0, 0, 0]),
      ),
    ),
    'pieces',
  ],
];

for (const [name, frame, as] of ROWS) {
  test(`${name} is compared as ${as}`, () => {
    const view = new PacketView();
    parsePacket(frame, 0, frame.length, view);
    assert.equal(compareAs(view), COMPARE_AS[as]);
  });
}
