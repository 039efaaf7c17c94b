import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Instant } from '../../src/units.ts';
import {
  address,
  CLIENT_ADDRESS,
  ethernet,
  fragmentExtension,
  ipv4,
  ipv6,
  paddingExtension,
  udpFrame,
  VM_ADDRESS,
} from '../frames.ts';
import { Rig, udp } from './rig.ts';

type Piece = { from: number; to: number };
type Datagram = { version: 4 | 6; protocol?: number; id: number; body: Buffer };

/** Returns a fragment of a datagram of the VM; `body` is all that follows the IP header. */
function fragment({ version, protocol = 17, id, body }: Datagram, { from, to }: Piece): Buffer {
  const payload = body.subarray(from, to);
  const more = to < body.length;
  const addresses = { source: VM_ADDRESS[version], destination: CLIENT_ADDRESS[version] };
  if (version === 4) {
    const header = { ...addresses, protocol, id, fragmentOffset: from, moreFragments: more };
    return ethernet(0x0800, ipv4(header, payload));
  }
  const extensions = [paddingExtension(0), fragmentExtension(from, more, id)];
  return ethernet(0x86dd, ipv6({ ...addresses, next: protocol, extensions }, payload));
}

/** Returns a UDP datagram without its IP header. */
function udpBody(version: 4 | 6, text: string): Buffer {
  const addresses = { source: VM_ADDRESS[version], destination: CLIENT_ADDRESS[version] };
  const frame = udpFrame({ version, ...addresses, payload: Buffer.from(text) });
  return frame.subarray(version === 4 ? 34 : 54);
}

function wholeUdp(version: 4 | 6, text: string): Buffer {
  const addresses = { source: VM_ADDRESS[version], destination: CLIENT_ADDRESS[version] };
  return udpFrame({ version, ...addresses, payload: Buffer.from(text) });
}

/** Cuts at multiples of eight; `order` says in which order the pieces arrive. */
function cut(bytes: number, cuts: number[], order: number[]): Piece[] {
  const ends = [...new Set(cuts.map((at) => at * 8).filter((at) => at > 0 && at < bytes)), bytes].sort(
    (a, b) => a - b,
  );
  const all = ends.map((to, i) => ({ from: i === 0 ? 0 : ends[i - 1], to }));
  return all
    .map((piece, i) => ({ piece, at: order[i] ?? i }))
    .sort((a, b) => a.at - b.at)
    .map(({ piece }) => piece);
}

const cuts = fc.array(fc.nat(20), { maxLength: 8 });
const order = fc.array(fc.nat(100), { maxLength: 9 });

test('datagrams that each VM cuts in its own way, or not at all, leave when both have sent all of them, in any order', () => {
  const datagram = fc.record({
    text: fc.string({ minLength: 1, maxLength: 120, unit: 'binary-ascii' }),
    pvm: fc.record({ cuts, order }),
    svm: fc.record({ cuts, order }),
  });
  fc.assert(
    fc.property(
      fc.constantFrom(4 as const, 6 as const),
      fc.array(datagram, { minLength: 1, maxLength: 4 }),
      fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }),
      (version, datagrams, turns) => {
        const rig = new Rig();
        const sides = (['pvm', 'svm'] as const).map((side, base) =>
          datagrams.flatMap(({ text, [side]: how }, i) => {
            const body = udpBody(version, text);
            const pieces = cut(body.length, how.cuts, how.order);
            const id = base * 1000 + i;
            const frames =
              pieces.length === 1
                ? [wholeUdp(version, text)]
                : pieces.map((piece) => fragment({ version, id, body }, piece));
            return frames.map((frame, at) => ({ frame, complete: at === frames.length - 1 ? 1 : 0 }));
          }),
        );
        const said = [0, 0];
        const complete = [0, 0];
        const framesOf = (upTo: number): number => {
          let seen = 0;
          let frames = 0;
          for (const { complete: last } of sides[0]) {
            if (seen === upTo) break;
            frames++;
            seen += last;
          }
          return frames;
        };
        const choices = [...turns];
        while (said[0] < sides[0].length || said[1] < sides[1].length) {
          let side = (choices.shift() ?? false) ? 0 : 1;
          if (said[side] === sides[side].length) side = 1 - side;
          const { frame, complete: last } = sides[side][said[side]++];
          if (side === 0) rig.pvm(frame);
          else rig.svm(frame);
          complete[side] += last;
          assert.equal(rig.released.length, framesOf(Math.min(complete[0], complete[1])));
        }
        assert.deepEqual(
          rig.released.map(({ bytes }) => bytes.toString('hex')).sort(),
          sides[0].map(({ frame }) => frame.toString('hex')).sort(),
        );
        assert.deepEqual(rig.diverged, []);
        rig.assertConfirmed(sides[1].length);
        rig.assertEmpty();
      },
    ),
    { numRuns: 200 },
  );
});

