/**
 * The comparator between two VMs that send hostile frames, or the same ones, or nearly the same. No frame leaves against
 * rule 1 of docs/architecture.md, or twice, or before an earlier one of its flow; none is lost; a flow in which both VMs send
 * the same never waits for the others; and all memory is freed.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Comparator } from '../../src/compare/comparator.ts';
import type { ReleaseCause } from '../../src/compare/verdict.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { LIMITS, type Limits } from '../../src/limits.ts';
import type { Instant, SlabId } from '../../src/units.ts';
import { Voice } from '../compare/oracle/script.ts';
import { randomTheme, render, traffic } from '../compare/oracle/traffic.ts';
import type { Dice } from '../dice.ts';
import { CLIENT_MAC, tcpFrame, udpFrame, VM_MAC } from '../frames.ts';
import { fuzz } from './cases.ts';
import { anyDatagram, cutUp, hostileFrame, mutate, twoErrors } from './hostile.ts';
import { OutputCommit, read } from './output-commit.ts';
import { isPiece, Pieces, type Whole } from './pieces.ts';

const PREFIX_BYTES = 4;
/** Small enough for a test to reach them. */
const SMALL: Limits = {
  ...LIMITS,
  slabBytes: 4096,
  slabsMax: 128,
  heldSlabsMax: 64,
  heldFramesMax: 96,
  heldFramesCheckpoint: 48,
  heldSecondaryMax: 24,
  flowsMax: 16,
  flowIdleMsMax: 20,
  flowQuietMsMin: 10,
  flowClosedMsMax: 15,
  flowFramesMax: 18,
  fragmentedDatagramsMax: 4,
  fragmentsPerDatagramMax: 6,
};

type Known = { number: number; frame: Buffer };

class World {
  readonly pool = new SlabPool(SMALL.slabBytes, SMALL.slabsMax);
  readonly comparator: Comparator;
  readonly rule = new OutputCommit();
  /** the frame in each slab */
  private readonly inSlab = new Map<number, Known>();
  private readonly left = new Set<number>();
  private readonly lastOf = new Map<string, number>();
  private readonly confirmed = new Set<number>();
  private readonly pieces = { pvm: new Pieces(), svm: new Pieces() };
  /** the PVM's complete datagrams in fragments, by the number of each of their frames */
  private readonly wholes = new Map<number, Whole>();
  private readonly begunToLeave = new Set<Whole>();
  private lastLeft: Whole | null = null;
  private lastCommitted = -1;
  private isCommitting = false;
  private pvmFrames = 0;
  private svmFrames = 0;
  private nowMs = 0;
  private goodSeq = 1000;

  constructor() {
    const sink = {
      release: (slab: SlabId, at: number, length: number, cause: ReleaseCause) => {
        const bytes = Buffer.from(this.pool.buffer(slab).subarray(at, at + length));
        if (cause === 'made') this.onMade(bytes);
        else this.onRelease(slab, cause, bytes);
      },
      absorb: (slab: SlabId) => this.left.add((this.inSlab.get(slab) as Known).number),
      teach: () => {},
      confirm: (index: number) => {
        assert.ok(!this.confirmed.has(index), `SVM frame ${index} was confirmed twice`);
        this.confirmed.add(index);
      },
      diverged: () => {},
    };
    this.comparator = new Comparator(this.pool, sink, 1, 'plain', SMALL);
  }

  pvm(frame: Buffer): void {
    this.nowMs++;
    const { slab, number } = this.place(frame, this.pvmFrames++);
    const whole = this.pieces.pvm.add(frame, number);
    for (const one of whole?.numbers ?? []) this.wholes.set(one, whole as Whole);
    const before = this.comparator.counters.malformed;
    this.comparator.primaryFrame(slab, PREFIX_BYTES, frame.length, this.nowMs as Instant);
    const malformed = this.comparator.counters.malformed > before;
    assert.equal(malformed, read(frame) === null, 'counted as malformed');
    if (malformed) this.left.add(number);
    this.done(slab);
  }

  svm(frame: Buffer): void {
    this.nowMs++;
    const { slab } = this.place(frame, -1);
    const said = read(frame);
    const whole = this.pieces.svm.add(frame, 0);
    if (whole !== null) this.rule.svmSaid(whole.said);
    else if (said !== null && !said.harmless && !isPiece(frame)) this.rule.svmSaid(said);
    this.comparator.secondaryFrame(slab, PREFIX_BYTES, frame.length, this.svmFrames++, this.nowMs as Instant);
    this.done(slab);
  }

