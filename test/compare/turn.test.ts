import assert from 'node:assert/strict';
import { test } from 'node:test';
import { STEP } from '../../src/compare/comparator.ts';
import type { ReadFrames } from '../../src/compare/read-frames.ts';
import { Turn } from '../../src/compare/turn.ts';
import { LIMITS } from '../../src/limits.ts';
import type { Instant, SlabId } from '../../src/units.ts';
import { TCP_ACK, TCP_FIN, TCP_SYN, TCP_URG } from '../../src/wire/tcp.ts';
import { Dice } from '../dice.ts';
import { tcpFrame } from '../frames.ts';
import { Voice } from './oracle/script.ts';
import { randomTheme, render, traffic } from './oracle/traffic.ts';
import { Rig, tcp, udp } from './rig.ts';

const FRAMES_MAX = 64;
/** So that making one costs little. */
const SMALL = { heldFramesMax: 1024, flowsMax: 256 };

/**
 * A comparator that is given turns, and one without lanes that is given the same frames one by one, in the order that the turns
 * chose.
 */
class TwoRigs {
  readonly rig = new Rig(512, 512, SMALL);
  readonly single = new Rig(512, 512, SMALL, 'plain', 'no-lane');
  /** PVM frames that were released by a match of frames that were read */
  pairs = 0;
  /** those of them that had not the same bytes as one SVM frame */
  cut = 0;
  nowMs = 0;
  private svmIndex = 0;
  private readonly turn: Turn;
  private readonly frames = new Map<number, Buffer>();
  /** how many of the SVM's next read frames `single` was given already, because a PVM frame was released with their first bytes */
  private givenAhead = 0;

  constructor(framesMax = FRAMES_MAX) {
    const { comparator } = this.rig;
    const compares = {
      primary: comparator.primary,
      secondary: comparator.secondary,
      pairOff: (...args: Parameters<typeof comparator.pairOff>) => {
        const step = comparator.pairOff(...args);
        if (step !== STEP.matched) return step;
        this.pairs++;
        this.single.pvm(this.frames.get(args[0])!);
        this.giveSecondary(args[3]);
        return step;
      },
      pairCut: (pvm: ReadFrames, svm: ReadFrames, nowMs: Instant) => {
        const [pvmRow, svmRow] = [pvm.next, svm.next];
        const step = comparator.pairCut(pvm, svm, nowMs);
        if (step !== STEP.matched) {
          assert.deepEqual([pvm.next, svm.next], [pvmRow, svmRow]);
          return step;
        }
        this.pairs++;
        if (pvm.next > pvmRow) this.single.pvm(this.frames.get(pvm.slabOf(pvmRow))!);
        let row = svmRow;
        for (; row < svm.next; row = svm.after(row)) this.giveSecondary(svm.slabOf(row));
        if (row !== svm.after(svmRow)) this.cut++;
        const { released } = this.rig;
        if (this.givenAhead > 0) row = svm.after(row);
        for (; this.single.released.length < released.length; row = svm.after(row)) {
          assert.ok(row < svm.end, 'released, and the SVM had not sent all of it');
          this.single.svm(this.frames.get(svm.slabOf(row))!);
          this.givenAhead++;
        }
        assert.ok(this.givenAhead <= 1);
        return step;
      },
      primaryFrame: (...args: Parameters<typeof comparator.primaryFrame>) => {
        comparator.primaryFrame(...args);
        this.single.pvm(this.frames.get(args[0])!);
      },
      secondaryFrame: (...args: Parameters<typeof comparator.secondaryFrame>) => {
        comparator.secondaryFrame(...args);
        this.giveSecondary(args[0]);
      },
    };
    this.turn = new Turn(compares, this.rig.pool, framesMax);
  }

  private giveSecondary(slab: SlabId): void {
    if (this.givenAhead > 0) this.givenAhead--;
    else this.single.svm(this.frames.get(slab)!);
  }

  pvm(...frames: Buffer[]): this {
    for (const frame of frames)
      this.add(frame, (slab, at) => this.turn.primaryFrame(slab, at, frame.length, this.nowMs as Instant));
    return this;
  }

