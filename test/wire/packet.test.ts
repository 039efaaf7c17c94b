import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Seq } from '../../src/units.ts';
import { PACKET, PacketView, parseGsoPacket, parsePacket } from '../../src/wire/packet.ts';
import {
  ACK,
  arpFrame,
  ethernet,
  FIN,
  fragmentExtension,
  icmpFrame,
  ipv4,
  ipv6,
  type LinkLayer,
  paddingExtension,
  placed,
  SYN,
  sack,
  type TcpSegment,
  tcpFrame,
  udpFrame,
} from '../frames.ts';

const payload = Buffer.from('hello');

/** Parses a frame that lies in the middle of a larger buffer. */
function parse(frame: Uint8Array, at = 7): { view: PacketView; kind: number } {
  const { bytes } = placed(frame, at, 9);
  const view = new PacketView();
  const kind = parsePacket(bytes, at, frame.length, view);
  assert.equal(view.kind, kind);
  return { view, kind };
}

const taggings: { name: string; link: LinkLayer; tagBytes: number; vlan: number }[] = [
  { name: 'untagged', link: {}, tagBytes: 0, vlan: 0 },
  { name: '802.1Q', link: { tags: [{ id: 0x123, priority: 7 }] }, tagBytes: 4, vlan: 0x123 },
  { name: 'QinQ of old', link: { tags: [{ id: 1, type: 0x9100 }, { id: 2 }] }, tagBytes: 8, vlan: 0x1002 },
  { name: 'QinQ', link: { tags: [{ id: 0x456, type: 0x88a8 }, { id: 0x123 }] }, tagBytes: 8, vlan: 0x456123 },
];

test('a TCP segment, byte by byte', () => {
  const frame = Buffer.from(
    `${'525400123456' + '020000000001' + '0800' + '4500002c' + '00004000' + '40060000' + '0a000202' + '0a00020f'}${
      '9c400050' + 'fffffff0' + '80000001' + '60120200' + '00000000' + '020405b4'
    }`,
    'hex',
  );
  const { view, kind } = parse(frame, 0);
  assert.equal(kind, PACKET.tcp);
  assert.deepEqual(
    { ...view },
    {
      kind: PACKET.tcp,
      etherType: 0x0800,
      vlan: 0,
      ipVersion: 4,
      protocol: 6,
      fragment: false,
      fragmentOffset: 0,
      moreFragments: false,
      fragmentId: 0,
      l3: 14,
      l4: 34,
      end: 58,
      sourceAt: 26,
      source4: 0x0a000202,
      destination4: 0x0a00020f,
      destinationAt: 30,
      sourcePort: 40000,
      destinationPort: 80,
      icmpType: 0,
      icmpId: 0,
      seq: -16,
      ack: 0x80000001 | 0,
      tcpFlags: 0x12,
      tcpWindow: 512,
      payload: 58,
      payloadBytes: 0,
    },
  );
  assert.equal(view.seqLength, 1);
});

for (const { name, link, tagBytes, vlan } of taggings) {
  for (const version of [4, 6] as const) {
    const l4 = 7 + 14 + tagBytes + (version === 4 ? 20 : 40);

    test(`TCP over IPv${version}, ${name}`, () => {
      const options = [1, 1, ...sack([[1, 2]])];
      const { view, kind } = parse(
        tcpFrame({ ...link, version, seq: 5, ack: 6, flags: SYN | FIN | ACK, options, payload }),
      );
      assert.equal(kind, PACKET.tcp);
      assert.deepEqual([view.ipVersion, view.vlan, view.protocol, view.fragment], [version, vlan, 6, false]);
      assert.deepEqual([view.l3, view.l4], [7 + 14 + tagBytes, l4]);
      assert.deepEqual([view.sourcePort, view.destinationPort, view.seq, view.ack], [40000, 80, 5, 6]);
      assert.deepEqual([view.payload, view.payloadBytes, view.end], [l4 + 32, 5, l4 + 37]);
      assert.equal(view.seqLength, 7, 'payload, SYN and FIN');
    });

    test(`UDP over IPv${version}, ${name}`, () => {
      const { view, kind } = parse(udpFrame({ ...link, version, payload }));
      assert.equal(kind, PACKET.udp);
      assert.deepEqual([view.vlan, view.sourcePort, view.destinationPort], [vlan, 5353, 53]);
      assert.deepEqual([view.l4, view.payload, view.payloadBytes], [l4, l4 + 8, 5]);
    });

    test(`ICMP over IPv${version}, ${name}`, () => {
      const [request, reply, other] = version === 4 ? [8, 0, 3] : [128, 129, 135];
      for (const type of [request, reply]) {
        const { view, kind } = parse(icmpFrame({ ...link, version, type, id: 0xabcd, payload }));
        assert.equal(kind, version === 4 ? PACKET.icmp : PACKET.icmpv6);
        assert.deepEqual([view.vlan, view.icmpType, view.icmpId], [vlan, type, 0xabcd]);
        assert.deepEqual([view.payload, view.payloadBytes], [l4, 13], 'everything after the IP header');
      }
      const { view } = parse(icmpFrame({ ...link, version, type: other, id: 0xabcd }));
      assert.deepEqual([view.icmpType, view.icmpId], [other, 0], 'only an echo has an id');
    });

    test(`Ethernet padding is not payload: IPv${version}, ${name}`, () => {
      const short = parse(tcpFrame({ ...link, version, payload: Buffer.alloc(1), padTo: 120 })).view;
      assert.deepEqual([short.payloadBytes, short.end], [1, short.payload + 1]);
      const empty = parse(udpFrame({ ...link, version, padTo: 120 })).view;
      assert.deepEqual([empty.payloadBytes, empty.end], [0, empty.payload]);
    });
  }

  test(`ARP, ${name}`, () => {
    const { view, kind } = parse(arpFrame(link));
    assert.equal(kind, PACKET.nonIp);
    assert.deepEqual([view.ipVersion, view.etherType, view.vlan, view.payloadBytes], [0, 0x0806, vlan, 28]);
  });
}