const BODY = Buffer.from('0123456789abcdef0123456789abcdef');
const datagram = (id: number, body = BODY): Datagram => ({ version: 4, protocol: 99, id, body });
const HALVES: Piece[] = [
  { from: 0, to: 16 },
  { from: 16, to: 32 },
];

test('one different byte diverges, whichever fragment it is in; the commit releases all fragments', () => {
  for (const at of [0, 15, 16, 31]) {
    const rig = new Rig();
    const other = Buffer.from(BODY);
    other[at] ^= 1;
    for (const piece of HALVES) rig.pvm(fragment(datagram(1), piece));
    rig.svm(fragment(datagram(2, other), { from: 0, to: 24 }));
    assert.deepEqual(rig.diverged, []);
    assert.equal(rig.svm(fragment(datagram(2, other), { from: 24, to: 32 })), 0);
    assert.deepEqual(rig.diverged, ['diverged-bytes ip-protocol 99 10.0.2.15 <-> 10.0.2.2']);
    assert.equal(rig.commit(), 2);
    rig.assertEmpty();
  }
});

test('another length diverges, and an echo in fragments meets the same echo', () => {
  const rig = new Rig();
  for (const piece of HALVES) rig.pvm(fragment(datagram(1), piece));
  for (const piece of [HALVES[0], { from: 16, to: 24 }])
    rig.svm(fragment(datagram(1, BODY.subarray(0, 24)), piece));
  assert.deepEqual(rig.diverged, ['diverged-length ip-protocol 99 10.0.2.15 <-> 10.0.2.2']);
  const echo = Buffer.concat([Buffer.from([0, 0, 1, 2, 0, 9, 0, 1]), BODY]);
  const ping = { version: 4 as const, protocol: 1, body: echo };
  rig.pvm(fragment({ ...ping, id: 5 }, { from: 0, to: 8 }));
  rig.pvm(fragment({ ...ping, id: 5 }, { from: 8, to: 40 }));
  const vm = { source: VM_ADDRESS[4], destination: CLIENT_ADDRESS[4] };
  assert.equal(rig.svm(ethernet(0x0800, ipv4({ ...vm, protocol: 1 }, echo))), 2);
});

test('a TCP segment in fragments is compared whole, its header too', () => {
  const rig = new Rig();
  const segment = { version: 4 as const, protocol: 6, body: BODY };
  for (const piece of HALVES) rig.pvm(fragment({ ...segment, id: 1 }, piece));
  rig.svm(fragment({ ...segment, id: 9 }, HALVES[1]));
  assert.equal(rig.svm(fragment({ ...segment, id: 9 }, HALVES[0])), 2);
  rig.assertConfirmed(2);
  rig.assertEmpty();
});

const LIES: [string, Piece[]][] = [
  ['the same again', [HALVES[0], HALVES[0]]],
  [
    'one within another',
    [
      { from: 0, to: 24 },
      { from: 8, to: 16 },
    ],
  ],
  [
    'one over two',
    [
      { from: 0, to: 8 },
      { from: 16, to: 24 },
      { from: 0, to: 24 },
    ],
  ],
  [
    'an overlap at the front',
    [
      { from: 8, to: 24 },
      { from: 0, to: 16 },
    ],
  ],
  [
    'an overlap at the back',
    [
      { from: 0, to: 16 },
      { from: 8, to: 24 },
    ],
  ],
  [
    'an overlap in the middle',
    [
      { from: 0, to: 16 },
      { from: 24, to: 32 },
      { from: 8, to: 24 },
    ],
  ],
  ['two ends', [HALVES[1], HALVES[1]]],
];

for (const [name, pieces] of LIES) {
  test(`fragments of the PVM that contradict each other ask for a checkpoint and wait for it: ${name}`, () => {
    const rig = new Rig();
    for (const piece of pieces) assert.equal(rig.pvm(fragment(datagram(1), piece)), 0);
    assert.deepEqual(rig.diverged, ['diverged-fragments ip-protocol 99 fragment 10.0.2.15 <-> 10.0.2.2']);
    for (const piece of pieces) rig.svm(fragment(datagram(1), piece));
    for (const piece of HALVES) rig.svm(fragment(datagram(1), piece));
    assert.equal(rig.pvm(fragment(datagram(1), { from: 24, to: 32 })), 0, 'nor does what comes behind');
    assert.equal(rig.diverged.length, 1);
    for (const piece of HALVES) rig.pvm(fragment(datagram(2), piece));
    for (const piece of HALVES) rig.svm(fragment(datagram(3), piece));
    assert.equal(rig.released.length, 2, 'other datagrams pass');
    assert.equal(rig.commit(), pieces.length + 1);
    rig.assertEmpty();
    for (const piece of HALVES) rig.pvm(fragment(datagram(1), piece));
    for (const piece of HALVES) rig.svm(fragment(datagram(1), piece));
    assert.equal(rig.released.length, pieces.length + 5);
    rig.assertEmpty();
  });
}

