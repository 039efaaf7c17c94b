/** Replies that differ in the value of `Date`: the secondary is taught, and what leaves was compared byte by byte. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  describeOperatorRule,
  type OperatorRule,
  OperatorRules,
} from '../../../src/compare/operator-rules.ts';
import { tcpKeyOf } from '../../../src/flow/key.ts';
import { httpDate } from '../../../src/unify/http-date.ts';
import type { Instant } from '../../../src/units.ts';
import { ACK, FIN, PSH, padded, SYN, sack, timestamps } from '../../frames.ts';
import { Rig, tcp } from '../rig.ts';

const dateAt = (second: number) => httpDate(new Date(Date.UTC(2026, 10, 30, 18, 0, second)));
const reply = (second: number, body = 'hi') =>
  `HTTP/1.1 200 OK\r\nDate: ${dateAt(second)}\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
const BYTES = reply(0).length;
const HEADERS_BYTES = 54;

const segment = (text: string, seq = 1001, more: Partial<Parameters<typeof tcp>[0]> = {}) =>
  tcp({ flags: ACK | PSH, seq, ack: 501, text, ...more });

const rule = (port: number): OperatorRule => ({
  match: { protocol: 6, port, client: null },
  unify: 'http-date',
});

/** With a rule for port 80. */
function unifying(rules: readonly OperatorRule[] = [rule(80)], rig = new Rig()): Rig {
  const synAck = tcp({ flags: SYN | ACK, seq: 1000, ack: 501 });
  rig.pvm(synAck);
  assert.equal(rig.svm(synAck), 1);
  rig.comparator.useOperatorRules(new OperatorRules(rules));
  return rig;
}

for (const first of ['pvm', 'svm'] as const) {
  test(`the secondary is taught the PVM's value, and its corrected segment releases the PVM's (${first} first)`, () => {
    const rig = unifying();
    const pvm = segment(reply(7));
    const later = first === 'pvm' ? 'svm' : 'pvm';
    assert.equal(rig[first](first === 'pvm' ? pvm : segment(reply(8))), 0);
    assert.equal(
      rig[later](later === 'pvm' ? pvm : segment(reply(8))),
      0,
      'nothing leaves against another value',
    );
    assert.deepEqual(rig.dates, [pvm]);
    assert.equal(rig.comparator.unified, 1);
    assert.deepEqual(rig.diverged, []);
    assert.equal(rig.svm(pvm), 1, 'the secondary sends the PVM’s value');
    assert.deepEqual(rig.released.at(-1), { bytes: pvm, cause: 'match' });
    // Of the SVM: its SYN, and the reply that was corrected; not the one with its own value.
    assert.deepEqual(rig.confirmed, [0, 2]);
    assert.equal(rig.pvm(segment('more', 1001 + BYTES)), 0);
    assert.equal(rig.svm(segment('more', 1001 + BYTES)), 1);
    rig.assertEmpty();
  });
}

test('without a rule for the port nothing is taught, and the VMs have diverged', () => {
  for (const rules of [[], [rule(40000)]]) {
    const rig = unifying(rules);
    rig.pvm(segment(reply(7)));
    rig.svm(segment(reply(8)));
    assert.deepEqual(rig.dates, []);
    assert.equal(rig.diverged.length, 1);
  }
});

test('another rule for the flow counts beside it', () => {
  const { match } = rule(80);
  const rules = new OperatorRules([rule(80), { match, intervalMsMin: 500 }]);
  const key = Int32Array.from(
    tcpKeyOf({
      family: 4,
      vlans: [],
      localAddress: '0a00020f',
      localPort: 80,
      remoteAddress: '0a000202',
      remotePort: 1,
    }),
  );
  assert.equal(rules.intervalMsOf(rules.numberOf(key)), 500);
  assert.ok(rules.unifiesDate(key));
  assert.deepEqual(rules.list.map(describeOperatorRule), [
    'tcp 80: unify http-date',
    'tcp 80: intervalMsMin 500',
  ]);
});

test('what is more than the value diverges, as ever', () => {
  const [stamps, later] = [5, 7].map((time) => [1, 1, ...timestamps(time, 6)]);
  const blocks = padded(sack([[600, 700]]));
  const whole = reply(8);
  const cases: [string, Buffer, Buffer[]][] = [
    ['a byte of the body', segment(reply(7)), [segment(reply(8, 'ho'))]],
    ['a longer reply', segment(reply(7)), [segment(reply(8, 'hi!'))]],
    ['a difference of three seconds', segment(reply(7)), [segment(reply(10))]],
    [
      'a reply cut elsewhere',
      segment(reply(7)),
      [segment(whole.slice(0, 60)), segment(whole.slice(60), 1061)],
    ],
    [
      'a reply cut within the value',
      segment(reply(7)),
      [segment(whole.slice(0, 51)), segment(whole.slice(51), 1052)],
    ],
    ['a FIN', segment(reply(7), 1001, { flags: ACK | FIN }), [segment(reply(8), 1001, { flags: ACK | FIN })]],
    ['options', segment(reply(7), 1001, { options: blocks }), [segment(reply(8), 1001, { options: blocks })]],
  ];
  for (const [what, pvm, svm] of cases) {
    const rig = unifying();
    rig.pvm(pvm);
    for (const frame of svm) rig.svm(frame);
    assert.deepEqual(rig.dates, [], what);
    assert.equal(rig.diverged.length, 1, what);
    assert.equal(rig.released.length, 1, what);
    assert.equal(rig.commit(), 1, what);
  }
  // A kernel's usual options are none of them.
  const rig = unifying();
  rig.pvm(segment(reply(7), 1001, { options: stamps }));
  rig.svm(segment(reply(8), 1001, { options: later }));
  assert.equal(rig.dates.length, 1);
});

