import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Instant } from '../../src/units.ts';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import { ACK, FIN, PSH, RST, SYN, URG } from '../frames.ts';
import { data, opened, Rig, tcp } from './rig.ts';

/*
 * The property: one stream, cut in two ways. The model knows only which positions of the stream the SVM has
 * produced and what it has acknowledged; from that alone follows what must have left, and what must not.
 */

type Piece = { from: number; to: number; ack: number };

/** In order, with overlaps and retransmissions; the stream is [0, length). */
function pieces(length: number): fc.Arbitrary<Piece[]> {
  const cut = fc.record({
    forward: fc.integer({ min: 0, max: 25 }),
    back: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, fc.integer({ min: 1, max: 30 })),
    ack: fc.integer({ min: 0, max: 7 }),
  });
  return fc.array(cut, { minLength: 1, maxLength: 12 }).map((cuts) => {
    const all: Piece[] = [];
    let next = 0;
    let ack = 0;
    for (const { forward, back, ack: more } of cuts) {
      const to = Math.min(next + forward, length);
      const from = Math.max(0, next - back);
      ack += more;
      all.push({ from, to: Math.max(to, from), ack });
      next = Math.max(next, to);
    }
    all.push({ from: next, to: length, ack: 200 });
    return all;
  });
}

const scenario = fc.integer({ min: 0, max: 120 }).chain((payloadBytes) =>
  fc.record({
    payload: fc.uint8Array({ minLength: payloadBytes, maxLength: payloadBytes }),
    isn: fc.oneof(fc.integer({ min: 0, max: 0xffffffff }), fc.integer({ min: 0xffffff80, max: 0xffffffff })),
    fin: fc.boolean(),
    primary: pieces(payloadBytes),
    secondary: pieces(payloadBytes),
    order: fc.array(fc.boolean(), { minLength: 40, maxLength: 40 }),
  }),
);

const CLIENT_ISN = 0xfffffff0;

/** What the client has received of one connection; places are counted from the first byte. */
class Client {
  readonly places = new Set<number>();
  told = -1;
  frames = 0;
  private readonly bytes = new Map<number, number | 'FIN'>();
  private readonly isn: number;

  constructor(isn: number) {
    this.isn = isn;
  }

  receive(frames: Buffer[]): void {
    for (const frame of frames) {
      this.frames++;
      const view = new PacketView();
      assert.equal(parsePacket(frame, 0, frame.length, view), PACKET.tcp);
      this.told = Math.max(this.told, (view.ack - CLIENT_ISN - 1) | 0);
      if ((view.tcpFlags & SYN) !== 0) continue;
      const from = (view.seq - this.isn - 1) | 0;
      for (let i = 0; i < view.payloadBytes; i++) this.take(from + i, frame[view.payload + i]);
      if ((view.tcpFlags & FIN) !== 0) this.take(from + view.payloadBytes, 'FIN');
    }
  }

  byteAt(place: number): number | 'FIN' | undefined {
    return this.bytes.get(place);
  }

  private take(place: number, byte: number | 'FIN'): void {
    const before = this.bytes.get(place);
    assert.ok(before === undefined || before === byte, `another byte at place ${place}`);
    this.bytes.set(place, byte);
    this.places.add(place);
  }
}