test('a last fragment that ends before an earlier one is a contradiction too', () => {
  const rig = new Rig();
  rig.pvm(fragment(datagram(1), { from: 8, to: 24 }));
  rig.pvm(
    ethernet(
      0x0800,
      ipv4(
        { source: VM_ADDRESS[4], destination: CLIENT_ADDRESS[4], protocol: 99, id: 1, fragmentOffset: 16 },
        Buffer.alloc(1),
      ),
    ),
  );
  assert.equal(rig.diverged.length, 1);
});

test('a datagram that stays incomplete waits no longer than any other output', () => {
  const waits = { dataMs: 10, ackMs: 50, owedMs: 1000, secondaryMs: 100 };
  const rig = new Rig();
  rig.pvm(fragment(datagram(1), HALVES[0]));
  assert.equal(rig.comparator.overdue(9 as Instant, waits), null);
  assert.equal(rig.comparator.overdue(10 as Instant, waits), 'wait-primary');
  rig.commit();
  rig.svm(fragment(datagram(1), HALVES[0]));
  assert.equal(rig.comparator.overdue(100 as Instant, waits), 'wait-secondary');
  rig.commit();
  rig.assertEmpty();
});

test('limits: datagrams begun at once, and fragments in each', () => {
  const rig = new Rig(256, 64, { fragmentedDatagramsMax: 4, fragmentsPerDatagramMax: 3 });
  for (const side of ['svm', 'pvm'] as const) {
    for (let id = 0; id < 4; id++) rig[side](fragment(datagram(id), HALVES[0]));
    assert.equal(rig.comparator.pressure(), null);
    rig[side](fragment(datagram(4), HALVES[0]));
    assert.equal(rig.comparator.pressure(), 'limit-fragments');
    assert.equal(rig.commit(), side === 'pvm' ? 5 : 0);
    assert.equal(rig.comparator.pressure(), null);
    rig.assertEmpty();
  }
  for (let from = 0; from < 32; from += 8) rig.pvm(fragment(datagram(1), { from, to: from + 8 }));
  assert.match(rig.diverged[0], /^diverged-fragments /);
  assert.equal(rig.commit(), 4);
  rig.assertEmpty();
});

test('one VLAN, pair of addresses or protocol does not complete the datagram of another', () => {
  const rig = new Rig();
  rig.pvm(fragment(datagram(1), HALVES[0]));
  const elsewhere = fragment(datagram(1), HALVES[1]);
  address('10.0.2.9').copy(elsewhere, 30);
  rig.pvm(elsewhere);
  rig.pvm(fragment({ ...datagram(1), protocol: 98 }, HALVES[1]));
  rig.pvm(fragment(datagram(2), HALVES[1]));
  for (const piece of HALVES) rig.svm(fragment(datagram(1), piece));
  assert.equal(rig.released.length, 0);
  assert.equal(rig.commit(), 4);
  rig.assertEmpty();
});

test('discard drops fragments too', () => {
  const rig = new Rig();
  rig.pvm(fragment(datagram(1), HALVES[0]));
  rig.svm(fragment(datagram(1), HALVES[1]));
  rig.comparator.discard();
  assert.equal(rig.released.length, 0);
  rig.assertEmpty();
});

test('a datagram of the SVM in fragments whose flow finds no room asks for a checkpoint', () => {
  const flowsMax = 4;
  const rig = new Rig(2048, 64, { flowsMax });
  for (let port = 1; port <= flowsMax; port++) rig.pvm(udp('held', port));
  const body = udpBody(4, 'more than fits in eight bytes');
  const datagram = { version: 4, id: 7, body } as const;
  rig.svm(fragment(datagram, { from: 0, to: 16 }));
  assert.equal(rig.comparator.pressure(), null, 'it may yet be found not to be whole');
  rig.svm(fragment(datagram, { from: 16, to: body.length }));
  assert.equal(rig.comparator.pressure(), 'limit-flows');
  assert.equal(rig.comparator.isFull(0), false);
  assert.equal(rig.commit(), flowsMax);
  assert.equal(rig.comparator.pressure(), null);
  rig.assertEmpty();
});