test('a third VLAN tag is not parsed', () => {
  const { view, kind } = parse(tcpFrame({ tags: [{ id: 1 }, { id: 2 }, { id: 3 }] }));
  assert.deepEqual([kind, view.etherType, view.vlan], [PACKET.nonIp, 0x8100, 0x1002]);
});

test('IPv4 options are not transport', () => {
  const { view, kind } = parse(tcpFrame({ ipOptions: Array(40).fill(1), payload }));
  assert.deepEqual([kind, view.l4 - view.l3, view.sourcePort, view.payloadBytes], [PACKET.tcp, 60, 40000, 5]);
});

test('TCP options up to the longest are not payload', () => {
  const { view } = parse(tcpFrame({ options: Array(40).fill(1), payload }));
  assert.deepEqual([view.payload - view.l4, view.payloadBytes], [60, 5]);
});

test('IPv6 extension headers are skipped, up to eight', () => {
  const chain = [paddingExtension(0, 2), paddingExtension(43), paddingExtension(60, 31)];
  const { view, kind } = parse(tcpFrame({ version: 6, extensions: chain, payload }));
  assert.deepEqual([kind, view.protocol, view.l4 - view.l3], [PACKET.tcp, 6, 40 + 24 + 8 + 256]);
  assert.equal(view.payloadBytes, 5);
  const many = (n: number) => tcpFrame({ version: 6, extensions: Array(n).fill(paddingExtension(60)) });
  assert.equal(parse(many(8)).kind, PACKET.tcp);
  assert.equal(parse(many(9)).kind, PACKET.malformed);
});

test('fragments, first and later, have no ports', () => {
  const segment = tcpFrame({ payload: Buffer.from('four') }).subarray(34);
  for (const [fragmentOffset, moreFragments] of [
    [0, true],
    [8, true],
    [1480, false],
  ] as const) {
    const v4 = parse(ethernet(0x0800, ipv4({ protocol: 6, id: 9, fragmentOffset, moreFragments }, segment)));
    const extensions = [paddingExtension(0), fragmentExtension(fragmentOffset, moreFragments, 9)];
    const v6 = parse(ethernet(0x86dd, ipv6({ next: 6, extensions }, segment)));
    for (const { view, kind } of [v4, v6]) {
      assert.deepEqual([kind, view.fragment, view.protocol], [PACKET.otherIp, true, 6]);
      assert.deepEqual([view.sourcePort, view.destinationPort, view.tcpFlags], [0, 0, 0]);
      assert.equal(view.payloadBytes, segment.length);
      assert.deepEqual(
        [view.fragmentOffset, view.moreFragments, view.fragmentId],
        [fragmentOffset, moreFragments, 9],
      );
    }
  }
});

