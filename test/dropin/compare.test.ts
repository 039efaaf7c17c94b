import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EPOCHS_UNMATCHED_MAX } from '../../src/checkpoint/match-watch.ts';
import type { CheckpointEvents } from '../../src/dropin/checkpoint-source.ts';
import { DropInCompare } from '../../src/dropin/compare.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { udp } from '../compare/rig.ts';
import { type FakeStream, fakePair, framed, pumpAll, unframed } from '../io/fake-stream.ts';
import { FakeNetwork, surroundings } from './surroundings.ts';

/** `colo compare` with the test as its checkpoint source. */
class Rig {
  readonly time = new FakeTime();
  readonly events: string[] = [];
  readonly compare: DropInCompare;
  asks = 0;
  source!: CheckpointEvents;
  private readonly far: FakeStream[];
  private readonly near: FakeStream[] = [];

  constructor(options: { phase?: 'alone' | 'comparing'; asked?: boolean } = {}) {
    this.compare = new DropInCompare({
      endpoints: {
        primaryIn: unixEndpoint('/absent/p'),
        secondaryIn: unixEndpoint('/absent/s'),
        out: unixEndpoint('/absent/o'),
        framing: 'plain',
      },
      source:
        options.asked === false
          ? null
          : (events) => {
              this.source = events;
              return { start: async () => {}, ask: () => this.asks++, close: async () => {} };
            },
      phase: options.phase ?? 'comparing',
      hashSeed: 1,
      surroundings: surroundings(this.time),
      emit: (type, details) => {
        const { tookMs: _, ...rest } = details as Record<string, unknown>;
        this.events.push([type, ...Object.values(rest)].join(' '));
      },
    });
    const { path } = this.compare;
    this.far = [path.primaryIn, path.secondaryIn, path.out].map((port) => {
      const [near, far] = fakePair();
      port.attach(near);
      this.near.push(near);
      return far;
    });
  }

  send(who: 0 | 1, ...texts: string[]): void {
    this.far[who].write(framed(...texts.map((text) => udp(text))), () => {});
    pumpAll(...this.near);
  }

  received(): string[] {
    const bytes = this.far[2].inbox;
    this.far[2].inbox = Buffer.alloc(0);
    return unframed(bytes).map((frame) => frame.toString('latin1', 42));
  }

  /** Returns the events since the last call. */
  since(): string[] {
    return this.events.splice(0).filter((event) => !event.startsWith('stream.'));
  }

  async start(): Promise<this> {
    await this.compare.start();
    return this;
  }
}

test('a difference asks for a checkpoint at once, with reason and flow, and the commit releases it', async () => {
  const rig = await new Rig().start();
  rig.send(0, 'same', 'left');
  rig.send(1, 'same', 'RIGHT');
  await rig.time.pass(1);
  assert.deepEqual(rig.received(), ['same']);
  assert.equal(rig.asks, 1);
  assert.deepEqual(rig.since(), ['checkpoint.asked diverged-length udp 10.0.2.15:53 <-> 10.0.2.2:5000']);
  rig.source.committed();
  assert.deepEqual(rig.received(), ['left']);
  assert.deepEqual(rig.since(), ['checkpoint.committed 1']);
  const { asked, committed, matched, divergences, releasedFrames } = rig.compare.report();
  assert.deepEqual([asked, committed, matched, divergences, releasedFrames], [1, 1, 1, 1, 2]);
  await rig.compare.stop();
});

test('a frame without a counterpart is held for about the cost of a checkpoint, and then asks for one', async () => {
  const rig = await new Rig().start();
  rig.send(0, 'alone');
  await rig.time.pass(4);
  assert.equal(rig.asks, 0);
  await rig.time.pass(6);
  assert.equal(rig.asks, 1);
  assert.deepEqual(rig.since(), ['checkpoint.asked wait-primary']);
  // A checkpoint that took long makes the next wait longer.
  await rig.time.pass(400);
  rig.source.committed();
  rig.send(0, 'alone again');
  await rig.time.pass(40);
  assert.equal(rig.asks, 1);
  await rig.time.pass(40);
  assert.equal(rig.asks, 2);
  await rig.compare.stop();
});

test('a request that no checkpoint follows is repeated once a second', async () => {
  const rig = await new Rig().start();
  rig.send(0, 'alone');
  await rig.time.pass(2500);
  assert.equal(rig.asks, 3);
  rig.source.committed();
  await rig.time.pass(2500);
  assert.equal(rig.asks, 3);
  await rig.compare.stop();
});

