import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ComparePath } from '../../src/dropin/compare-path.ts';
import type { Framing } from '../../src/frames/frame-reader.ts';
import type { FramePort } from '../../src/io/frame-port.ts';
import { LIMITS, type Limits } from '../../src/limits.ts';
import type { Instant } from '../../src/units.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { tcp, udp } from '../compare/rig.ts';
import { arpFrame } from '../frames.ts';
import { type FakeStream, fakePair, framed, pumpAll, unframed } from '../io/fake-stream.ts';

/** The three peers of a path: `pvm` and `svm` send frames, `received` returns those that were released. */
class Rig {
  readonly path: ComparePath;
  readonly time = new FakeTime();
  readonly diverged: string[] = [];
  readonly near = new Map<FramePort, FakeStream>();
  private readonly far = new Map<FramePort, FakeStream>();

  constructor(options: { phase?: 'alone' | 'comparing'; framing?: Framing; limits?: Partial<Limits> } = {}) {
    const { phase = 'comparing', framing = 'plain', limits = {} } = options;
    this.path = new ComparePath({
      framing,
      phase,
      clock: this.time,
      timers: this.time,
      hashSeed: 1,
      events: { diverged: (flow, reason) => this.diverged.push(`${reason} ${flow}`) },
      limits: { ...LIMITS, ...limits },
    });
    for (const port of [this.path.primaryIn, this.path.secondaryIn, this.path.out]) this.join(port);
  }

  join(port: FramePort): void {
    const [near, far] = fakePair();
    this.near.set(port, near);
    this.far.set(port, far);
    port.attach(near);
  }

  leave(port: FramePort): void {
    this.far.get(port)!.close();
    pumpAll(this.near.get(port)!);
  }

  /** Sends bytes, which the path reads at the next `pump`. */
  write(port: FramePort, bytes: Uint8Array): void {
    this.far.get(port)!.write(bytes, () => {});
  }

  unread(port: FramePort): number {
    return this.near.get(port)!.unreadBytes();
  }

  pump(bytesMax?: number): void {
    const read = (): boolean => [...this.near.values()].map((stream) => stream.pump(bytesMax)).includes(true);
    while (read() || this.time.waiting > 0) this.time.turn();
  }

  /** Sends frames that are read at once, in the same turn. */
  read(port: FramePort, ...frames: Buffer[]): void {
    this.write(port, framed(...frames));
    while (this.near.get(port)!.pump());
  }

  pvm(...frames: Buffer[]): Buffer[] {
    this.write(this.path.primaryIn, framed(...frames));
    this.pump();
    return this.received();
  }

  svm(...frames: Buffer[]): Buffer[] {
    this.write(this.path.secondaryIn, framed(...frames));
    this.pump();
    return this.received();
  }

  received(): Buffer[] {
    const far = this.far.get(this.path.out)!;
    const bytes = far.inbox;
    far.inbox = Buffer.alloc(0);
    return unframed(bytes);
  }

  close(): void {
    this.path.close();
    assert.equal(this.path.slabsInUse, 0, 'every slab is free');
  }
}

test('a PVM frame is released when the SVM has sent the same, whichever is first', () => {
  const rig = new Rig();
  assert.deepEqual(rig.pvm(udp('a'), udp('b')), []);
  assert.deepEqual(rig.svm(udp('a')), [udp('a')]);
  assert.deepEqual(rig.svm(udp('b'), udp('c')), [udp('b')]);
  assert.deepEqual(rig.pvm(udp('c')), [udp('c')]);
  assert.deepEqual(rig.diverged, []);
  rig.close();
});

test('from streams in pieces of any size the same frames are released, in order', () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(sizes, fc.integer({ min: 1, max: 64 }), (lengths, piece) => {
      const rig = new Rig();
      const frames = lengths.map((length, i) => udp(`${i}`.padEnd(length, 'x')));
      rig.write(rig.path.primaryIn, framed(...frames));
      rig.write(rig.path.secondaryIn, framed(...frames));
      rig.pump(piece);
      assert.deepEqual(rig.received(), frames);
      rig.close();
    }),
    { numRuns: 30 },
  );
});