  svm(...frames: Buffer[]): this {
    for (const frame of frames)
      this.add(frame, (slab, at) =>
        this.turn.secondaryFrame(slab, at, frame.length, this.svmIndex++, this.nowMs as Instant),
      );
    return this;
  }

  both(...frames: Buffer[]): this {
    return this.pvm(...frames).svm(...frames);
  }

  /** Ends the turn; returns the frames that it released. */
  end(): Buffer[] {
    const before = this.rig.released.length;
    this.turn.end(this.nowMs as Instant);
    this.assertSame();
    return this.rig.released.slice(before).map(({ bytes }) => bytes);
  }

  commit(): void {
    this.turn.flush(0 as Instant);
    assert.ok(this.turn.isEmpty);
    this.rig.commit();
    this.single.commit();
    this.assertSame();
  }

  close(): void {
    this.commit();
    this.rig.assertEmpty();
  }

  private add(frame: Buffer, keep: (slab: SlabId, at: number) => void): void {
    const { rig } = this;
    const slab = rig.place(frame);
    this.frames.set(slab, frame);
    keep(slab, rig.prefixBytes);
    rig.pool.unref(slab);
  }

  private assertSame(): void {
    const { rig, single } = this;
    assert.deepEqual(rig.released, single.released);
    assert.deepEqual(rig.diverged, single.diverged);
    assert.equal(rig.confirmed.length, single.confirmed.length);
    assert.deepEqual(rig.comparator.counters, single.comparator.counters);
    assert.equal(rig.comparator.primary.frames, single.comparator.primary.frames, 'held PVM frames');
    const secondaryFrames = rig.comparator.secondary.frames + this.givenAhead;
    assert.equal(secondaryFrames, single.comparator.secondary.frames, 'queued SVM frames');
  }
}

/** Returns two rigs with a connection whose first data comes at 1001. */
function connected(framesMax = FRAMES_MAX): TwoRigs {
  const two = new TwoRigs(framesMax);
  const syn = tcp({ seq: 1000, ack: 500, flags: TCP_SYN | TCP_ACK });
  assert.deepEqual(two.both(syn).end(), [syn]);
  return two;
}

const data = (seq: number, text: string, more = {}) => tcp({ seq, ack: 500, flags: TCP_ACK, text, ...more });

test('segments that are the same on both sides leave in order, and none of them is ever held', () => {
  const two = connected();
  const frames = [data(1001, 'one'), data(1004, 'two'), data(1007, 'three')];
  assert.deepEqual(two.both(...frames).end(), frames);
  assert.equal(two.pairs, 3);
  const more = [data(1012, 'four'), data(1016, 'five')];
  assert.deepEqual(
    two
      .svm(...more)
      .pvm(...more)
      .end(),
    more,
    'whoever was read first',
  );
  assert.equal(two.pairs, 5);
  two.close();
});

test('IP ids, timestamps and windows differ between the VMs all the time', () => {
  const two = connected();
  const stamps = (value: number) => ({ options: Buffer.from([1, 1, 8, 10, 0, 0, 0, value, 0, 0, 0, 1]) });
  two
    .pvm(data(1001, 'one', { ...stamps(7), window: 100 }))
    .svm(data(1001, 'one', { ...stamps(9), window: 200 }));
  assert.equal(two.end().length, 1);
  assert.equal(two.pairs, 1);
  two.close();
});

test('an ACK that both VMs send may be new', () => {
  const two = connected();
  const frames = [data(1001, 'one', { ack: 510 }), data(1004, 'two', { ack: 520 })];
  assert.deepEqual(two.both(...frames).end(), frames);
  assert.equal(two.pairs, 2);
  two.close();
});

test('bare ACKs and datagrams of one side do not keep the segments around them from pairing off', () => {
  const two = connected();
  const [one, next, last] = [data(1001, 'one'), data(1004, 'two'), data(1007, 'three')];
  const ack = tcp({ seq: 1004, ack: 500, flags: TCP_ACK });
  two.pvm(one, ack, next, udp('x'), last).svm(udp('y'), one, next, ack, ack, last);
  const left = two.end();
  assert.equal(two.pairs, 3);
  assert.deepEqual(
    left.filter((frame) => ![ack, udp('x')].some((other) => other.equals(frame))),
    [one, next, last],
  );
  two.close();
});

