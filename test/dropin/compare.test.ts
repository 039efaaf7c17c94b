import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { CheckpointEvents } from '../../src/dropin/checkpoint-source.ts';
import { DropInCompare } from '../../src/dropin/compare.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { udp } from '../compare/rig.ts';
import { type FakeStream, fakePair, framed, pumpAll, unframed } from '../io/fake-stream.ts';
import { surroundings } from './surroundings.ts';

/** Whoever takes checkpoints is the test. */
class Rig {
  readonly time = new FakeTime();
  readonly events: string[] = [];
  readonly compare: DropInCompare;
  asks = 0;
  source!: CheckpointEvents;
  private readonly far: FakeStream[];
  private readonly near: FakeStream[] = [];

  constructor(options: { comparing?: boolean; asked?: boolean } = {}) {
    this.compare = new DropInCompare({
      endpoints: {
        primaryIn: unixEndpoint('/nobody/p'),
        secondaryIn: unixEndpoint('/nobody/s'),
        out: unixEndpoint('/nobody/o'),
        framing: 'plain',
      },
      source:
        options.asked === false
          ? null
          : (events) => {
              this.source = events;
              return { start: async () => {}, ask: () => this.asks++, close: async () => {} };
            },
      comparing: options.comparing ?? true,
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

  say(who: 0 | 1, ...texts: string[]): void {
    this.far[who].write(framed(...texts.map((text) => udp(text))), () => {});
    pumpAll(...this.near);
  }

  heard(): string[] {
    const bytes = this.far[2].inbox;
    this.far[2].inbox = Buffer.alloc(0);
    return unframed(bytes).map((frame) => frame.toString('latin1', 42));
  }

  /** What was said since the last look. */
  since(): string[] {
    return this.events.splice(0).filter((event) => !event.startsWith('stream.'));
  }

  async start(): Promise<this> {
    await this.compare.start();
    return this;
  }
}

test('a difference asks at once, says why and where, and the commit lets it out', async () => {
  const rig = await new Rig().start();
  rig.say(0, 'same', 'left');
  rig.say(1, 'same', 'RIGHT');
  await rig.time.pass(1);
  assert.deepEqual(rig.heard(), ['same']);
  assert.equal(rig.asks, 1);
  assert.deepEqual(rig.since(), ['checkpoint.asked diverged-length udp 10.0.2.15:53 <-> 10.0.2.2:5000']);
  rig.source.committed();
  assert.deepEqual(rig.heard(), ['left']);
  assert.deepEqual(rig.since(), ['checkpoint.committed 1']);
  const { asked, committed, matched, divergences, releasedFrames } = rig.compare.report();
  assert.deepEqual([asked, committed, matched, divergences, releasedFrames], [1, 1, 1, 1, 2]);
  await rig.compare.stop();
});

test('what has no counterpart waits about as long as a checkpoint costs, and then asks', async () => {
  const rig = await new Rig().start();
  rig.say(0, 'alone');
  await rig.time.pass(4);
  assert.equal(rig.asks, 0);
  await rig.time.pass(6);
  assert.equal(rig.asks, 1);
  assert.deepEqual(rig.since(), ['checkpoint.asked wait-primary']);
  // Each one that takes long makes the next wait longer.
  await rig.time.pass(400);
  rig.source.committed();
  rig.say(0, 'alone again');
  await rig.time.pass(40);
  assert.equal(rig.asks, 1);
  await rig.time.pass(40);
  assert.equal(rig.asks, 2);
  await rig.compare.stop();
});

test('a request that no checkpoint follows is repeated once a second', async () => {
  const rig = await new Rig().start();
  rig.say(0, 'alone');
  await rig.time.pass(2500);
  assert.equal(rig.asks, 3);
  rig.source.committed();
  await rig.time.pass(2500);
  assert.equal(rig.asks, 3);
  await rig.compare.stop();
});

test('without anybody to ask, output that differs waits, and that is said once a second', async () => {
  const rig = await new Rig({ asked: false }).start();
  rig.say(0, 'left');
  rig.say(1, 'RIGHT');
  await rig.time.pass(1500);
  assert.equal(rig.since().length, 2);
  assert.deepEqual(rig.heard(), []);
  const { releasedFrames } = await stopped(rig);
  assert.equal(releasedFrames, 1, 'it leaves at the end, as when the object is deleted');
  assert.deepEqual(rig.heard(), ['left']);
});

test('before COLO and after it everything leaves at once, and nobody is asked', async () => {
  const rig = await new Rig({ comparing: false }).start();
  rig.say(0, 'one');
  await rig.time.pass(50);
  assert.deepEqual(rig.heard(), ['one']);
  rig.source.stopped();
  rig.source.resumed();
  rig.source.committed();
  rig.source.unchanged();
  rig.say(0, 'two');
  assert.deepEqual(rig.heard(), []);
  rig.source.alone();
  rig.say(0, 'three');
  await rig.time.pass(50);
  assert.deepEqual(rig.heard(), ['two', 'three']);
  assert.equal(rig.asks, 0);
  assert.deepEqual(rig.since(), ['checkpoint.committed 0', 'compare.alone 1']);
  await rig.compare.stop();
});

test('stopped, nothing of it is left to happen', async () => {
  const rig = await new Rig().start();
  rig.say(0, 'held');
  await stopped(rig);
  assert.deepEqual(rig.heard(), ['held']);
  assert.equal(rig.compare.path.slabsInUse, 0);
  await rig.time.pass(2000);
  assert.equal(rig.time.waiting, 0);
  assert.equal(rig.asks, 0);
});

/** Stopping waits for a consumer, by timers. */
async function stopped(rig: Rig): Promise<ReturnType<DropInCompare['report']>> {
  const stopping = rig.compare.stop();
  await rig.time.pass(10);
  return stopping;
}