test('frames that differ are held until the commit, which releases them in order', () => {
  const rig = new Rig();
  assert.deepEqual(rig.pvm(udp('left'), udp('next'), udp('other flow', 7)), []);
  assert.deepEqual(rig.svm(udp('right')), []);
  assert.deepEqual(rig.diverged, ['diverged-length udp 10.0.2.15:53 <-> 10.0.2.2:5000']);
  assert.equal(rig.path.commit(), 3);
  assert.deepEqual(rig.received(), [udp('left'), udp('next'), udp('other flow', 7)]);
  assert.deepEqual(rig.pvm(udp('same')), []);
  assert.deepEqual(rig.svm(udp('same')), [udp('same')], 'no SVM frame from before the commit is left');
  rig.close();
});

test('SVM frames that arrive while the PVM is stopped belong to the next epoch', () => {
  const rig = new Rig();
  rig.pvm(udp('left'));
  rig.svm(udp('RIGHT'));
  rig.path.pvmStopped();
  assert.deepEqual(rig.svm(udp('after')), []);
  assert.equal(rig.path.commit(), 1);
  assert.deepEqual(rig.received(), [udp('left')]);
  assert.deepEqual(rig.pvm(udp('after')), [udp('after')]);
  rig.close();
});

test('frames that were read before an epoch ends belong to it, also within a turn', () => {
  const rig = new Rig();
  const { primaryIn, secondaryIn } = rig.path;
  rig.read(primaryIn, udp('a'));
  assert.equal(rig.path.commit(), 1);
  rig.pump();
  assert.deepEqual(rig.received(), [udp('a')]);
  rig.read(primaryIn, udp('b'));
  rig.read(secondaryIn, udp('b'));
  rig.path.pvmStopped();
  rig.pump();
  assert.deepEqual(rig.received(), [udp('b')]);
  rig.read(primaryIn, udp('c'));
  assert.equal(rig.path.goAlone(), 1);
  rig.pump();
  assert.deepEqual(rig.received(), [udp('c')]);
  rig.close();
});

test('without a checkpoint, SVM frames from before the stop are compared before those from the stop', () => {
  const rig = new Rig();
  const before = Array.from({ length: 20 }, (_, i) => udp(`${i}`));
  rig.read(rig.path.secondaryIn, ...before);
  rig.path.pvmStopped();
  rig.read(rig.path.secondaryIn, udp('then'));
  rig.path.unchanged();
  assert.deepEqual(rig.pvm(...before, udp('then')), [...before, udp('then')]);
  assert.deepEqual(rig.diverged, []);
  rig.close();
});

test('frames before a frame of impossible length are compared', () => {
  const rig = new Rig();
  rig.pvm(udp('a'));
  rig.write(rig.path.secondaryIn, Buffer.concat([framed(udp('a')), Buffer.alloc(4)]));
  rig.pump();
  assert.deepEqual(rig.received(), [udp('a')]);
  rig.close();
});

test('a path that is closed within a turn frees every slab', () => {
  const rig = new Rig();
  rig.read(rig.path.primaryIn, udp('a'));
  rig.read(rig.path.secondaryIn, udp('a'));
  rig.close();
  rig.time.turn();
  assert.deepEqual(rig.received(), []);
});

test('a stop without a checkpoint: nothing is read until that is known, and no frame is lost', () => {
  const rig = new Rig();
  rig.pvm(udp('a'));
  rig.path.pvmStopped();
  rig.svm(udp('a'));
  assert.deepEqual(rig.received(), []);
  rig.path.pvmResumed();
  assert.deepEqual(rig.pvm(udp('b')), []);
  assert.ok(rig.unread(rig.path.primaryIn) > 0);
  rig.path.unchanged();
  assert.deepEqual(rig.received(), [udp('a')]);
  rig.pump();
  assert.deepEqual(rig.svm(udp('b')), [udp('b')]);
  rig.path.unchanged();
  rig.close();
});

