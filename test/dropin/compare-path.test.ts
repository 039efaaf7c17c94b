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
  readonly events: string[] = [];
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
      events: {
        diverged: ({ flow, reason }) => void this.diverged.push(`${reason} ${flow}`),
        dropping: (place) => this.events.push(`dropping ${place}`),
        dropped: (place, frames) => this.events.push(`dropped ${place} ${frames}`),
      },
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
    while (read() || this.time.isTurnDue) this.time.turn();
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

test('a stop without a checkpoint: frames are set aside until that is known, and none is lost', () => {
  const rig = new Rig();
  rig.pvm(udp('a'));
  rig.path.pvmStopped();
  rig.svm(udp('a'));
  assert.deepEqual(rig.received(), []);
  rig.path.pvmResumed();
  assert.deepEqual(rig.pvm(udp('b')), []);
  assert.deepEqual(rig.svm(udp('b')), []);
  assert.equal(rig.unread(rig.path.primaryIn) + rig.unread(rig.path.secondaryIn), 0, 'everything is read');
  rig.path.unchanged();
  rig.pump();
  assert.deepEqual(rig.received(), [udp('a'), udp('b')]);
  rig.path.unchanged();
  rig.close();
});

test('frames of both VMs that arrive before a checkpoint is known are compared after it, in order', () => {
  const rig = new Rig();
  rig.pvm(udp('left'));
  rig.svm(udp('RIGHT'));
  rig.path.pvmStopped();
  rig.path.pvmResumed();
  assert.deepEqual(rig.pvm(udp('a'), udp('b')), []);
  rig.svm(udp('a'));
  assert.equal(rig.path.commit(), 1);
  rig.pump();
  assert.deepEqual(rig.received(), [udp('left'), udp('a')]);
  assert.deepEqual(rig.svm(udp('b')), [udp('b')]);
  rig.close();
});

test('without a secondary, what was set aside leaves at once', () => {
  for (const end of ['unchanged', 'goAlone'] as const) {
    const rig = new Rig({ phase: 'alone' });
    rig.path.pvmResumed();
    assert.deepEqual(rig.pvm(udp('a')), []);
    assert.deepEqual(rig.svm(udp('b')), []);
    rig.path[end]();
    assert.deepEqual(rig.received(), [udp('a')]);
    rig.close();
  }
});

test('frames above asideFramesMax are dropped and counted, and a checkpoint heals that', async () => {
  const rig = new Rig({ limits: { asideFramesMax: 2 } });
  const { path } = rig;
  path.pvmStopped();
  path.pvmResumed();
  const frames = [udp('a'), udp('b'), udp('c')];
  assert.deepEqual(rig.pvm(...frames), []);
  assert.deepEqual(rig.svm(...frames), []);
  assert.deepEqual([path.drops.primary.frames, path.drops.secondary.frames], [1, 1]);
  path.commit();
  rig.pump();
  assert.deepEqual(rig.received(), [udp('a'), udp('b')]);
  assert.deepEqual(rig.pvm(udp('d')), []);
  assert.equal(path.commit(), 1);
  assert.deepEqual(rig.received(), [udp('d')]);
  await rig.time.pass(2000);
  assert.deepEqual(rig.events.sort(), [
    'dropped primary-in 1',
    'dropped secondary-in 1',
    'dropping primary-in',
    'dropping secondary-in',
  ]);
  rig.close();
});