test('one stream, cut in two ways: what the SVM has sent too leaves at once, and nothing else does', () => {
  fc.assert(
    fc.property(scenario, ({ payload, isn, fin, primary, secondary, order }) => {
      const rig = new Rig();
      const end = payload.length;
      const frame = (piece: Piece) => {
        const last = fin && piece.to === end;
        return tcp({
          seq: isn + 1 + piece.from,
          ack: CLIENT_ISN + 1 + piece.ack,
          flags: ACK | (last ? FIN : 0),
          payload: payload.subarray(piece.from, piece.to),
        });
      };
      const synAck = tcp({ seq: isn, ack: CLIENT_ISN + 1, flags: SYN | ACK });
      const produced = new Set<number>();
      let synSaid = false;
      let acked = -1;
      const client = new Client(isn);
      const sent: Piece[] = [];
      /** behind the SYN, which nothing passes */
      const early = new Set<Piece>();
      const lengthOf = (piece: Piece) => (fin && piece.to === end ? end + 1 : piece.to) - piece.from;
      const check = () => {
        client.receive(rig.released.splice(0).map(({ bytes }) => bytes));
        for (const place of client.places) assert.ok(produced.has(place), `place ${place} left too early`);
        assert.ok(client.told <= acked, 'an ACK left too early');
        // In order, as the VM sends them: what both have sent has left, and with it the lesser of both ACKs.
        let told = Math.min(0, acked);
        for (const piece of sent) {
          const places = Array.from({ length: lengthOf(piece) }, (_, i) => piece.from + i);
          const waits = places.some((place) => !produced.has(place));
          if (waits) break;
          for (const place of places) assert.ok(client.places.has(place), `place ${place} waits`);
        }
        for (const piece of sent) {
          const places = Array.from({ length: lengthOf(piece) }, (_, i) => piece.from + i);
          if (early.has(piece) && piece.from > 0 && !client.places.has(piece.from - 1)) continue;
          if (places.every((place) => client.places.has(place)))
            told = Math.max(told, Math.min(piece.ack, acked));
        }
        // A part of a segment may have left as well, and told more.
        if (synSaid && synSent)
          assert.ok(
            client.told >= told,
            `an ACK waits: ${client.told} of ${told}, acked ${acked}, ${rig.held} held`,
          );
      };
      let synSent = false;
      const fromPrimary = [...primary];
      const fromSecondary = [...secondary];
      const choices = [...order];
      let more = true;
      while (more) {
        const primaryTurn = choices.length > 0 ? choices.shift() : fromSecondary.length === 0 && synSaid;
        if (primaryTurn && !synSent) {
          synSent = true;
          rig.pvm(synAck);
        } else if (primaryTurn && fromPrimary.length > 0) {
          const piece = fromPrimary.shift()!;
          sent.push(piece);
          if (!synSaid) early.add(piece);
          rig.pvm(frame(piece));
        } else if (!synSaid) {
          synSaid = true;
          acked = 0;
          rig.svm(synAck);
        } else if (client.frames > 0 && fromSecondary.length > 0) {
          // The client answers the SYN-ACK only when it has got one: until then a VM has nothing more to say.
          const piece = fromSecondary.shift()!;
          acked = Math.max(acked, piece.ack);
          const to = fin && piece.to === end ? end + 1 : piece.to;
          for (let at = piece.from; at < to; at++) produced.add(at);
          rig.svm(frame(piece));
        } else if (!synSent) {
          synSent = true;
          rig.pvm(synAck);
        }
        check();
        more = choices.length > 0 || fromPrimary.length > 0 || fromSecondary.length > 0 || !synSent;
        if (choices.length === 0 && fromSecondary.length === 0 && fromPrimary.length > 0) choices.push(true);
      }
      assert.equal(client.places.size, fin ? end + 1 : end);
      assert.equal(client.told, 200);
      for (const place of client.places)
        assert.equal(client.byteAt(place), place < end ? payload[place] : 'FIN');
      assert.deepEqual(rig.diverged, []);
      rig.assertConfirmed(1 + secondary.length);
      rig.assertEmpty();
    }),
    { numRuns: 400 },
  );
});

test('one different byte diverges once, and no frame of the flow leaves before the commit', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 80 }),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      fc.array(fc.integer({ min: 1, max: 20 }), { maxLength: 10 }),
      (payload, place, change, cuts) => {
        const at = place % payload.length;
        const other = Uint8Array.from(payload);
        other[at] ^= change;
        const rig = opened();
        for (let from = 0, i = 0; from < payload.length; i++) {
          const to = Math.min(payload.length, from + (cuts[i] ?? 80));
          rig.svm(tcp({ seq: 1001 + from, ack: 501, payload: other.subarray(from, to) }));
          from = to;
        }
        let left = 0;
        for (let from = 0; from < payload.length; from += 7) {
          const to = Math.min(payload.length, from + 7);
          const out = rig.pvm(tcp({ seq: 1001 + from, ack: 501, payload: payload.subarray(from, to) }));
          assert.equal(out, to <= at ? 1 : 0);
          left += out;
        }
        assert.deepEqual(rig.diverged, ['diverged-bytes tcp 10.0.2.15:80 <-> 10.0.2.2:40000']);
        const waiting = Math.ceil(payload.length / 7) - left;
        assert.equal(rig.commit(), waiting);
        assert.ok(rig.released.slice(-waiting).every(({ cause }) => cause === 'commit'));
        rig.assertEmpty();
        const next = data(1001 + payload.length, 'and on');
        assert.equal(rig.pvm(next), 0);
        assert.equal(rig.svm(next), 1);
        assert.equal(rig.diverged.length, 1);
      },
    ),
    { numRuns: 200 },
  );
});