test('an IPv6 packet that is its only fragment is not a fragment', () => {
  const segment = tcpFrame({ version: 6, payload }).subarray(54);
  for (const extensions of [
    [fragmentExtension(0, false, 9)],
    [paddingExtension(0), fragmentExtension(0, false, 9), paddingExtension(60)],
  ]) {
    const { view, kind } = parse(ethernet(0x86dd, ipv6({ next: 6, extensions }, segment)));
    assert.deepEqual([kind, view.fragment, view.payloadBytes], [PACKET.tcp, false, payload.length]);
  }
});

test('a fragment without payload, with a partial unit, or beyond 64 KiB is malformed', () => {
  for (const [fragmentOffset, moreFragments, bytes, sound] of [
    [8, true, 0, false],
    [8, false, 0, false],
    [8, true, 9, false],
    [8, false, 9, true],
    [65528, false, 7, true],
    [65528, false, 8, false],
  ] as const) {
    const some = Buffer.alloc(bytes);
    const v4 = ipv4({ protocol: 17, id: 9, fragmentOffset, moreFragments }, some);
    const extensions = [fragmentExtension(fragmentOffset, moreFragments, 9)];
    const v6 = ipv6({ next: 17, extensions }, some);
    for (const frame of [ethernet(0x0800, v4), ethernet(0x86dd, v6)])
      assert.equal(parse(frame).kind, sound ? PACKET.otherIp : PACKET.malformed);
  }
});

test('AH ends the extension headers: the packet that it signs is compared together with it', () => {
  const signed = Buffer.concat([Buffer.from([6, 4]), Buffer.alloc(22), tcpFrame({}).subarray(34)]);
  const extensions = [paddingExtension(0)];
  for (const frame of [
    ethernet(0x0800, ipv4({ protocol: 51 }, signed)),
    ethernet(0x86dd, ipv6({ next: 51, extensions }, signed)),
  ]) {
    const { view, kind } = parse(frame);
    assert.deepEqual([kind, view.protocol, view.payloadBytes], [PACKET.otherIp, 51, signed.length]);
  }
});

test('an IP length of 0 means the end of the frame only if the frame will be cut into segments', () => {
  for (const [version, lengthAt] of [
    [4, 16],
    [6, 18],
  ] as const) {
    const frame = tcpFrame({ version, payload });
    frame.writeUInt16BE(0, lengthAt);
    const view = new PacketView();
    assert.equal(parsePacket(frame, 0, frame.length, view), PACKET.malformed);
    assert.equal(parseGsoPacket(frame, 0, frame.length, view), PACKET.tcp);
    assert.deepEqual([view.end, view.payloadBytes], [frame.length, payload.length]);
    const padded = tcpFrame({ version, payload, padTo: 200 });
    parseGsoPacket(padded, 0, padded.length, view);
    assert.equal(view.payloadBytes, payload.length, 'a length other than 0 counts');
  }
});

test('UDP-Lite: the payload is what IP says, whatever the checksum covers', () => {
  const frame = (coverage: number) => {
    const bytes = udpFrame({ payload });
    bytes[23] = 136;
    bytes.writeUInt16BE(coverage, 38);
    return parse(bytes);
  };
  for (const coverage of [0, 8, 9, 13]) {
    const { view, kind } = frame(coverage);
    assert.deepEqual([kind, view.sourcePort, view.payloadBytes], [PACKET.udp, 5353, payload.length]);
  }
  for (const coverage of [1, 7, 14]) assert.equal(frame(coverage).kind, PACKET.malformed);
});

test('SCTP: its ports', () => {
  const sctp = Buffer.from('0050c35000000000', 'hex');
  const { view, kind } = parse(ethernet(0x0800, ipv4({ protocol: 132 }, sctp)));
  assert.deepEqual([kind, view.sourcePort, view.destinationPort], [PACKET.otherIp, 80, 50000]);
  assert.equal(parse(ethernet(0x0800, ipv4({ protocol: 132 }, sctp.subarray(0, 3)))).kind, PACKET.malformed);
});

test('a later IPv6 fragment is not parsed as an extension header', () => {
  // Its first bytes would make a destination options header of 2048 bytes.
  const later = ipv6(
    { next: 60, extensions: [fragmentExtension(64, false, 1)] },
    Buffer.from([6, 255, 0, 0]),
  );
  const { view, kind } = parse(ethernet(0x86dd, later));
  assert.deepEqual([kind, view.protocol, view.payloadBytes], [PACKET.otherIp, 60, 4]);
});

test('DF and the reserved bit do not make a fragment', () => {
  for (const bits of [0x40, 0x80]) {
    const frame = tcpFrame({});
    frame[14 + 6] = bits;
    assert.equal(parse(frame).kind, PACKET.tcp);
  }
});