test('more than earlyFramesMax SVM frames are dropped and counted, and a checkpoint heals that', () => {
  const rig = new Rig({ limits: { earlyFramesMax: 2 } });
  rig.path.pvmStopped();
  rig.svm(udp('a'), udp('b'), udp('c'));
  assert.equal(rig.path.counters.lateFrames, 1);
  rig.path.commit();
  assert.deepEqual(rig.pvm(udp('a'), udp('b'), udp('c')), [udp('a'), udp('b')]);
  assert.equal(rig.path.commit(), 1);
  assert.deepEqual(rig.received(), [udp('c')]);
  rig.close();
});

test('alone, every frame is released at once, and TCP streams are known when COLO begins', () => {
  const rig = new Rig({ phase: 'alone' });
  assert.deepEqual(rig.pvm(tcp({ seq: 9, flags: 0x12 }), udp('x')), [tcp({ seq: 9, flags: 0x12 }), udp('x')]);
  rig.svm(udp('dropped'));
  assert.equal(rig.path.overdue(1e9 as Instant, { dataMs: 0, ackMs: 0, secondaryMs: 0 }), null);
  assert.equal(rig.path.pressure(), null);
  rig.path.commit();
  assert.equal(rig.path.isComparing, true);
  // A retransmission of released bytes needs no counterpart.
  assert.deepEqual(rig.pvm(tcp({ seq: 9, flags: 0x12 })), [tcp({ seq: 9, flags: 0x12 })]);
  assert.deepEqual(rig.pvm(tcp({ seq: 10, text: 'new' })), []);
  assert.equal(rig.path.goAlone(), 1);
  assert.deepEqual(rig.received(), [tcp({ seq: 10, text: 'new' })]);
  rig.close();
});

/** Returns the phase that the path shows by its effects. */
function phaseOf(rig: Rig): string {
  const { path } = rig;
  rig.pump();
  rig.write(path.primaryIn, framed(udp('p', 1)));
  rig.pump();
  if (rig.unread(path.primaryIn) > 0) return path.isComparing ? 'asking' : 'aloneAsking';
  if (!path.isComparing) return 'alone';
  const before = path.comparator.secondary.frames;
  rig.svm(udp('s', 2));
  return path.comparator.secondary.frames > before ? 'comparing' : 'stopped';
}

test('each event changes the phase as in the table of the header', () => {
  const events = ['pvmStopped', 'pvmResumed', 'unchanged', 'commit', 'goAlone'] as const;
  const ways = {
    alone: [],
    aloneAsking: ['pvmResumed'],
    comparing: ['commit'],
    stopped: ['commit', 'pvmStopped'],
    asking: ['commit', 'pvmStopped', 'pvmResumed'],
  } as const;
  const table: Record<keyof typeof ways, (keyof typeof ways)[]> = {
    alone: ['alone', 'aloneAsking', 'alone', 'comparing', 'alone'],
    aloneAsking: ['aloneAsking', 'aloneAsking', 'alone', 'comparing', 'alone'],
    comparing: ['stopped', 'asking', 'comparing', 'comparing', 'alone'],
    stopped: ['stopped', 'asking', 'comparing', 'comparing', 'alone'],
    asking: ['asking', 'asking', 'comparing', 'comparing', 'alone'],
  };
  for (const from of Object.keys(ways) as (keyof typeof ways)[]) {
    for (const [i, event] of events.entries()) {
      const rig = new Rig({ phase: 'alone' });
      for (const step of ways[from]) rig.path[step]();
      rig.path[event]();
      assert.equal(phaseOf(rig), table[from][i], `${event} in ${from}`);
      rig.close();
    }
  }
});

test('when a peer leaves and comes back, framing starts again and held frames stay held', () => {
  for (const place of ['primaryIn', 'secondaryIn', 'out'] as const) {
    const rig = new Rig();
    rig.pvm(udp('held'));
    rig.write(rig.path[place], framed(udp('cut')).subarray(0, 9));
    rig.pump();
    rig.leave(rig.path[place]);
    rig.join(rig.path[place]);
    assert.deepEqual(rig.svm(udp('held')), [udp('held')], place);
    rig.close();
  }
});

