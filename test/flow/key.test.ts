import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  describeFlowKey,
  describeService,
  FLOW_KEY_WORDS,
  servicePort,
  writeInputKey,
  writeOutputKey,
} from '../../src/flow/key.ts';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import {
  type Addresses,
  arpFrame,
  CLIENT_ADDRESS,
  CLIENT_MAC,
  ethernet,
  fragmentExtension,
  icmpFrame,
  ipv4,
  ipv6,
  type LinkLayer,
  SYN,
  type TcpSegment,
  tcpFrame,
  udpFrame,
  VM_ADDRESS,
  VM_MAC,
} from '../frames.ts';

function keyOf(frame: Buffer, fromVm: boolean, at = 3): number[] {
  const bytes = Buffer.concat([Buffer.alloc(at, 0xa5), frame, Buffer.alloc(3, 0xa5)]);
  const view = new PacketView();
  assert.notEqual(parsePacket(bytes, at, frame.length, view), PACKET.malformed);
  const key = new Int32Array(FLOW_KEY_WORDS).fill(0x5a5a5a5a);
  if (fromVm) writeOutputKey(bytes, view, key);
  else writeInputKey(bytes, view, key);
  return [...key];
}

const fromClient = (frame: Buffer) => keyOf(frame, false);
const fromVm = (frame: Buffer) => keyOf(frame, true);

type Builder = (addresses: Addresses & LinkLayer, answer: boolean) => Buffer;

const builders: { name: string; build: Builder }[] = [
  {
    name: 'TCP',
    build: (frame, answer) =>
      tcpFrame({
        ...frame,
        sourcePort: answer ? 80 : 65535,
        destinationPort: answer ? 65535 : 80,
        seq: answer ? 1 : 2,
      }),
  },
  {
    name: 'UDP',
    build: (frame, answer) =>
      udpFrame({
        ...frame,
        sourcePort: answer ? 53 : 0x8001,
        destinationPort: answer ? 0x8001 : 53,
        payload: Buffer.alloc(answer ? 4 : 9),
      }),
  },
  {
    name: 'ICMP echo',
    build: (frame, answer) =>
      icmpFrame({
        ...frame,
        type: frame.version === 6 ? (answer ? 129 : 128) : answer ? 0 : 8,
        id: 0xfedc,
        sequence: answer ? 1 : 2,
      }),
  },
  {
    name: 'another protocol',
    build: (frame) =>
      frame.version === 6
        ? ethernet(0x86dd, ipv6({ ...frame, next: 47 }, Buffer.alloc(4)), frame)
        : ethernet(0x0800, ipv4({ ...frame, protocol: 47 }, Buffer.alloc(4)), frame),
  },
  {
    name: 'a fragment',
    build: (frame, answer) => {
      const offset = answer ? 1480 : 0;
      const bytes = Buffer.alloc(16);
      return frame.version === 6
        ? ethernet(
            0x86dd,
            ipv6({ ...frame, next: 17, extensions: [fragmentExtension(offset, true, 1)] }, bytes),
            frame,
          )
        : ethernet(
            0x0800,
            ipv4({ ...frame, protocol: 17, fragmentOffset: offset, moreFragments: true }, bytes),
            frame,
          );
    },
  },
];

const tags = [{ id: 100, type: 0x88a8 }, { id: 4095 }];

for (const { name, build } of builders) {
  for (const version of [4, 6] as const) {
    test(`a frame and the reply to it have one key: ${name} over IPv${version}`, () => {
      const there = { version, tags, source: CLIENT_ADDRESS[version], destination: VM_ADDRESS[version] };
      const back = { version, tags, source: VM_ADDRESS[version], destination: CLIENT_ADDRESS[version] };
      const question = build(there, false);
      const answer = build(back, true);
      assert.deepEqual(fromClient(question), fromVm(answer));
      assert.deepEqual(fromClient(answer), fromVm(question), 'and so when the VM asks');
      assert.notDeepEqual(fromClient(question), fromVm(question), 'the point of view matters');
    });
  }
}