test('a value behind bytes that were compared before is not unified', () => {
  const rig = unifying();
  rig.svm(segment('x'));
  rig.svm(segment(reply(8), 1002));
  rig.pvm(segment(`x${reply(7)}`));
  assert.deepEqual(rig.dates, []);
  assert.equal(rig.diverged.length, 1);
});

test('an SVM that repeats its own value is taught again, and never matches', () => {
  const rig = unifying();
  const pvm = segment(reply(7));
  rig.svm(segment(reply(8)));
  rig.svm(segment(reply(8)));
  rig.pvm(pvm);
  assert.equal(rig.dates.length, 2, 'two of them waited');
  for (let i = 0; i < 3; i++) assert.equal(rig.svm(segment(reply(8))), 0);
  assert.equal(rig.dates.length, 5);
  assert.equal(rig.svm(pvm), 1);
  rig.assertEmpty();
});

test('a lesson that has no effect ends in a checkpoint', () => {
  const rig = unifying();
  const pvm = segment(reply(7));
  rig.pvm(pvm);
  rig.svm(segment(reply(8)));
  rig.nowMs = 100;
  const limits = { dataMs: 50, ackMs: 50, owedMs: 1000, secondaryMs: 2000 };
  assert.equal(rig.comparator.overdue(100 as Instant, limits), 'wait-primary');
  assert.equal(rig.commit(), 1);
  assert.deepEqual(rig.released.at(-1), { bytes: pvm, cause: 'commit' });
  rig.assertEmpty();
});

test('a segment that came back with another difference has diverged', () => {
  const rig = unifying();
  rig.pvm(segment(reply(7)));
  rig.svm(segment(reply(8)));
  assert.equal(rig.svm(segment(reply(7, 'ho'))), 0);
  assert.equal(rig.diverged.length, 1);
});

test('what both VMs repeat after the client has it leaves without another lesson', () => {
  const rig = unifying();
  const pvm = segment(reply(7));
  rig.pvm(pvm);
  rig.svm(segment(reply(8)));
  rig.svm(pvm);
  assert.equal(rig.svm(segment(reply(8))), 0);
  assert.equal(rig.pvm(pvm), 1);
  assert.deepEqual(rig.released.at(-1), { bytes: pvm, cause: 'repeat' });
  assert.equal(rig.dates.length, 1);
  rig.assertEmpty();
});

test('however both VMs cut their replies, only what the secondary has sent, byte by byte, leaves by a match', () => {
  const second = fc.integer({ min: 0, max: 3 });
  const bodies = fc.constantFrom(
    ['hi', 'hi'],
    ['hi', 'hi'],
    ['hi', 'ho'],
    [`Date: ${dateAt(1)}\r\n\r\n`, 'hi'],
  );
  const whole = [0, 1000];
  const cut = fc.constantFrom(whole, whole, whole, whole, whole, [0, BYTES], [0, 51], [51, 1000], [20, 60]);
  // `lesson`: the secondary has understood the latest one.
  const step = fc.record({ by: fc.constantFrom('pvm', 'svm', 'lesson'), cut });
  let lessons = 0;
  const property = fc.property(
    second,
    second,
    bodies,
    fc.array(step, { maxLength: 12 }),
    (one, other, texts, steps) => {
      const [pvm, svm] = [reply(one, texts[0]), reply(other, texts[1])];
      const rig = unifying([rule(80)], new Rig(2048, 64, { flowsMax: 16, heldFramesMax: 64 }));
      const bySvm = new Map<number, Set<number>>();
      const told = new Map<number, number>();
      const handIn = (frame: Buffer) => {
        for (let i = HEADERS_BYTES; i < frame.length; i++) {
          const at = frame.readUInt32BE(38) + i;
          bySvm.set(at, (bySvm.get(at) ?? new Set()).add(frame[i]));
        }
        rig.svm(frame);
      };
      for (const { by, cut } of steps) {
        const [from, to] = cut;
        const taught = rig.dates.at(-1);
        const frame = segment((by === 'pvm' ? pvm : svm).slice(from, to), 1001 + from);
        if (by === 'pvm') rig.pvm(frame);
        else if (by === 'svm') handIn(frame);
        else if (taught !== undefined) handIn(taught);
      }
      lessons += rig.dates.length;
      for (const { bytes } of rig.released)
        for (let i = HEADERS_BYTES; i < bytes.length; i++) {
          const at = bytes.readUInt32BE(38) + i;
          assert.ok(bySvm.get(at)?.has(bytes[i]), `byte ${at} has left, and the SVM has not sent it`);
          assert.equal(told.get(at) ?? bytes[i], bytes[i], `byte ${at} has left with two contents`);
          told.set(at, bytes[i]);
        }
      rig.commit();
      rig.assertEmpty();
    },
  );
  fc.assert(property, { numRuns: 1500 });
  assert.ok(lessons > 50, `only ${lessons} lessons`);
});