  commit(): void {
    this.lastCommitted = -1;
    this.isCommitting = true;
    this.comparator.commit();
    this.isCommitting = false;
    this.rule.checkpoint();
    this.pieces.pvm.clear();
    this.pieces.svm.clear();
    assert.equal(this.left.size, this.pvmFrames, 'every PVM frame has left by the checkpoint');
    this.confirmed.clear();
    this.svmFrames = 0;
    assert.equal(this.pool.inUse, 0, 'slabs in use after a checkpoint');
  }

  /** A flow in which both VMs send the same: no other flow may make it wait. */
  agree(dice: Dice): void {
    const payload = Buffer.from('a well-behaved flow');
    const way = {
      source: '10.0.9.15',
      destination: '10.0.9.2',
      sourceMac: VM_MAC,
      destinationMac: CLIENT_MAC,
    };
    const frame = dice.chance(2)
      ? udpFrame({ ...way, payload })
      : tcpFrame({ ...way, sourcePort: 80, seq: this.goodSeq, ack: 1, payload });
    if (frame[23] === 6) this.goodSeq += payload.length;
    const number = this.pvmFrames;
    if (dice.chance(2)) {
      this.pvm(frame);
      this.svm(frame);
    } else {
      this.svm(frame);
      this.pvm(frame);
    }
    assert.ok(this.left.has(number) || this.full, `a well-behaved flow waits: ${frame.toString('hex')}`);
  }

  close(): void {
    this.comparator.discard();
    assert.equal(this.pool.inUse, 0, 'slabs in use at the end');
    assert.equal(this.comparator.primary.frames + this.comparator.secondary.frames, 0);
    assert.equal(this.comparator.primary.bytes + this.comparator.secondary.bytes, 0);
    const slab = this.pool.acquire();
    let rows = 0;
    while (this.comparator.frames.add(this.comparator.primary, slab, PREFIX_BYTES, 1, 0 as Instant) >= 0)
      rows++;
    assert.equal(rows, SMALL.heldFramesMax, 'rows for held frames');
    this.comparator.discard();
    this.pool.unref(slab);
    assert.equal(this.pool.inUse, 0);
  }

  get full(): boolean {
    return this.comparator.pressure() !== null;
  }

  get held(): number {
    return this.comparator.primary.frames;
  }

  get matched(): number {
    return this.comparator.counters.matched;
  }

  get outstanding(): number {
    return this.pvmFrames - this.left.size;
  }

  private place(frame: Buffer, number: number): { slab: SlabId; number: number } {
    const slab = this.pool.acquire();
    assert.ok(slab >= 0, 'no slab left, and no checkpoint was asked for');
    const buffer = this.pool.buffer(slab);
    buffer.writeUInt32BE(frame.length);
    frame.copy(buffer, PREFIX_BYTES);
    this.inSlab.set(slab, { number, frame });
    return { slab, number };
  }

  private done(slab: SlabId): void {
    this.pool.unref(slab);
    assert.equal(this.held, this.outstanding, 'a PVM frame is held or has left');
    const { primary, secondary } = this.comparator;
    const { ownSlabs, questionsWaiting } = this.comparator;
    const slabsMax = primary.frames + secondary.frames + ownSlabs + questionsWaiting;
    assert.ok(this.pool.inUse <= slabsMax, 'a slab is kept for no held frame');
    assert.ok(secondary.frames <= SMALL.heldSecondaryMax);
  }

  /** The comparator has made a frame: it says no more than any that leaves. */
  private onMade(bytes: Buffer): void {
    const said = read(bytes);
    assert.ok(said?.tcp, `made, and not TCP: ${bytes.toString('hex')}`);
    if (this.isCommitting) this.rule.committed(said);
    const why = this.isCommitting ? null : this.rule.leaves(said);
    assert.ok(why === null, `made, and ${why}: ${bytes.toString('hex')}`);
  }