test('other IP protocols, and ICMP of the wrong version', () => {
  for (const protocol of [2, 47, 50, 51, 58, 132]) {
    const { view, kind } = parse(ethernet(0x0800, ipv4({ protocol }, payload)));
    assert.deepEqual([kind, view.protocol, view.payloadBytes], [PACKET.otherIp, protocol, 5]);
  }
  assert.equal(parse(ethernet(0x86dd, ipv6({ next: 1 }, payload))).kind, PACKET.otherIp);
  assert.equal(parse(ethernet(0x86dd, ipv6({ next: 59 }, Buffer.alloc(0)))).kind, PACKET.otherIp);
});

test('parsing a frame leaves nothing in the view of the frame before', () => {
  const view = new PacketView();
  const parseInto = (frame: Buffer) => parsePacket(frame, 0, frame.length, view);
  parseInto(tcpFrame({ tags: [{ id: 5 }], flags: SYN }));
  assert.equal(parseInto(arpFrame()), PACKET.nonIp);
  const { vlan, ipVersion, protocol, sourcePort, destinationPort, tcpFlags, icmpId } = view;
  assert.deepEqual(
    [vlan, ipVersion, protocol, sourcePort, destinationPort, tcpFlags, icmpId],
    Array(7).fill(0),
  );
  parseInto(icmpFrame({ type: 8, id: 77 }));
  parseInto(udpFrame({}));
  assert.deepEqual([view.icmpId, view.icmpType, view.seqLength], [0, 0, 0]);
  parseInto(ethernet(0x0800, ipv4({ protocol: 17, moreFragments: true }, payload)));
  parseInto(udpFrame({}));
  assert.equal(view.fragment, false);
});

/** Sets bytes of a good frame, which must then be malformed. */
function refuses(what: string, frame: Buffer, changes: [at: number, value: number][]): void {
  test(`malformed: ${what}`, () => {
    const bad = Buffer.from(frame);
    for (const [at, value] of changes) bad[at] = value;
    assert.notDeepEqual(bad, frame);
    assert.equal(parse(bad).kind, PACKET.malformed);
  });
}

const tcp4 = tcpFrame({ payload });
const tcp6 = tcpFrame({ version: 6, payload });
const udp4 = udpFrame({ payload });
const udp6 = udpFrame({ version: 6, payload });
const routed = tcpFrame({ version: 6, extensions: [paddingExtension(0)], payload });

refuses('IPv4 by EtherType, 6 by version', tcp4, [[14, 0x65]]);
refuses('IPv6 by EtherType, 4 by version', tcp6, [[14, 0x45]]);
refuses('IPv4 header shorter than 20 bytes', tcp4, [[14, 0x44]]);
refuses('IPv4 total length less than the header', tcp4, [[17, 19]]);
refuses('IPv4 total length zero', tcp4, [[17, 0]]);
refuses('IPv4 total length beyond the frame', tcp4, [[17, 46]]);
refuses('IPv4 header longer than the total length', tcp4, [
  [14, 0x4f],
  [17, 59],
]);
refuses('IPv6 payload beyond the frame', tcp6, [[19, 26]]);
refuses('IPv6 extension header beyond the datagram', routed, [[55, 4]]);
refuses('IPv6 extension header cut', routed, [[19, 7]]);
refuses('IPv6 fragment header cut', tcp6, [
  [19, 7],
  [20, 44],
]);
refuses('IPv6 payload length 0 with a hop-by-hop header (a jumbogram)', routed, [[19, 0]]);
refuses('TCP data offset under 20 bytes', tcp4, [[46, 0x40]]);
refuses('TCP data offset beyond the datagram', tcp4, [[46, 0x70]]);
refuses('TCP header cut by the IPv4 length', tcp4, [[17, 39]]);
refuses('TCP header cut by the IPv6 length', tcp6, [[19, 19]]);
refuses('UDP length under 8', udp4, [[39, 7]]);
refuses('UDP length beyond the IPv4 datagram', udp4, [[39, 14]]);
refuses('UDP length beyond the IPv6 datagram', udp6, [[59, 14]]);
refuses('UDP header cut', udp4, [[17, 27]]);
refuses('ICMP header cut', icmpFrame({ type: 3 }), [[17, 23]]);
refuses('ICMP echo cut', icmpFrame({ type: 8 }), [[17, 27]]);
refuses('ICMPv6 echo cut', icmpFrame({ version: 6, type: 128 }), [[19, 7]]);

