import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CLIENT_ADDRESS, icmpFrame, tcpFrame, udpFrame, VM_ADDRESS } from '../frames.ts';
import { Rig } from './rig.ts';

/** An error of the VM about a packet that came in, given from its IP header on. */
function error(version: 4 | 6, quoted: Uint8Array, rest = 0): Buffer {
  return icmpFrame({
    version,
    source: VM_ADDRESS[version],
    destination: CLIENT_ADDRESS[version],
    type: version === 4 ? 3 : 1,
    code: 3,
    sequence: rest,
    payload: quoted,
  });
}

function packet(frame: Buffer): Buffer {
  return Buffer.from(frame.subarray(14));
}

const text = Buffer.from('question');

function outcome(primary: Buffer, secondary: Buffer): string {
  const rig = new Rig();
  rig.pvm(primary);
  const left = rig.svm(secondary);
  if (left === 0) rig.commit();
  rig.assertEmpty();
  return left === 1 ? 'match' : rig.diverged[0].split(' ')[0];
}

/** With the bytes at these offsets of the quoted packet changed. */
function changed(quoted: Buffer, ...offsets: number[]): Buffer {
  const bytes = Buffer.from(quoted);
  for (const at of offsets) bytes[at] ^= 0xff;
  return bytes;
}

for (const [name, version, quoted, tolerated] of [
  ['UDP in IPv4', 4, packet(udpFrame({ payload: text })), [2, 3, 4, 5, 8, 10, 11, 26, 27]],
  ['UDP in IPv6', 6, packet(udpFrame({ version: 6, payload: text })), [4, 5, 7, 46, 47]],
  [
    'TCP in IPv4',
    4,
    packet(tcpFrame({ payload: text })),
    [2, 3, 4, 5, 8, 10, 11, ...Array.from({ length: 20 }, (_, i) => 28 + i)],
  ],
  [
    'TCP in IPv6',
    6,
    packet(tcpFrame({ version: 6, payload: text })),
    [4, 5, 7, ...Array.from({ length: 20 }, (_, i) => 48 + i)],
  ],
  ['an echo in IPv4', 4, packet(icmpFrame({ type: 8, payload: text })), [2, 3, 4, 5, 8, 10, 11, 22, 23]],
] as const) {
  test(`an error that quotes ${name}: a change of each byte of the quote, on either side`, () => {
    for (let at = 0; at < quoted.length; at++) {
      // Another version or header length, and the transport lies elsewhere.
      const expected = (tolerated as readonly number[]).includes(at) ? 'match' : 'diverged-bytes';
      const plain = error(version, quoted);
      const other = error(version, changed(quoted, at));
      assert.equal(outcome(plain, other), expected, `${at}`);
      assert.equal(outcome(other, plain).startsWith(expected.slice(0, 5)), true, `${at}`);
    }
  });
}

test('the code and the four bytes after the checksum are compared', () => {
  const quoted = packet(udpFrame({ payload: text }));
  assert.equal(outcome(error(4, quoted, 1400), error(4, quoted, 1400)), 'match');
  assert.equal(outcome(error(4, quoted, 1400), error(4, quoted, 1300)), 'diverged-bytes');
});

test('how much is quoted may differ for TCP only', () => {
  const tcp = packet(tcpFrame({ payload: text }));
  assert.equal(outcome(error(4, tcp), error(4, tcp.subarray(0, 28))), 'match');
  assert.equal(outcome(error(4, tcp.subarray(0, 28)), error(4, tcp)), 'match');
  assert.equal(outcome(error(4, tcp), error(4, tcp.subarray(0, 27))), 'diverged-length');
  const udp = packet(udpFrame({ payload: text }));
  assert.equal(outcome(error(4, udp), error(4, udp.subarray(0, 28))), 'diverged-length');
});

test('a message that quotes no packet is compared whole', () => {
  assert.equal(outcome(error(4, text), error(4, text)), 'match');
  assert.equal(outcome(error(4, text), error(4, changed(text, 7))), 'diverged-bytes');
  assert.equal(outcome(error(4, Buffer.alloc(0)), error(4, Buffer.alloc(0))), 'match');
});

test('an error and an echo do not match each other', () => {
  const quoted = packet(udpFrame({ payload: text }));
  const echo = icmpFrame({
    source: VM_ADDRESS[4],
    destination: CLIENT_ADDRESS[4],
    type: 0,
    payload: quoted,
  });
  assert.equal(outcome(error(4, quoted), echo), 'diverged-bytes');
  assert.equal(outcome(echo, error(4, quoted)), 'diverged-bytes');
});
