import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseNodeConfig } from '../../src/config/node-config.ts';
import { FLOW_KEY_WORDS, writeOutputKey } from '../../src/flow/key.ts';
import { covers, describeMatch, type FlowMatch, isWithin } from '../../src/flow/match.ts';
import { PacketView, parsePacket } from '../../src/wire/packet.ts';
import { NODE_YAML } from '../config/node-yaml.ts';
import { arpFrame, ethernet, icmpFrame, ipv4, tcpFrame, udpFrame } from '../frames.ts';

/** Returns the match that the configuration writes like this. */
function matchOf(text: string): FlowMatch {
  const yaml = `${NODE_YAML}rules:\n  - match: ${text}\n    exempt: true\n`;
  return parseNodeConfig(yaml, '/a.yaml').rules[0].match;
}

function isCovered(text: string, frame: Buffer): boolean {
  const view = new PacketView();
  parsePacket(frame, 0, frame.length, view);
  const key = new Int32Array(FLOW_KEY_WORDS);
  writeOutputKey(frame, view, key);
  return covers(matchOf(text), key);
}

const toClient = { source: '10.0.2.15', destination: '10.0.2.2', sourcePort: 80, destinationPort: 40_000 };
const toClient6 = { ...toClient, version: 6 as const, source: 'fd00::15', destination: 'fd00:0:0:1::2' };

const CASES: [match: string, frame: Buffer, covered: boolean][] = [
  ['{ tcp: 80 }', tcpFrame(toClient), true],
  ['{ tcp: 80 }', tcpFrame(toClient6), true],
  ['{ tcp: 80 }', tcpFrame({ ...toClient, tags: [{ id: 7 }] }), true],
  ['{ tcp: 81 }', tcpFrame(toClient), false],
  ['{ tcp: 40000 }', tcpFrame(toClient), false],
  ['{ udp: 80 }', tcpFrame(toClient), false],
  ['{ udp: 80 }', udpFrame(toClient), true],
  ['{ tcp: 80 }', udpFrame(toClient), false],
  ['{ protocol: tcp }', tcpFrame(toClient), true],
  ['{ protocol: 17 }', udpFrame(toClient), true],
  ['{ protocol: 17 }', tcpFrame(toClient), false],
  ['{ protocol: gre }', ethernet(0x0800, ipv4({ protocol: 47 }, Buffer.alloc(8))), true],
  ['{ protocol: icmp }', icmpFrame({ type: 0 }), true],
  ['{ client: 10.0.2.2 }', tcpFrame(toClient), true],
  ['{ client: 10.0.2.3 }', tcpFrame(toClient), false],
  ['{ client: 10.0.2.15 }', tcpFrame(toClient), false],
  ['{ client: 10.0.2.0/24 }', tcpFrame(toClient), true],
  ['{ client: 10.0.3.0/24 }', tcpFrame(toClient), false],
  ['{ client: 10.0.2.0/31 }', tcpFrame(toClient), false],
  ['{ client: 0.0.0.0/0 }', tcpFrame(toClient), true],
  ['{ client: 0.0.0.0/0 }', tcpFrame(toClient6), false],
  ['{ client: "::/0" }', tcpFrame(toClient6), true],
  ['{ client: fd00::/32 }', tcpFrame(toClient6), true],
  ['{ client: fd00::/63 }', tcpFrame(toClient6), true],
  ['{ client: fd00::/64 }', tcpFrame(toClient6), false],
  ['{ client: "fd00::1:0:0:0:2" }', tcpFrame(toClient6), true],
  ['{ client: "fd00::1:0:0:0:3" }', tcpFrame(toClient6), false],
  ['{ tcp: 80, client: 10.0.2.2 }', tcpFrame(toClient), true],
  ['{ tcp: 80, client: 10.0.2.3 }', tcpFrame(toClient), false],
  ['{ client: 0.0.0.0/0 }', arpFrame(), false],
];

for (const [match, frame, covered] of CASES) {
  test(`${match} covers ${covered ? '' : 'no '}${frame.toString('hex', 12)}`, () => {
    assert.equal(isCovered(match, frame), covered);
  });
}

test('a rule that names a port covers no fragment, one that names none does', () => {
  const payload = Buffer.alloc(16, 80);
  for (const at of [0, 16]) {
    const frame = ethernet(
      0x0800,
      ipv4({ ...toClient, protocol: 17, fragmentOffset: at, moreFragments: at === 0 }, payload),
    );
    assert.equal(isCovered('{ udp: 80 }', frame), false);
    assert.equal(isCovered('{ udp: 20560 }', frame), false);
    assert.equal(isCovered('{ protocol: udp }', frame), true);
    assert.equal(isCovered('{ client: 10.0.2.2 }', frame), true);
  }
});

test('a match is within another that covers all of its flows', () => {
  const within = (one: string, other: string) => isWithin(matchOf(one), matchOf(other));
  assert.ok(within('{ tcp: 80 }', '{ tcp: 80 }'));
  assert.ok(within('{ tcp: 80 }', '{ protocol: tcp }'));
  assert.ok(!within('{ protocol: tcp }', '{ tcp: 80 }'));
  assert.ok(!within('{ udp: 80 }', '{ tcp: 80 }'));
  assert.ok(within('{ tcp: 80, client: 10.1.0.0/16 }', '{ client: 10.0.0.0/8 }'));
  assert.ok(!within('{ client: 10.0.0.0/8 }', '{ client: 10.1.0.0/16 }'));
  assert.ok(!within('{ client: 10.0.0.0/8 }', '{ client: "::/0" }'));
  assert.ok(!within('{ tcp: 80 }', '{ client: 0.0.0.0/0 }'));
});

test('a match is described as people write it', () => {
  for (const [yaml, text] of [
    ['{ tcp: 80 }', 'tcp 80'],
    ['{ udp: 53, client: 10.0.0.0/8 }', 'udp 53 from 10.0.0.0/8'],
    ['{ protocol: 50 }', 'esp'],
    ['{ protocol: 99 }', 'protocol 99'],
    ['{ client: 192.0.2.255 }', 'from 192.0.2.255'],
    ['{ client: fd00::/8 }', 'from fd00::/8'],
    ['{ client: "2001:db8:0:0:1:0:0:0/80" }', 'from 2001:db8:0:0:1::/80'],
    ['{ client: "::1" }', 'from ::1'],
    ['{ client: "::/0" }', 'from ::/0'],
    ['{ client: "1:2:3:4:5:6:7:8" }', 'from 1:2:3:4:5:6:7:8'],
  ])
    assert.equal(describeMatch(matchOf(yaml)), text);
});