test('the SVM may be ahead: its bytes are found when the PVM sends them', () => {
  const rig = opened();
  rig.svm(data(1001, 'abc'));
  rig.svm(data(1004, 'def'));
  assert.equal(rig.pvm(data(1001, 'abcd')), 1);
  assert.deepEqual(rig.confirmed, [0, 1]);
  assert.equal(rig.pvm(data(1005, 'ef')), 1);
  rig.assertConfirmed(3);
  rig.assertEmpty();
});

test('SVM segments may arrive out of order', () => {
  const rig = opened();
  rig.pvm(data(1001, 'abcdef'));
  assert.equal(rig.svm(data(1004, 'def')), 0);
  assert.equal(rig.svm(data(1001, 'abc')), 1);
  rig.assertConfirmed(3);
});

test('a PVM segment after a gap waits for the commit, and the stream continues after it', () => {
  const rig = opened();
  rig.svm(data(1001, 'abcdef'));
  assert.equal(rig.pvm(data(1004, 'def')), 0);
  rig.commit();
  assert.equal(rig.released.length, 2);
  rig.pvm(data(1007, 'g'));
  assert.equal(rig.svm(data(1007, 'g')), 1);
});

test('a retransmission leaves at once; of one with new data at its end, what the client may lack', () => {
  const rig = opened();
  rig.pvm(data(1001, 'abc'));
  rig.svm(data(1001, 'abc'));
  assert.equal(rig.pvm(data(1001, 'abc')), 1);
  assert.equal(rig.pvm(data(1002, 'bcd')), 1);
  assert.deepEqual(rig.released.at(-1), { bytes: data(1002, 'bc'), cause: 'made' });
  assert.equal(rig.svm(data(1003, 'cde')), 1);
  assert.equal(rig.pvm(data(1005, 'e')), 1);
  rig.assertConfirmed(3);
});

test('a retransmission of the SVM is confirmed at once if the client has its bytes', () => {
  const rig = opened();
  rig.pvm(data(1001, 'abc'));
  rig.svm(data(1001, 'abc'));
  rig.svm(data(1001, 'abc'));
  rig.assertConfirmed(3);
  rig.assertEmpty();
});

test('an SVM segment is not confirmed while the client has its bytes but not its ACK', () => {
  const rig = opened();
  rig.pvm(data(1001, 'abc', 501));
  rig.svm(data(1001, 'abc', 520));
  assert.deepEqual(rig.confirmed, [0], 'the SYN-ACK: the client has the bytes, and nobody told it about 520');
  rig.pvm(data(1004, '', 520));
  rig.assertConfirmed(2);
});

test('a zero-window probe and a keep-alive leave: they carry nothing new', () => {
  const rig = opened();
  rig.pvm(data(1001, 'abc'));
  rig.svm(data(1001, 'abc'));
  assert.equal(rig.pvm(data(1003, '')), 1, 'keep-alive without a byte');
  assert.equal(rig.pvm(data(1003, '?')), 1, 'keep-alive with an old byte');
  assert.equal(rig.pvm(data(1004, '')), 1, 'window update');
  assert.equal(rig.pvm(data(1004, 'd')), 0, 'a probe with the next byte is new');
});

test('FINs match if both have one at the same place, alone or after data', () => {
  const rig = opened();
  rig.pvm(data(1001, 'abc', 501, ACK | FIN));
  assert.equal(rig.svm(data(1001, 'abc')), 0);
  assert.equal(rig.svm(data(1004, '', 501, ACK | FIN)), 1);
  assert.equal(rig.pvm(data(1004, '', 501, ACK | FIN)), 1, 'repeated');
  assert.equal(rig.pvm(data(1005, '', 501)), 1, 'last ACK');
  rig.assertConfirmed(3);
});