test('bytes after a UDP datagram are payload, and so is then its length', () => {
  const frame = Buffer.from(udp4);
  frame[39] = 10;
  const { view, kind } = parse(frame);
  assert.deepEqual(
    [kind, view.payload - view.l4, view.end - view.payload],
    [PACKET.udp, 4, view.payloadBytes],
  );
});

const link = fc.constantFrom(...taggings.map((tagging) => tagging.link));
const version = fc.constantFrom(4 as const, 6 as const);
const segment = fc.record({
  version,
  options: fc.nat(10).map((words): number[] => Array(4 * words).fill(1)),
  payload: fc.uint8Array({ maxLength: 20 }),
});
const goodFrame = fc.oneof(
  fc.tuple(segment, link, fc.boolean()).map(([s, l, long]) =>
    tcpFrame({
      ...s,
      ...l,
      ...(long ? { ipOptions: [1, 1, 1, 1], extensions: [paddingExtension(0, 1)] } : {}),
    } satisfies TcpSegment),
  ),
  fc.tuple(segment, link).map(([{ options: _, ...s }, l]) => udpFrame({ ...s, ...l })),
  fc
    .tuple(version, link, fc.constantFrom(0, 3, 8, 128, 129, 135))
    .map(([v, l, type]) => icmpFrame({ ...l, version: v, type, payload })),
  fc
    .tuple(fc.nat(100), fc.boolean())
    .map(([n, more]) =>
      ethernet(0x86dd, ipv6({ next: 17, extensions: [fragmentExtension(8 * n, more, 1)] }, payload)),
    ),
  link.map(arpFrame),
  fc.uint8Array({ maxLength: 100 }).map((bytes) => Buffer.from(bytes)),
);

function checkBounds(view: PacketView, at: number, end: number): void {
  const ordered = [at + 14, view.l3, view.l4, view.payload, view.payload + view.payloadBytes, view.end, end];
  for (let i = 1; i < ordered.length; i++) assert.ok(ordered[i - 1] <= ordered[i], `${ordered}`);
  if (view.ipVersion === 0) return;
  const bytes = view.ipVersion === 4 ? 4 : 16;
  assert.ok(view.sourceAt >= view.l3 && view.destinationAt === view.sourceAt + bytes);
  assert.ok(view.destinationAt + bytes <= view.l4);
  if (view.kind === PACKET.tcp) assert.ok(view.l4 + 20 <= view.payload);
  if (view.kind === PACKET.udp && view.payload !== view.l4 + 8) {
    // Bytes follow the datagram: the payload begins with its length.
    assert.equal(view.payload, view.l4 + 4);
    assert.ok(view.protocol === 17 && view.l4 + 8 < view.end);
  }
}

test('any frame, cut anywhere, with any bytes changed, is viewed within its bounds and always the same', () => {
  const change = fc.tuple(
    fc.nat(90),
    fc.oneof(fc.constantFrom(0, 1, 4, 44, 60, 0x45, 0x4f, 0xff), fc.nat(255)),
  );
  fc.assert(
    fc.property(
      goodFrame,
      fc.array(change, { maxLength: 4 }),
      fc.option(fc.nat(150)),
      (frame, changes, cut) => {
        const at = 5;
        const length = Math.min(frame.length, cut ?? frame.length);
        const bytes = Buffer.alloc(at + length);
        frame.copy(bytes, at, 0, length);
        for (const [offset, value] of changes) if (offset < length) bytes[at + offset] = value;
        const view = new PacketView();
        if (parsePacket(bytes, at, length, view) !== PACKET.malformed) checkBounds(view, at, at + length);

        // Neither the bytes around the frame nor the view's earlier content changes the result.
        const surrounded = Buffer.concat([
          Buffer.alloc(at, 0xff),
          bytes.subarray(at),
          Buffer.alloc(64, 0xff),
        ]);
        const used = new PacketView();
        parsePacket(tcp6, 0, tcp6.length, used);
        assert.equal(parsePacket(surrounded, at, length, used), view.kind);
        if (view.kind !== PACKET.malformed) {
          if (view.kind !== PACKET.tcp) used.seq = used.ack = 0 as Seq;
          assert.deepEqual(used, view);
        }
      },
    ),
    { numRuns: 3000 },
  );
});

test('every proper prefix of a datagram is malformed', () => {
  for (const frame of [tcp4, tcp6, udp4, udp6, routed, icmpFrame({ type: 8 })]) {
    for (let length = 0; length < frame.length; length++) {
      assert.equal(parse(frame.subarray(0, length)).kind, PACKET.malformed, `${length} bytes`);
    }
  }
});
