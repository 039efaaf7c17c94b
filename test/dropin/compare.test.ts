import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EPOCHS_UNMATCHED_MAX } from '../../src/checkpoint/match-watch.ts';
import type { CheckpointEvents } from '../../src/dropin/checkpoint-source.ts';
import { DropInCompare } from '../../src/dropin/compare.ts';
import { NOTICE_MS } from '../../src/dropin/standing.ts';
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

  /** Returns the events since the last call; of the notices only their type. */
  since(): string[] {
    const events = this.events.splice(0).filter((event) => !event.startsWith('stream.'));
    return events.map((event) => event.replace(/^(compare\.(unknown \w+|broken|unanswered)) .*/, '$1'));
  }

  /** Starts it; with a source that is `paired` its checkpoint has committed already. */
  async start(from: 'paired' | 'unknown' = 'paired'): Promise<this> {
    await this.compare.start();
    if (from === 'unknown' || this.source === undefined) return this;
    this.source.committed();
    this.since();
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
  assert.deepEqual(rig.since(), [
    'checkpoint.asked diverged-length udp 10.0.2.15:53 <-> 10.0.2.2:5000 length',
  ]);
  rig.source.committed();
  assert.deepEqual(rig.received(), ['left']);
  assert.deepEqual(rig.since(), ['checkpoint.committed 1']);
  const { asked, committed, matched, divergences, releasedFrames } = rig.compare.report();
  assert.deepEqual([asked, committed, matched, divergences, releasedFrames], [1, 2, 1, 1, 2]);
  await rig.compare.stop();
});

test('a frame without a counterpart is held for about the cost of a checkpoint, and then asks for one', async () => {
  const rig = await new Rig().start();
  rig.send(0, 'alone');
  await rig.time.pass(4);
  assert.equal(rig.asks, 0);
  await rig.time.pass(6);
  assert.equal(rig.asks, 1);
  assert.deepEqual(rig.since(), ['checkpoint.asked wait-primary udp 10.0.2.15:53 <-> 10.0.2.2:5000']);
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

test('output of the SVM alone asks with its flow, too', async () => {
  const rig = await new Rig().start();
  rig.send(1, 'alone');
  await rig.time.pass(2100);
  assert.deepEqual(rig.since(), ['checkpoint.asked wait-secondary udp 10.0.2.15:53 <-> 10.0.2.2:5000']);
  await rig.compare.stop();
});

test('before and after COLO every frame is released at once, and no checkpoint is asked for', async () => {
  const rig = await new Rig({ phase: 'alone' }).start('unknown');
  rig.source.alone();
  assert.deepEqual(rig.since(), ['compare.unknown released', 'compare.alone 0']);
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
  rig.source.alone();
  assert.deepEqual(rig.since(), [], 'nothing new');
  await rig.compare.stop();
});

test('while it is not known whether there is a secondary, that is notified of at once and again', async () => {
  const rig = await new Rig({ phase: 'alone' }).start('unknown');
  assert.deepEqual(rig.since(), ['compare.unknown released']);
  rig.send(0, 'uncompared');
  assert.deepEqual(rig.received(), ['uncompared']);
  await rig.time.pass(2 * NOTICE_MS + 1);
  assert.deepEqual(rig.since(), ['compare.unknown released', 'compare.unknown released']);
  rig.source.alone();
  await rig.time.pass(2 * NOTICE_MS);
  assert.deepEqual(rig.since(), ['compare.alone 0']);
  // QEMU no longer replies: it may have got a secondary.
  rig.source.unknown();
  await rig.time.pass(NOTICE_MS + 1);
  assert.deepEqual(rig.since(), ['compare.unknown released', 'compare.unknown released']);
  await rig.compare.stop();
  assert.equal(rig.time.waiting, 0);
});

test('from the moment it is known that there is a secondary output is held, and a checkpoint asked for until one commits', async () => {
  const rig = await new Rig({ phase: 'alone' }).start('unknown');
  rig.send(0, 'before');
  rig.source.primary();
  rig.send(0, 'after');
  assert.deepEqual(rig.received(), ['before']);
  await rig.time.pass(3500);
  assert.deepEqual(rig.received(), []);
  assert.deepEqual(rig.since(), ['compare.unknown released', ...Array(4).fill('checkpoint.asked initial')]);
  await rig.time.pass(NOTICE_MS);
  assert.ok(rig.since().includes('compare.unanswered'));
  rig.source.committed();
  assert.deepEqual(rig.received(), ['after']);
  assert.deepEqual(rig.since(), ['checkpoint.committed 1']);
  await rig.time.pass(2 * NOTICE_MS);
  assert.deepEqual(rig.since(), []);
  await rig.compare.stop();
});

test('a pair whose source is lost holds what differs, notifies of that, and begins again with a checkpoint', async () => {
  const rig = await new Rig().start();
  rig.source.unknown();
  assert.deepEqual(rig.since(), ['compare.unknown held']);
  rig.send(0, 'left');
  rig.send(1, 'RIGHT');
  await rig.time.pass(10);
  assert.deepEqual(rig.received(), []);
  rig.since();
  const { asks } = rig;
  rig.source.primary();
  await rig.time.pass(1000);
  assert.equal(rig.asks, asks + 1, 'one request per second, whatever its reason');
  rig.source.committed();
  assert.deepEqual(rig.received(), ['left']);
  await rig.compare.stop();
});

test('a pair that broke by an error releases only what matches until an operator has decided', async () => {
  const rig = await new Rig().start();
  rig.source.broken();
  assert.deepEqual(rig.since(), ['compare.broken']);
  rig.send(0, 'same', 'left');
  rig.send(1, 'same', 'RIGHT');
  await rig.time.pass(NOTICE_MS + 1);
  assert.deepEqual(rig.received(), ['same']);
  assert.deepEqual([rig.asks, rig.since()], [0, ['compare.broken']]);
  // The operator resumes the VM: it was stopped in the middle of a checkpoint, and none has committed.
  rig.source.stopped();
  rig.source.resumed();
  rig.source.committed();
  rig.source.unchanged();
  assert.deepEqual([rig.received(), rig.since()], [[], []]);
  rig.source.alone();
  assert.deepEqual(rig.received(), ['left']);
  assert.deepEqual(rig.since(), ['compare.alone 1']);
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