for (const [name, primary, secondary] of [
  ['the PVM ends and the SVM goes on', data(1001, 'ab', 501, ACK | FIN), data(1001, 'abc')],
  ['the SVM ends and the PVM goes on', data(1001, 'abc'), data(1001, 'ab', 501, ACK | FIN)],
] as const) {
  test(`FIN against data diverges: ${name}`, () => {
    for (const primaryFirst of [true, false]) {
      const rig = opened();
      if (primaryFirst) rig.pvm(primary);
      rig.svm(secondary);
      if (!primaryFirst) rig.pvm(primary);
      assert.equal(rig.released.length, 1);
      assert.equal(rig.diverged.length, 1);
      assert.match(rig.diverged[0], /^diverged-flags /);
      rig.svm(secondary);
      assert.equal(rig.diverged.length, 1, 'told once');
      assert.equal(rig.commit(), 1);
      rig.assertEmpty();
    }
  });
}

test('urgent data has to end at the same place in both VMs', () => {
  const urgent = (seq: number, text: string, pointer: number) =>
    tcp({ seq, ack: 501, flags: ACK | URG, urgent: pointer, text });
  const rig = opened();
  rig.pvm(urgent(1001, 'abc', 3));
  assert.equal(rig.svm(urgent(1001, 'abc', 3)), 1);
  assert.equal(rig.pvm(urgent(1001, 'abc', 3)), 1, 'repeated');
  rig.pvm(urgent(1004, 'def', 3));
  assert.equal(rig.svm(data(1004, 'def')), 0, 'the SVM may still say that it is urgent');
  assert.equal(rig.svm(urgent(1006, 'f', 1)), 1);
  rig.svm(urgent(1007, 'ghi', 2));
  assert.equal(rig.pvm(data(1007, 'g')), 1);
  assert.equal(rig.pvm(data(1008, 'hi')), 0);
  assert.match(rig.diverged[0], /^diverged-flags /);
  rig.commit();
  rig.pvm(data(1010, 'on'));
  assert.equal(rig.svm(data(1010, 'on')), 1);
  rig.assertEmpty();
});

/* Rule 1, where a number could be taken for another. */

test('a retransmission is trusted: released bytes are not compared again', () => {
  const rig = opened();
  rig.pvm(data(1001, 'abc'));
  rig.svm(data(1001, 'abc'));
  assert.equal(rig.pvm(data(1001, 'xyz')), 1);
  rig.pvm(data(1001, 'abcd'));
  assert.equal(rig.svm(data(1001, 'abcX')), 0, 'its new byte is compared');
  assert.match(rig.diverged[0], /^diverged-bytes /);
});

test('a segment from before the known beginning of the stream is not a retransmission', () => {
  const rig = opened();
  for (const back of [1001 - 700, 1001 - 0x40000001, 1001 - 0x7fffffff, 1001 - 0x80000000]) {
    assert.equal(rig.pvm(data(back, 'never compared')), 0, `${back}`);
    assert.equal(
      rig.comparator.overdue(1e9 as Instant, { dataMs: 1, ackMs: 2, owedMs: 1000, secondaryMs: 3 }),
      'wait-primary',
    );
    rig.commit();
    rig.pvm(data(1001, ''));
  }
  const mid = new Rig();
  mid.pvm(data(5000, 'x'));
  mid.svm(data(5000, 'x'));
  assert.equal(mid.pvm(data(4990, 'not seen')), 0, 'the connection was first seen behind it');
});

test('the known beginning moves along, to a window before what was released', () => {
  const rig = opened();
  let seq = 1001;
  const go = (next: number) => {
    // A commit behind a gap is the quick way to get far.
    rig.pvm(data(next, 'x'));
    rig.commit();
    seq = next + 1;
  };
  for (let i = 0; i < 3; i++) go((seq + 0x3fffffff) >>> 0);
  rig.pvm(data(seq, 'abc'));
  assert.equal(rig.svm(data(seq, 'abc')), 1);
  assert.equal(rig.pvm(data(seq, 'abc')), 1, 'a retransmission');
});

test('a commit that releases a segment after a gap does not make the gap known', () => {
  const rig = opened();
  rig.pvm(data(2001, 'behind'));
  rig.commit();
  assert.equal(rig.pvm(data(1500, 'within')), 0);
  rig.commit();
  rig.pvm(data(2007, 'on'));
  assert.equal(rig.svm(data(2007, 'on')), 1);
});