for (const ahead of ['pvm', 'svm'] as const) {
  const behind = ahead === 'pvm' ? 'svm' : 'pvm';
  test(`where the ${ahead} was ahead in the turn before, the ${behind} catches up, and then they pair off again`, () => {
    const two = connected();
    const frames = Array.from({ length: 6 }, (_, i) => data(1001 + i, `${i}`));
    two[ahead](...frames.slice(0, 2));
    assert.deepEqual(two.end(), []);
    two[ahead](...frames.slice(2))[behind](...frames);
    assert.deepEqual(two.end(), frames);
    assert.equal(two.pairs, 6, 'two of them against frames that are held');
    two.close();
  });
}

/** The stream of a connection in segments of these lengths. */
function cut(...lengths: number[]): Buffer[] {
  let at = 0;
  return lengths.map((bytes) => {
    const from = at;
    at += bytes;
    return data(1001 + from, 'abcdefghijklmnopqrstuvwxyz'.slice(from, at));
  });
}

test('segments that the VMs cut differently leave in order, and none of them is ever held', () => {
  for (const [pvm, svm] of [
    [cut(6, 6, 6), cut(4, 4, 4, 4, 2)],
    [cut(4, 4, 4, 4, 2), cut(6, 6, 6)],
    [cut(18), cut(1, 2, 3, 12)],
    [cut(1, 2, 3, 12), cut(18)],
    [cut(5, 5, 8), cut(5, 5, 8)],
    [cut(5, 5, 8), cut(5, 8, 5)],
  ]) {
    const two = connected();
    assert.deepEqual(
      two
        .pvm(...pvm)
        .svm(...svm)
        .end(),
      pvm,
    );
    assert.equal(two.pairs, pvm.length);
    two.close();
    two.single.assertConfirmed(1 + svm.length);
    two.rig.assertConfirmed(1 + svm.length);
  }
});

test('an SVM segment that reaches beyond the last of the PVM is confirmed when the rest of it has left', () => {
  const two = connected();
  const [first, rest] = cut(4, 4);
  assert.deepEqual(
    two
      .pvm(first)
      .svm(...cut(8))
      .end(),
    [first],
  );
  assert.equal(two.rig.confirmed.length, 1);
  assert.deepEqual(two.pvm(rest).end(), [rest]);
  assert.equal(two.rig.confirmed.length, 2);
  two.close();
});

test('a byte that differs after the first segments of the SVM diverges', () => {
  const two = connected();
  const [one, next] = [data(1001, 'abc'), data(1004, 'dXf')];
  assert.deepEqual(two.pvm(data(1001, 'abcdef')).svm(one, next).end(), []);
  assert.equal(two.rig.diverged.length, 1);
  two.close();
});

test('segments that the VMs cut differently do not leave for those of another flow, those after a gap, or with an ACK of no connection', () => {
  for (const [pvm, ...svm] of [
    [data(1001, 'abcdef'), data(1001, 'abc'), data(1004, 'def', { destinationPort: 9 })],
    [data(1001, 'abcdef'), data(1001, 'abc'), data(1004, 'def', { destination: '10.0.2.9' })],
    // The two bytes before the SVM's are its header's urgent pointer: 0.
    [data(1001, '\0\0f'), data(1003, 'f')],
    [data(1001, 'abcdef', { ack: 500 + 2 ** 31 - 1 }), data(1001, 'abc'), data(1004, 'def')],
  ]) {
    const two = connected();
    two
      .pvm(pvm)
      .svm(...svm)
      .end();
    assert.equal(two.rig.held, 1);
    two.close();
  }
});

test('no ACK leaves that the last of the SVM segments does not have, and no window that is wider', () => {
  const two = connected();
  two
    .pvm(data(1001, 'abcdef', { ack: 520, window: 90 }))
    .svm(data(1001, 'abcd', { ack: 510, window: 90 }), data(1005, 'efgh', { ack: 520, window: 70 }));
  const [left] = two.end();
  assert.equal(left.readUInt32BE(42), 520);
  assert.equal(left.readUInt16BE(48), 70);
  two.close();
});