test('frames that are released without a consumer are dropped and counted', () => {
  const rig = new Rig();
  rig.leave(rig.path.out);
  rig.pvm(udp('a'), arpFrame());
  rig.svm(udp('a'));
  assert.deepEqual([rig.path.counters.droppedFrames, rig.path.counters.releasedFrames], [2, 0]);
  rig.join(rig.path.out);
  rig.pvm(udp('b'));
  assert.deepEqual(rig.svm(udp('b')), [udp('b')]);
  rig.close();
});

test('a consumer that reads nothing pauses the PVM; no frame is lost or reordered', () => {
  const rig = new Rig();
  const { path } = rig;
  const near = rig.near.get(path.out)!;
  near.stalled = true;
  const frames = Array.from({ length: 280 }, (_, i) => udp(`${i}`.padEnd(60_000, '.')));
  const bytes = framed(...frames);
  assert.ok(bytes.length > 2 * LIMITS.unsentBytesMax - (1 << 20));
  for (let at = 0; at < bytes.length; at += 1 << 20) {
    rig.write(path.secondaryIn, bytes.subarray(at, at + (1 << 20)));
    rig.write(path.primaryIn, bytes.subarray(at, at + (1 << 20)));
    rig.pump();
  }
  assert.ok(path.out.queuedBytes < LIMITS.unsentBytesMax + LIMITS.slabBytes);
  assert.ok(rig.unread(path.primaryIn) > 0, 'reading the PVM is paused');
  while (near.queuedBytes() > 0) {
    near.unstall();
    rig.pump();
  }
  assert.deepEqual(rig.received(), frames);
  rig.close();
});

test('a PVM that floods is paused at the limit, which asks for a checkpoint, and continues after it', () => {
  const rig = new Rig({ limits: { heldFramesMax: 64, heldFramesCheckpoint: 16, slabBytes: 80_000 } });
  const { path } = rig;
  const frames = Array.from({ length: 100 }, (_, i) => udp(`${i}`));
  rig.write(path.primaryIn, framed(...frames));
  // In small reads, as from the kernel.
  rig.pump(200);
  assert.equal(path.pressure(), 'limit-frames');
  assert.ok(rig.unread(path.primaryIn) > 0);
  const received: Buffer[] = [];
  for (let commits = 0; commits < 20 && received.length < frames.length; commits++) {
    path.commit();
    rig.pump(200);
    received.push(...rig.received());
  }
  assert.deepEqual(received, frames);
  rig.close();
});

test('frames that wait for the end of a turn count as held: the PVM is paused at the limit', () => {
  const rig = new Rig({ limits: { heldFramesMax: 64, heldFramesCheckpoint: 16 } });
  const { primaryIn } = rig.path;
  rig.write(primaryIn, framed(...Array.from({ length: 40 }, (_, i) => udp(`${i}`))));
  while (rig.near.get(primaryIn)!.pump(200));
  assert.equal(rig.path.comparator.primary.frames, 0);
  assert.ok(rig.unread(primaryIn) > 0, 'reading is paused');
  rig.pump(200);
  assert.equal(rig.path.pressure(), 'limit-frames');
  rig.close();
});

test('an SVM that is ahead is paused at half of its limit', () => {
  const rig = new Rig({ limits: { heldSecondaryMax: 32 } });
  const { path } = rig;
  const frames = Array.from({ length: 100 }, (_, i) => udp(`${i}`));
  rig.write(path.secondaryIn, framed(...frames));
  rig.pump(200);
  assert.ok(rig.unread(path.secondaryIn) > 0, 'reading is paused');
  assert.equal(path.comparator.counters.secondaryDropped, 0);
  // The PVM catches up.
  rig.write(path.primaryIn, framed(...frames));
  rig.pump(200);
  assert.deepEqual(rig.received(), frames);
  rig.close();
});