test('without a source, output that differs stays held, and an event shows that once a second', async () => {
  const rig = await new Rig({ asked: false }).start();
  rig.send(0, 'left');
  rig.send(1, 'RIGHT');
  await rig.time.pass(1500);
  assert.equal(rig.since().length, 2);
  assert.deepEqual(rig.received(), []);
  const { releasedFrames } = await stopped(rig);
  assert.equal(releasedFrames, 1, 'it is released at the end, as when the QEMU object is deleted');
  assert.deepEqual(rig.received(), ['left']);
});

test('before and after COLO every frame is released at once, and no checkpoint is asked for', async () => {
  const rig = await new Rig({ phase: 'alone' }).start();
  rig.send(0, 'one');
  await rig.time.pass(50);
  assert.deepEqual(rig.received(), ['one']);
  rig.source.stopped();
  rig.source.resumed();
  rig.source.committed();
  rig.source.unchanged();
  rig.send(0, 'two');
  assert.deepEqual(rig.received(), []);
  rig.source.alone();
  rig.send(0, 'three');
  await rig.time.pass(50);
  assert.deepEqual(rig.received(), ['two', 'three']);
  assert.equal(rig.asks, 0);
  assert.deepEqual(rig.since(), ['checkpoint.committed 0', 'compare.alone 1']);
  await rig.compare.stop();
});

test('after the stop no timer, slab or request is left', async () => {
  const rig = await new Rig().start();
  rig.send(0, 'held');
  await stopped(rig);
  assert.deepEqual(rig.received(), ['held']);
  assert.equal(rig.compare.path.slabsInUse, 0);
  await rig.time.pass(2000);
  assert.equal(rig.time.waiting, 0);
  assert.equal(rig.asks, 0);
});

test('colo compare runs on a simulated network, from the first connection to the last', async () => {
  const time = new FakeTime();
  const network = new FakeNetwork();
  const listenAt = { kind: 'unix', mode: 'listen', path: '/s' } as const;
  const places = { primaryIn: unixEndpoint('/p'), secondaryIn: listenAt, out: unixEndpoint('/o') };
  const types: string[] = [];
  const compare = new DropInCompare({
    endpoints: { ...places, framing: 'plain' },
    source: null,
    phase: 'comparing',
    hashSeed: 1,
    surroundings: surroundings(time, network),
    emit: (type, details) => types.push([type, ...Object.values(details).slice(0, 1)].join(' ')),
  });
  network.open(places.out);
  await compare.start();
  await time.pass(10);
  network.open(places.primaryIn);
  const svm = network.dial(listenAt);
  await time.pass(100);
  assert.deepEqual(types, [
    'stream.up out',
    'stream.down primary-in',
    'stream.up secondary-in',
    'stream.up primary-in',
  ]);
  const pvm = network.peers.get('unix:/p')![0];
  for (const stream of [pvm, svm]) stream.write(framed(udp('same')), () => {});
  network.pump();
  await time.pass(1);
  assert.deepEqual(unframed(network.peers.get('unix:/o')![0].inbox), [udp('same')]);
  pvm.close();
  network.pump();
  await time.pass(100);
  assert.deepEqual(types.slice(4), ['stream.down primary-in', 'stream.up primary-in']);
  const stopping = compare.stop();
  await time.pass(10);
  await stopping;
  assert.equal(time.waiting, 0);
});

/** Stops it while time passes: it waits for its consumer by timers. */
async function stopped(rig: Rig): Promise<ReturnType<DropInCompare['report']>> {
  const stopping = rig.compare.stop();
  await rig.time.pass(10);
  return stopping;
}

test('an SVM that sends nothing is reported after N checkpoints that released output, until COLO ends', async () => {
  const rig = await new Rig().start();
  const epoch = async (svm: string[]) => {
    rig.send(0, 'a reply');
    rig.send(1, ...svm);
    await rig.time.pass(20);
    rig.source.committed();
  };
  rig.source.committed();
  await epoch(['a reply']);
  for (let i = 0; i < EPOCHS_UNMATCHED_MAX; i++) await epoch([]);
  const unmatched = () => rig.since().filter((event) => event.startsWith('compare.unmatched'));
  const [seen] = unmatched();
  assert.match(seen, new RegExp(`^compare.unmatched ${EPOCHS_UNMATCHED_MAX} ${EPOCHS_UNMATCHED_MAX} 0 `));
  const { matched, repeated, releasedByCommit } = rig.compare.report();
  assert.deepEqual([matched, repeated, releasedByCommit], [1, 0, EPOCHS_UNMATCHED_MAX]);
  rig.source.alone();
  assert.match(unmatched()[0], /^compare.unmatched-over pair-ended /);
  await rig.compare.stop();
});