test('the first bytes of a PVM segment wait for the others, but not for long', () => {
  for (const silentTurns of [1, 4]) {
    const two = connected();
    two.pvm(...cut(8)).end();
    assert.equal(two.rig.held, 1);
    two.svm(data(1001, 'abc'));
    for (let turn = 0; turn < silentTurns; turn++) two.end();
    assert.equal(two.rig.comparator.secondary.frames, silentTurns === 1 ? 0 : 1);
    assert.deepEqual(two.svm(data(1004, 'defgh')).end(), cut(8));
    two.close();
  }
});

test('a PVM segment that is more SVM segments than the lane counts goes the general way', () => {
  for (const [segments, cut] of [
    [64, 1],
    // The first is queued then, and the lane takes 64 more.
    [65, 1],
    [66, 0],
  ]) {
    const two = connected(128);
    const whole = data(1001, 'x'.repeat(segments));
    two.pvm(whole).svm(...Array.from({ length: segments }, (_, i) => data(1001 + i, 'x')));
    assert.deepEqual(two.end(), [whole]);
    assert.equal(two.cut, cut);
    two.close();
  }
});

test('urgent data that the SVM announced must be announced by the PVM, too', () => {
  const two = connected();
  two.pvm(data(1001, 'abc')).svm(data(1001, 'abc', { flags: TCP_ACK | TCP_URG, urgent: 6 }));
  assert.deepEqual(two.end(), [data(1001, 'abc')]);
  assert.deepEqual(two.both(data(1004, 'def')).end(), []);
  assert.deepEqual(two.rig.diverged, ['diverged-flags tcp 10.0.2.15:80 <-> 10.0.2.2:40000']);
  two.close();
});

/** Enough frames to wait for their counterparts. */
const MANY = Array.from({ length: 20 }, (_, i) => data(1001 + i, 'x'));

test('a large surplus of one side waits for its counterpart, but not for long', () => {
  for (const silentTurns of [1, 2, 3]) {
    const two = connected();
    two.pvm(...MANY);
    for (let turn = 0; turn < silentTurns; turn++) two.end();
    assert.equal(two.rig.held, 0);
    assert.deepEqual(two.svm(...MANY).end(), MANY);
    assert.equal(two.pairs, MANY.length);
    two.close();
  }
  const two = connected();
  two.pvm(...MANY);
  for (let turn = 0; turn < 4; turn++) two.end();
  assert.equal(two.rig.held, MANY.length);
  two.close();
});

test('while turns pair frames off, the surplus waits, for WAITING_MS_MAX at most', () => {
  const two = connected();
  const startMs = 2 ** 31 - 5;
  two.nowMs = startMs;
  two.pvm(...MANY, ...MANY.map((_, i) => data(1021 + i, 'y')));
  for (const frame of MANY) assert.deepEqual(two.svm(frame).end(), [frame]);
  assert.equal(two.rig.held, 0);
  assert.equal(two.pairs, MANY.length);
  two.nowMs = startMs + 9;
  assert.deepEqual(two.svm(data(1021, 'y')).end(), [data(1021, 'y')]);
  assert.equal(two.rig.held, 0);
  two.nowMs = startMs + 10;
  assert.deepEqual(two.svm(data(1022, 'y')).end(), [data(1022, 'y')]);
  assert.equal(two.rig.held, 18);
  two.close();
});

for (const [ahead, behind] of [
  ['svm', 'pvm'],
  ['pvm', 'svm'],
] as const) {
  test(`what the ${ahead} has said beyond does not wait while the ${behind}'s frames are held, which may need it`, () => {
    const two = connected();
    two[behind](udp('x'), MANY[0])[ahead](...MANY, udp('x'));
    assert.equal(two.end().length, 2);
    assert.equal(two.pairs, 1);
    two.close();
  });
}