test('alone, every frame is released at once, and TCP streams are known when COLO begins', () => {
  const rig = new Rig({ phase: 'alone' });
  assert.deepEqual(rig.pvm(tcp({ seq: 9, flags: 0x12 }), udp('x')), [tcp({ seq: 9, flags: 0x12 }), udp('x')]);
  rig.svm(udp('dropped'));
  assert.equal(rig.path.overdue(1e9 as Instant, { dataMs: 0, ackMs: 0, owedMs: 1000, secondaryMs: 0 }), null);
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
  rig.received();
  const held = path.comparator.primary.frames;
  const left = rig.pvm(udp('p', 1)).length;
  if (!path.isComparing) return left > 0 ? 'alone' : 'aloneAsking';
  if (path.comparator.primary.frames === held) return 'asking';
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

test('a consumer that reads nothing: both VMs are read, and the newest released frames are dropped', () => {
  const rig = new Rig({ limits: { dropInUnsentBytesMax: 1 << 20 } });
  const { path } = rig;
  const near = rig.near.get(path.out)!;
  near.stalled = true;
  const frames = Array.from({ length: 280 }, (_, i) => udp(`${i}`.padEnd(60_000, '.')));
  for (const port of [path.secondaryIn, path.primaryIn]) rig.write(port, framed(...frames));
  rig.pump();
  assert.equal(rig.unread(path.primaryIn) + rig.unread(path.secondaryIn), 0);
  assert.ok(path.out.queuedBytes <= (1 << 20) + 4 * frames.length);
  near.unstall();
  rig.pump();
  const received = rig.received();
  assert.deepEqual(received, frames.slice(0, received.length));
  assert.equal(received.length + path.drops.out.frames, frames.length);
  assert.ok(received.length >= 17);
  rig.close();
});

test('what one commit may release at most leaves whole', () => {
  const rig = new Rig();
  const { path } = rig;
  rig.near.get(path.out)!.stalled = true;
  const frames = [1, 2].flatMap((port) => Array<Buffer>(8).fill(udp('x'.repeat(60_000), port)));
  let sent = 0;
  for (; path.pressure() === null; sent += frames.length) rig.pvm(...frames);
  assert.equal(path.pressure(), 'limit-bytes');
  assert.ok(sent > 1000);
  assert.equal(path.commit(), sent);
  assert.equal(path.pressure(), null, 'no checkpoint frees what waits for the consumer');
  rig.near.get(path.out)!.unstall();
  assert.equal(rig.received().length, sent);
  assert.deepEqual(rig.events, []);
  rig.close();
});

test('a PVM that floods is read; a checkpoint is asked for first, and then the newest frames are dropped', () => {
  const limits = { heldFramesMax: 64, heldFramesCheckpoint: 16, heldSecondaryMax: 8, slabBytes: 80_000 };
  for (const bytesMax of [200, undefined]) {
    const rig = new Rig({ limits });
    const { path } = rig;
    const frames = Array.from({ length: 100 }, (_, i) => udp(`${i}`));
    rig.write(path.primaryIn, framed(...frames.slice(0, 20)));
    rig.pump(bytesMax);
    assert.equal(path.pressure(), 'limit-frames');
    assert.equal(path.drops.primary.frames, 0);
    rig.write(path.primaryIn, framed(...frames.slice(20)));
    rig.pump(bytesMax);
    assert.equal(rig.unread(path.primaryIn), 0);
    assert.equal(path.drops.primary.frames, 100 - 56, 'heldSecondaryMax of heldFramesMax is for the SVM');
    assert.deepEqual(rig.svm(...frames.slice(0, 5)), frames.slice(0, 5), 'the SVM catches up');
    assert.equal(path.commit(), 51);
    assert.deepEqual(rig.received(), frames.slice(5, 56));
    rig.pvm(udp('next'));
    assert.deepEqual(rig.svm(udp('next')), [udp('next')]);
    rig.close();
  }
});

test('after a PVM frame was dropped nothing wrong leaves, and the checkpoint lets its flow continue', () => {
  const limits = { heldFramesMax: 16, heldFramesCheckpoint: 16, heldSecondaryMax: 8 };
  const rig = new Rig({ limits });
  const data = (i: number) => tcp({ seq: 10 + i, text: String.fromCharCode(97 + i) });
  rig.pvm(tcp({ seq: 9, flags: 0x12 }));
  assert.equal(rig.svm(tcp({ seq: 9, flags: 0x12 })).length, 1);
  rig.pvm(...Array.from({ length: 9 }, (_, i) => data(i)));
  assert.equal(rig.path.drops.primary.frames, 1);
  const all = Array.from({ length: 10 }, (_, i) => data(i));
  assert.deepEqual(rig.svm(...all), all.slice(0, 8));
  assert.deepEqual(rig.pvm(data(9)), [], 'there is a gap before it');
  assert.deepEqual(rig.diverged, []);
  assert.equal(rig.path.commit(), 1);
  assert.deepEqual(rig.received(), [data(9)]);
  assert.deepEqual(rig.pvm(data(8)), [], 'it reaches before all that is known');
  assert.equal(rig.path.commit(), 1);
  assert.deepEqual(rig.received(), [data(8)]);
  rig.pvm(data(10));
  assert.deepEqual(rig.svm(data(10)), [data(10)]);
  const datagrams = Array.from({ length: 10 }, (_, i) => udp(`${i}`));
  rig.pvm(...datagrams.slice(0, 9));
  assert.deepEqual(rig.svm(...datagrams), datagrams.slice(0, 8));
  assert.deepEqual(rig.pvm(datagrams[9]), []);
  assert.equal(rig.diverged.length, 1);
  assert.equal(rig.path.commit(), 1);
  rig.close();
});

test('an SVM that is ahead is read, what it sent waits in order, and the PVM may catch up', () => {
  const rig = new Rig({ limits: { heldSecondaryMax: 32, asideFramesMax: 70 } });
  const { path } = rig;
  const frames = Array.from({ length: 80 }, (_, i) => udp(`${i}`));
  rig.write(path.secondaryIn, framed(...frames));
  rig.pump(200);
  assert.equal(rig.unread(path.secondaryIn), 0);
  assert.equal(path.comparator.counters.secondaryDropped, 0);
  assert.equal(path.comparator.secondary.frames, 16);
  rig.write(path.primaryIn, framed(...frames));
  rig.pump(200);
  assert.deepEqual(rig.received(), frames);
  assert.deepEqual(rig.events, []);
  assert.deepEqual(rig.svm(...Array.from({ length: 100 }, (_, i) => udp(`${i}`))), []);
  assert.equal(path.drops.secondary.frames, 14);
  rig.close();
});

test('a checkpoint voids what an SVM that was ahead sent before it stopped, and no more', () => {
  for (const end of ['commit', 'unchanged'] as const) {
    const rig = new Rig({ limits: { heldSecondaryMax: 8 } });
    const { path } = rig;
    const frames = Array.from({ length: 10 }, (_, i) => udp(`${i}`));
    rig.svm(...frames);
    path.pvmStopped();
    rig.svm(udp('after'));
    path[end]();
    rig.pump();
    if (end === 'commit') assert.deepEqual(rig.pvm(udp('after')), [udp('after')]);
    else assert.deepEqual(rig.pvm(...frames, udp('after')), [...frames, udp('after')]);
    assert.deepEqual(rig.diverged, []);
    rig.close();
  }
});

test('memory is never short for a reader: a flood that nothing frees is read and dropped', () => {
  const rig = new Rig({ limits: { slabsMax: 24, heldSlabsMax: 8, slabBytes: 80_000 } });
  const { path } = rig;
  rig.near.get(path.out)!.stalled = true;
  const frames = Array.from({ length: 300 }, (_, i) => udp(`${i}`.padEnd(20_000, '.')));
  for (const port of [path.primaryIn, path.secondaryIn, path.out]) {
    rig.write(port, framed(...frames));
    rig.pump();
    assert.equal(rig.unread(port), 0);
  }
  assert.ok(path.slabsInUse < 24);
  assert.equal(path.pressure(), 'limit-bytes');
  path.commit();
  rig.pump();
  rig.near.get(path.out)!.unstall();
  rig.received();
  rig.pvm(udp('next'));
  assert.deepEqual(rig.svm(udp('next')).slice(-1), [udp('next')]);
  rig.close();
});

test('a checkpoint is asked for before memory is short for PVM frames', () => {
  const rig = new Rig();
  // One small frame pins a slab of large ones that left.
  for (let i = 0; rig.path.pressure() === null; i++) {
    const rest = Array.from({ length: 4 }, () => Buffer.concat([arpFrame(), Buffer.alloc(60_000)]));
    rig.pvm(udp(`held ${i}`), ...rest);
  }
  assert.equal(rig.path.drops.primary.frames, 0);
  rig.close();
});

test('what the SVM asks of its neighbours leaves through the output, if the PVM does not ask', () => {
  const request = arpFrame({ sourceMac: '52:54:00:12:34:56' });
  const rig = new Rig();
  assert.deepEqual(rig.svm(request), []);
  rig.path.releaseDue(49 as Instant);
  assert.deepEqual(rig.received(), []);
  rig.path.releaseDue(50 as Instant);
  rig.pump();
  assert.deepEqual(rig.received(), [request]);
  rig.svm(request);
  rig.path.goAlone();
  rig.path.releaseDue(500 as Instant);
  rig.pump();
  assert.deepEqual(rig.received(), []);
  rig.close();
});