test('an SVM ACK further away than any window is ignored', () => {
  for (const absurd of [501 + 0x40000001, 501 + 0x7fffffff, 501 + 0x80000000]) {
    const rig = opened();
    rig.svm(data(1001, '', absurd >>> 0));
    assert.equal(rig.pvm(data(1001, '', 600)), 0);
    assert.equal(rig.svm(data(1001, '', 600)), 1);
    assert.equal(rig.pvm(data(1001, '', (501 - 0x40000001) >>> 0)), 0, 'nor one of the PVM');
  }
});

test('an SVM ACK after a SYN that the PVM has not sent covers nothing before that SYN', () => {
  const rig = opened();
  rig.svm(tcp({ flags: SYN | ACK, seq: 90_000, ack: 601 }));
  rig.svm(data(90_001, '', 700));
  assert.equal(rig.pvm(data(1001, '', 650)), 0, 'of the old connection');
  rig.commit();
  rig.svm(tcp({ flags: SYN | ACK, seq: 95_000, ack: 801 }));
  rig.svm(data(95_001, 'early', 900));
  assert.equal(rig.pvm(tcp({ flags: SYN | ACK, seq: 95_000, ack: 801 })), 1);
  assert.equal(rig.pvm(data(95_001, '', 900)), 1, 'of the new one');
});

test('a held frame in the row of the one that was compared last is not compared with itself', () => {
  const rig = opened();
  rig.svm(data(1001, 'abc'));
  rig.svm(data(1010, 'ahead'));
  assert.equal(rig.pvm(data(1001, 'ab')), 1);
  assert.equal(rig.pvm(data(1003, 'c')), 1);
  rig.pvm(data(1004, '', 700));
  rig.pvm(data(1004, 'x'));
  assert.equal(rig.svm(data(1004, '', 700)), 1, 'the ACK alone');
  assert.equal(rig.svm(data(1004, 'x')), 1);
});

test('a long segment leaves if the SVM sent it in far more segments than one search examines', () => {
  const rig = opened();
  const bytes = 300;
  rig.pvm(data(1001, 'y'.repeat(bytes)));
  for (let i = 0; i < bytes; i++) assert.equal(rig.svm(data(1001 + i, 'y')), i === bytes - 1 ? 1 : 0);
  rig.assertConfirmed(1 + bytes);
  rig.assertEmpty();
});

test('a retransmission after held data leaves with it', () => {
  const rig = opened();
  rig.pvm(data(1001, 'abc'));
  rig.pvm(data(1003, 'c'));
  assert.equal(rig.svm(data(1001, 'abc')), 2);
});

/* Hostile queues: work per frame is bounded, counted in frames looked at. */

const HOSTILE_FRAMES = 3000;

for (const [name, pvm, frame] of [
  ['segments that are never reached', data(1001, 'x'), (i: number) => data(5000 + 10 * i, 'y')],
  ['segments in falling order', data(1001, 'x'), (i: number) => data(500_000 - 10 * i, 'y')],
  ['single bytes of one long segment', data(1001, 'y'.repeat(4000)), (i: number) => data(1001 + i, 'y')],
  ['segments before a SYN', tcp({ flags: RST, seq: 1001 }), (i: number) => data(1001 + i, 'y')],
  [
    'a SYN and many RSTs',
    tcp({ flags: RST, seq: 1001 }),
    (i: number) => tcp({ flags: i === 0 ? SYN : RST, seq: 5 }),
  ],
  ['ACKs while a SYN waits', tcp({ flags: SYN, seq: 5 }), (i: number) => data(1001, 'y', 501 + i)],
] as const) {
  test(`an SVM that sends ${name} costs little work per frame`, () => {
    const rig = new Rig(8192, 8192);
    const synAck = tcp({ flags: SYN | ACK, seq: 1000, ack: 501 });
    rig.pvm(synAck);
    rig.svm(synAck);
    rig.pvm(pvm);
    for (let i = 0; i < HOSTILE_FRAMES; i++) rig.svm(frame(i));
    assert.ok(rig.comparator.visits <= 130 * HOSTILE_FRAMES, `${rig.comparator.visits} visits`);
    rig.commit();
    rig.assertEmpty();
  });
}

test('a connection first seen in its middle begins where the PVM is', () => {
  const rig = new Rig();
  rig.pvm(data(70_000, 'mid'));
  assert.equal(rig.svm(data(69_990, '1234567890mi')), 0);
  assert.equal(rig.svm(data(70_002, 'dle')), 1);
  assert.equal(rig.pvm(data(70_003, 'le')), 1);
  rig.assertConfirmed(2);
  rig.assertEmpty();
});