test('a surplus that matched nothing, or is small, is held at once', () => {
  const two = connected();
  two.pvm(...MANY.slice(0, 15)).end();
  assert.equal(two.rig.held, 15);
  two.close();
  const other = connected();
  other
    .pvm(...MANY)
    .svm(udp('something else'))
    .end();
  assert.equal(other.rig.held, MANY.length);
  other.close();
});

test('other bytes, another length, an ACK that the SVM has not sent: no frame leaves that would not leave by itself', () => {
  for (const [pvm, svm, left] of [
    [data(1001, 'left'), data(1001, 'lift'), 0],
    [data(1001, 'left'), data(1001, 'le'), 0],
    [data(1001, 'left'), data(1002, 'eft'), 0],
    [data(1003, 'left'), data(1001, 'left'), 0],
    [data(1001, 'left', { ack: 600 }), data(1001, 'left', { ack: 599 }), 1],
    [data(1001, 'left', { ack: 599 }), data(1001, 'left', { ack: 600 }), 1],
    [data(1001, 'left', { destinationPort: 1 }), data(1001, 'left'), 0],
    [data(1001, 'left', { destination: '10.0.2.9' }), data(1001, 'left'), 0],
    [data(1001, 'left', { tags: [{ id: 5 }] }), data(1001, 'left'), 0],
  ] as const) {
    const two = connected();
    assert.equal(two.pvm(pvm).svm(svm).end().length, left);
    two.close();
  }
});

test('IPv6 and VLANs pair off too; addresses that differ in their last byte alone do not', () => {
  const six = {
    version: 6,
    source: 'fd00::15',
    destination: 'fd00::2',
    sourcePort: 80,
    destinationPort: 40000,
  } as const;
  const say = (fields: object) => tcpFrame({ ...six, ack: 500, flags: TCP_ACK, ...fields });
  const two = new TwoRigs();
  const syn = say({ seq: 1000, flags: TCP_SYN | TCP_ACK, tags: [{ id: 9 }] });
  two.both(syn).end();
  const one = say({ seq: 1001, payload: Buffer.from('one'), tags: [{ id: 9 }] });
  assert.deepEqual(two.both(one).end(), [one]);
  assert.equal(two.pairs, 1);
  const next = { seq: 1004, payload: Buffer.from('two'), tags: [{ id: 9 }] };
  two.pvm(say({ ...next, destination: 'fd00::3' })).svm(say(next));
  assert.deepEqual(two.end(), []);
  two.close();
});

test('more than its limit is worked through before the turn ends, and loses nothing', () => {
  const two = connected();
  const frames = Array.from({ length: 3 * FRAMES_MAX + 1 }, (_, i) => data(1001 + i, 'x'));
  two.both(...frames).end();
  assert.equal(two.rig.released.length, 1 + frames.length);
  two.close();
});

test('a flow that pairs off is no idle one', () => {
  const rig = new Rig(512, 16, { heldFramesMax: 64, flowsMax: 4, flowIdleMsMax: 100 });
  const turn = new Turn(rig.comparator, rig.pool, 4);
  const say = (frame: Buffer, nowMs: number): void => {
    const slab = rig.place(frame);
    turn.primaryFrame(slab, rig.prefixBytes, frame.length, nowMs as Instant);
    turn.secondaryFrame(slab, rig.prefixBytes, frame.length, 0, nowMs as Instant);
    rig.pool.unref(slab);
    turn.end(nowMs as Instant);
  };
  say(data(1001, 'one'), 0);
  say(data(1004, 'two'), 90);
  for (const port of [1, 2]) say(data(1, 'x', { destinationPort: port }), 110);
  assert.equal(rig.comparator.counters.flowsEvicted, 0);
  say(data(1, 'x', { destinationPort: 3 }), 190);
  assert.equal(rig.comparator.counters.flowsEvicted, 1, 'and one that says nothing is');
  rig.assertEmpty();
});

test('forgotten, nothing of it is compared, and its slabs are free', () => {
  const rig = new Rig();
  const turn = new Turn(rig.comparator, rig.pool, LIMITS.turnFramesMax);
  for (const frame of [udp('a'), udp('b')]) {
    const slab = rig.place(frame);
    turn.primaryFrame(slab, rig.prefixBytes, frame.length, 0 as Instant);
    turn.secondaryFrame(slab, rig.prefixBytes, frame.length, 0, 0 as Instant);
    rig.pool.unref(slab);
  }
  assert.equal(rig.pool.inUse, 2);
  turn.clear();
  turn.flush(0 as Instant);
  assert.deepEqual(rig.released, []);
  rig.assertEmpty();
});