test('a frame that is not IP has a key by EtherType, VLAN and the station or group that it is for', () => {
  const goose = (destinationMac: string, sourceMac = VM_MAC) =>
    ethernet(0x88b8, Buffer.alloc(28), { destinationMac, sourceMac });
  const group = '01:0c:cd:01:00:01';
  assert.deepEqual(fromVm(goose(group)), fromVm(goose(group, '02:00:00:00:00:09')), 'whoever sends it');
  for (const other of ['01:0c:cd:01:00:02', '01:0c:cd:01:01:01', '01:0d:cd:01:00:01', '03:0c:cd:01:00:01'])
    assert.notDeepEqual(fromVm(goose(other)), fromVm(goose(group)), other);
  const tagged = ethernet(0x88b8, Buffer.alloc(28), { destinationMac: group, tags: [{ id: 1 }] });
  assert.notDeepEqual(fromVm(tagged), fromVm(goose(group)));
  assert.notDeepEqual(
    fromVm(ethernet(0x88b9, Buffer.alloc(28), { destinationMac: group })),
    fromVm(goose(group)),
  );
  assert.deepEqual(
    fromVm(goose(CLIENT_MAC)),
    fromClient(goose(VM_MAC, CLIENT_MAC)),
    'a reply has the same key',
  );
});

test('ESP and AH have a key for each SPI, SCTP and DCCP for each pair of ports, in fragments too', () => {
  const carried = (protocol: number, bytes: number[]) =>
    fromVm(ethernet(0x0800, ipv4({ protocol }, Buffer.from([...bytes, ...Array(16).fill(0)]))));
  for (const [protocol, at] of [
    [50, 0],
    [51, 4],
    [132, 0],
    [33, 0],
  ]) {
    const before = Array<number>(at).fill(0);
    for (let byte = 0; byte < 4; byte++) {
      const spi = [0x81, 2, 3, 4];
      const key = carried(protocol, [...before, ...spi]);
      assert.deepEqual(carried(protocol, [...before, ...spi, 9]), key);
      spi[byte]++;
      assert.notDeepEqual(carried(protocol, [...before, ...spi]), key, `${protocol} ${byte}`);
    }
  }
  assert.deepEqual(carried(47, [1]), carried(47, [2]), 'GRE has none');
});

test('whatever names a flow makes another key', () => {
  const segment = { source: '10.0.2.2', destination: '10.0.2.15' };
  const six = { version: 6 as const };
  const fragment = (protocol: number) => ethernet(0x0800, ipv4({ protocol, moreFragments: true }, payload));
  const payload = Buffer.alloc(24);
  const frames = [
    tcpFrame(segment),
    tcpFrame({ ...segment, source: '10.0.2.3' }),
    tcpFrame({ ...segment, destination: '10.0.2.14' }),
    tcpFrame({ ...segment, sourcePort: 40001 }),
    tcpFrame({ ...segment, destinationPort: 81 }),
    tcpFrame({ ...segment, sourcePort: 80, destinationPort: 40000 }),
    tcpFrame({ ...segment, source: '10.0.2.15', destination: '10.0.2.2' }),
    tcpFrame({ ...segment, tags: [{ id: 1 }] }),
    tcpFrame({ ...segment, tags: [{ id: 2 }] }),
    tcpFrame({ ...segment, tags: [{ id: 1 }, { id: 2 }] }),
    tcpFrame({ ...segment, tags: [{ id: 2 }, { id: 1 }] }),
    udpFrame({ ...segment, sourcePort: 40000, destinationPort: 80 }),
    // ::10.0.2.2 and ::10.0.2.15 have the same words as the IPv4 addresses, further right.
    tcpFrame({ ...segment, ...six, source: '::a00:202', destination: '::a00:20f' }),
    tcpFrame({ ...segment, ...six, source: 'a00:202::', destination: 'a00:20f::' }),
    tcpFrame(six),
    ...[0, 1, 2, 3].map((group) =>
      tcpFrame({ ...six, source: `fd00${':1'.repeat(2 * group)}:2${':1'.repeat(6 - 2 * group)}` }),
    ),
    udpFrame(six),
    icmpFrame({ type: 8, id: 1 }),
    icmpFrame({ type: 8, id: 2 }),
    icmpFrame({ ...six, type: 128, id: 1 }),
    fragment(6),
    fragment(17),
    fragment(1),
    ethernet(0x0800, ipv4({ protocol: 47 }, payload)),
    ethernet(0x0800, ipv4({ protocol: 50 }, payload)),
    arpFrame(),
  ];
  const keys = new Set(frames.map((frame) => fromClient(frame).join()));
  assert.equal(keys.size, frames.length);
});