/** Its first segment was a retransmission of bytes 1001 to 1100. The client has more from a primary that is gone. */
function resumed(): Rig {
  const rig = new Rig();
  for (const side of ['pvm', 'svm'] as const) rig[side](data(1001, 'a'.repeat(100)));
  assert.equal(rig.released.length, 1);
  return rig;
}

test('a connection first seen in its middle, by a retransmission, goes on after a gap where both VMs do', () => {
  const sends = {
    pvm: [data(5000, 'more'), data(5004, ' and more')],
    svm: [data(5000, 'more and'), data(5008, ' more')],
  };
  for (const order of [
    ['pvm', 'svm'],
    ['svm', 'pvm'],
  ] as const) {
    const rig = resumed();
    for (const side of order) for (const frame of sends[side]) rig[side](frame);
    assert.deepEqual(rig.released.splice(1), [
      { bytes: sends.pvm[0], cause: 'match' },
      { bytes: sends.pvm[1], cause: 'match' },
    ]);
    rig.assertEmpty();
  }
});

test('such a connection goes on after the gap also where one VM has sent more before it than the other', () => {
  const rig = resumed();
  rig.svm(data(1001, 'a'.repeat(150)));
  rig.pvm(data(5000, 'more'));
  assert.equal(rig.svm(data(5000, 'more')), 1);
  rig.assertConfirmed(3);
  rig.assertEmpty();
});

test('a checkpoint makes known what a VM had sent before its connection was first seen', () => {
  const rig = new Rig();
  rig.pvm(data(5000, 'x'));
  rig.svm(data(5000, 'x'));
  rig.commit();
  rig.released.length = 0;
  rig.pvm(data(5001, 'new'));
  const again = data(4990, 'not seen');
  assert.equal(rig.pvm(again), 1, 'nor does it wait behind what is new');
  assert.deepEqual(rig.released, [{ bytes: again, cause: 'repeat' }]);
  for (const back of [0x40000002, 0x7fffffff])
    assert.equal(rig.pvm(data(5000 - back, 'beyond any window')), 0, `${back}`);
  const anew = new Rig();
  anew.pvm(data(5000, 'x'));
  anew.commit();
  for (const side of ['pvm', 'svm'] as const) anew[side](tcp({ seq: 5001, ack: 501, flags: RST }));
  anew.pvm(data(9000, 'y'));
  anew.svm(data(9000, 'y'));
  assert.equal(anew.pvm(data(8990, 'never copied')), 0, 'it is another connection');
});

test('after a gap, different bytes differ, and a gap in one VM alone waits', () => {
  const differs = resumed();
  differs.pvm(data(5000, 'more'));
  assert.equal(differs.svm(data(5000, 'none')), 0);
  assert.equal(differs.diverged.length, 1);
  const filled = resumed();
  filled.svm(data(1101, 'b'.repeat(100)));
  filled.svm(data(1201, 'more'));
  assert.equal(filled.pvm(data(1201, 'more')), 0, 'the PVM may still send what is before it');
  assert.equal(filled.pvm(data(1101, 'b'.repeat(100))), 2);
  const known = opened();
  known.svm(data(5000, 'more'));
  assert.equal(known.pvm(data(5000, 'more')), 0, 'of a connection that was seen from its start');
});

test('after a commit with half a segment verified, the stream continues after the whole', () => {
  const rig = opened();
  rig.pvm(data(1001, 'abcdef'));
  rig.svm(data(1001, 'abc'));
  rig.commit();
  rig.assertEmpty();
  assert.equal(rig.released.length, 2);
  assert.equal(rig.pvm(data(1001, 'abcdef')), 1, 'its repetition says nothing new');
  rig.pvm(data(1007, 'g'));
  assert.equal(rig.svm(data(1007, 'g')), 1);
});

test('pushes, windows and options may differ', () => {
  const rig = opened();
  rig.pvm(tcp({ seq: 1001, ack: 501, flags: ACK | PSH, window: 1, text: 'x' }));
  assert.equal(rig.svm(tcp({ seq: 1001, ack: 501, window: 999, options: [1, 1, 1, 1], text: 'x' })), 1);
});