const SEED = Number(process.env.COLO_TURNS_SEED ?? 1);
const CASES = Number(process.env.COLO_TURNS ?? 1500);

test('random scripts in random turns: as if every frame had been handed in by itself', () => {
  let pairs = 0;
  for (let seed = SEED; seed < SEED + CASES; seed++) {
    const dice = new Dice(seed);
    const two = new TwoRigs();
    for (const step of render(traffic(dice, randomTheme(dice)), new Voice())) {
      if (step.who === 'checkpoint') two.commit();
      else two[step.who](step.frame);
      if (dice.chance(5)) two.end();
    }
    two.close();
    pairs += two.pairs;
  }
  assert.ok(pairs > 0.6 * CASES, `only ${pairs} pairs`);
});

/** One VM's copy of a stream: nearly always the next bytes, in segments of any length. */
class Stream {
  private readonly dice: Dice;
  private readonly port: number;
  private readonly bytesMax: number;
  at = 0;
  private ack = 500;
  private window = 1000;

  constructor(dice: Dice, port: number) {
    this.dice = dice;
    this.port = port;
    this.bytesMax = 1 + dice.roll(60);
  }

  next(): Buffer {
    const { dice } = this;
    if (dice.chance(8)) this.ack += dice.roll(40);
    if (dice.chance(8)) this.window = 200 + dice.roll(1000);
    const isBare = dice.chance(30);
    const from = dice.chance(40) ? Math.max(0, this.at - dice.roll(80)) : this.at + (dice.chance(60) ? 5 : 0);
    const bytes = isBare ? 0 : 1 + dice.roll(this.bytesMax);
    this.at = Math.max(this.at, from + bytes);
    const payload = Buffer.from(Array.from({ length: bytes }, (_, i) => (from + i) % 251));
    if (bytes > 0 && dice.chance(400)) payload[dice.roll(bytes)] ^= 1;
    const flags = dice.chance(200) ? TCP_ACK | dice.pick([TCP_URG, TCP_FIN]) : TCP_ACK;
    const { ack, window } = this;
    return tcp({ seq: 1001 + from, ack, flags, window, destinationPort: this.port, payload, urgent: 3 });
  }
}

test('random streams that the VMs cut differently, in random turns: as if every frame had been handed in by itself', () => {
  let pairs = 0;
  let cuts = 0;
  const cases = Math.ceil(CASES / 5);
  for (let seed = SEED; seed < SEED + cases; seed++) {
    const dice = new Dice(seed);
    const two = new TwoRigs();
    const ports = [40000, 40001, 40002].slice(0, 1 + dice.roll(3));
    for (const port of ports) {
      const syn = tcp({ seq: 1000, ack: 500, flags: TCP_SYN | TCP_ACK, destinationPort: port });
      if (dice.chance(5)) continue;
      two.both(syn).end();
    }
    const flows = ports.map((port) => ({ pvm: new Stream(dice, port), svm: new Stream(dice, port) }));
    for (let turns = 10 + dice.roll(30); turns > 0; turns--) {
      for (let runs = dice.roll(4); runs > 0; runs--) {
        const flow = dice.pick(flows);
        const who = flow.pvm.at < flow.svm.at === !dice.chance(5) ? 'pvm' : 'svm';
        for (let frames = dice.roll(20); frames > 0; frames--) two[who](flow[who].next());
      }
      two.nowMs += dice.roll(4);
      if (dice.chance(40) || two.single.pool.inUse > 200) {
        two.commit();
        for (const { pvm, svm } of flows) svm.at = pvm.at;
      } else two.end();
    }
    two.close();
    pairs += two.pairs;
    cuts += two.cut;
  }
  assert.ok(pairs > 10 * cases && cuts > 5 * cases, `only ${pairs} pairs, ${cuts} of them cut differently`);
});