  /** `frame`: as it leaves. */
  private onRelease(slab: SlabId, cause: ReleaseCause, frame: Buffer): void {
    const { number } = this.inSlab.get(slab) as Known;
    const hex = frame.toString('hex');
    assert.ok(number >= 0, `a frame of the SVM left: ${hex}`);
    assert.ok(!this.left.has(number), `left twice: ${hex}`);
    this.left.add(number);
    const said = read(frame);
    assert.ok(said !== null, `malformed, and left: ${hex}`);
    assert.equal(cause === 'harmless', said.harmless, `${cause}: ${hex}`);
    if (said.harmless) return;
    if (cause === 'commit') {
      assert.ok(number > this.lastCommitted, 'a checkpoint releases in order of arrival');
      this.lastCommitted = number;
      this.rule.committed(said);
      if (isPiece(frame)) return;
    }
    const whole = this.wholes.get(number);
    if (isPiece(frame)) {
      assert.ok(whole !== undefined, `a fragment left, and others are missing: ${hex}`);
      const more = this.begunToLeave.has(whole);
      assert.ok(!more || this.lastLeft === whole, 'the frames of a datagram leave together');
      this.begunToLeave.add(whole);
      this.lastLeft = whole;
      if (more) return;
    } else this.lastLeft = null;
    const { flow } = whole?.said ?? said;
    // The place of a datagram in fragments is where it became complete.
    const place = whole === undefined ? number : Math.max(...whole.numbers);
    // A stream's segments have their order by their place in it.
    const inOrder = said.tcp !== null || (this.lastOf.get(flow) ?? -1) < place;
    assert.ok(inOrder, `left after a later one of its flow: ${hex}`);
    this.lastOf.set(flow, place);
    if (cause === 'commit') return;
    const why = this.rule.leaves(whole?.said ?? said);
    assert.ok(why === null, `left, and ${why}: ${hex}`);
  }
}

function play(dice: Dice): void {
  const world = new World();
  /** What one side has sent and the other has not: most of the time the other then sends nearly the same. */
  const echoes: { pvm: Buffer[]; svm: Buffer[] } = { pvm: [], svm: [] };
  for (let steps = 10 + dice.roll(70); steps > 0; steps--) {
    const side = dice.chance(2) ? 'pvm' : 'svm';
    const other = side === 'pvm' ? 'svm' : 'pvm';
    const repeats = echoes[side].length > 0 && !dice.chance(4);
    let frame = repeats ? (echoes[side].shift() as Buffer) : hostileFrame(dice);
    if (repeats && dice.chance(15)) frame = mutate(dice, frame);
    if (!repeats) echoes[other].push(frame);
    world[side](frame);
    if (dice.chance(8)) world.agree(dice);
    if (dice.chance(30) || world.full) {
      world.commit();
      echoes.svm = [];
    }
  }
  if (dice.chance(2)) world.commit();
  world.close();
}

test('hostile frames on both sides', async () => {
  await fuzz(700, play);
});

test('datagrams that two VMs cut differently', async () => {
  let left = 0;
  await fuzz(800, (dice) => {
    const world = new World();
    const ahead: { pvm: Buffer[]; svm: Buffer[] } = { pvm: [], svm: [] };
    for (let id = 0; id < 8; id++) {
      const datagram = anyDatagram(dice);
      for (const side of ['pvm', 'svm'] as const) {
        ahead[side].push(...cutUp(dice, datagram, dice.chance(4) ? dice.roll(3) : 100 + id));
      }
    }
    while (ahead.pvm.length + ahead.svm.length > 0) {
      const side = dice.pick(['pvm', 'svm'] as const);
      const frame = ahead[side].shift();
      if (frame !== undefined) world[side](dice.chance(40) ? mutate(dice, frame) : frame);
      if (dice.chance(20)) world.agree(dice);
      if (dice.chance(60) || world.full) world.commit();
    }
    left += world.matched;
    world.close();
  });
  assert.ok(left > 1000, 'hardly any datagram was matched');
});

test('errors about one packet that two VMs quote differently', async () => {
  let left = 0;
  await fuzz(800, (dice) => {
    const world = new World();
    for (let errors = 1 + dice.roll(12); errors > 0; errors--) {
      const [pvm, svm] = twoErrors(dice);
      for (const side of dice.chance(2) ? (['pvm', 'svm'] as const) : (['svm', 'pvm'] as const))
        world[side](side === 'pvm' ? pvm : svm);
      if (dice.chance(3) || world.full) world.commit();
    }
    left += world.matched;
    world.close();
  });
  assert.ok(left > 1000, `hardly any error was matched: ${left}`);
});

test('two VMs that send nearly the same, with hostile frames in between', async () => {
  await fuzz(1000, (dice) => {
    const world = new World();
    const voice = new Voice('10.0.2.2');
    for (const step of render(traffic(dice, randomTheme(dice)), voice)) {
      if (step.who === 'checkpoint') world.commit();
      else world[step.who](step.frame);
      if (dice.chance(20)) world[dice.pick(['pvm', 'svm'] as const)](hostileFrame(dice));
      if (dice.chance(20)) world.agree(dice);
      if (world.full) world.commit();
    }
    world.close();
  });
});