test('fields that do not name a flow do not change the key', () => {
  const base = fromClient(tcpFrame({}));
  const same: TcpSegment[] = [
    { seq: 7, ack: 8, flags: SYN, window: 1 },
    { options: [1, 1, 1, 1], payload: Buffer.from('x') },
    { ipOptions: [1, 1, 1, 1], padTo: 100 },
    { sourceMac: '02:00:00:00:00:77', destinationMac: '02:00:00:00:00:78' },
  ];
  for (const change of same) assert.deepEqual(fromClient(tcpFrame(change)), base);
  fc.assert(
    fc.property(fc.nat(20), (at) => {
      assert.deepEqual(keyOf(tcpFrame({}), false, at), base);
    }),
  );
  const priority = [
    { id: 9, priority: 1 },
    { id: 8, priority: 7 },
  ];
  assert.deepEqual(
    fromClient(tcpFrame({ tags: priority })),
    fromClient(tcpFrame({ tags: [{ id: 9 }, { id: 8 }] })),
  );
});

test('a description is for people', () => {
  const text = (frame: Buffer) => describeFlowKey(fromClient(frame));
  assert.equal(text(tcpFrame({ sourcePort: 40112 })), 'tcp 10.0.2.15:80 <-> 10.0.2.2:40112');
  assert.equal(
    text(tcpFrame({ source: '255.255.255.255', destination: '128.0.0.1', sourcePort: 65535 })),
    'tcp 128.0.0.1:80 <-> 255.255.255.255:65535',
  );
  assert.equal(
    text(udpFrame({ version: 6, source: '2001:db8::8000:1' })),
    'udp [fd00::15]:53 <-> [2001:db8::8000:1]:5353',
  );
  assert.equal(
    text(icmpFrame({ version: 6, type: 128, source: '::1', destination: 'fe80::' })),
    'icmpv6 fe80:: <-> ::1',
  );
  assert.equal(text(icmpFrame({ type: 8 })), 'icmp 10.0.2.15 <-> 10.0.2.2');
  assert.equal(
    text(ethernet(0x0800, ipv4({ protocol: 47 }, Buffer.alloc(0)))),
    'ip-protocol 47 10.0.2.15 <-> 10.0.2.2',
  );
  assert.equal(
    text(ethernet(0x0800, ipv4({ protocol: 17, moreFragments: true }, Buffer.alloc(8)))),
    'ip-protocol 17 fragment 10.0.2.15 <-> 10.0.2.2',
  );
  assert.equal(text(arpFrame()), 'ethertype 0x0806 <-> 02:00:00:00:00:01');
  assert.equal(
    text(ethernet(0x0800, ipv4({ protocol: 33 }, Buffer.from([0, 1, 0, 2])))),
    'dccp 10.0.2.15:2 <-> 10.0.2.2:1',
  );
});

test('a description names each VLAN tag, the outer one first', () => {
  const text = (frame: Buffer) => describeFlowKey(fromClient(frame));
  assert.equal(text(arpFrame({ tags: [{ id: 12 }] })), 'ethertype 0x0806 <-> 02:00:00:00:00:01 vlan 12');
  assert.equal(
    text(tcpFrame({ tags: [{ id: 100, type: 0x88a8 }, { id: 4000 }] })),
    'tcp 10.0.2.15:80 <-> 10.0.2.2:40000 vlan 100.4000',
  );
});

test('a service is what many flows have in common', () => {
  const text = (frame: Buffer) => describeService(fromClient(frame));
  assert.equal(text(tcpFrame({ sourcePort: 40112 })), 'tcp 80');
  assert.equal(text(tcpFrame({ sourcePort: 5432, destinationPort: 40112 })), 'tcp to 5432');
  assert.equal(text(udpFrame({ version: 6 })), 'udp 53');
  assert.equal(text(icmpFrame({ type: 8 })), 'icmp');
  assert.equal(text(ethernet(0x0800, ipv4({ protocol: 47 }, Buffer.alloc(0)))), 'ip-protocol 47');
  assert.equal(
    text(ethernet(0x0800, ipv4({ protocol: 17, moreFragments: true }, Buffer.alloc(8)))),
    'ip-protocol 17',
  );
  assert.equal(text(arpFrame()), 'ethertype 0x0806');
});

test('the port of a service: of the VM, unless only the client has a low one', () => {
  assert.deepEqual(
    [servicePort(80, 40_000), servicePort(8443, 1024), servicePort(40_000, 443), servicePort(50_000, 60_000)],
    [80, 8443, 443, 50_000],
  );
});
