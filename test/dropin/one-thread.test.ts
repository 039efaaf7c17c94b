/**
 * The rule of drop-in: there is no way from "we do not read X" to "X's reader cannot act". QEMU is one thread (one-thread.ts)
 * that may be anywhere when we do anything, so it must get on whatever was sent, read and asked before.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ComparePath } from '../../src/dropin/compare-path.ts';
import { QmpSource } from '../../src/dropin/qmp-source.ts';
import { RewritePath } from '../../src/dropin/rewrite-path.ts';
import { SvmWatch } from '../../src/dropin/svm-watch.ts';
import { unixEndpoint } from '../../src/endpoint.ts';
import { LIMITS, type Limits } from '../../src/limits.ts';
import { FakeTime, settled } from '../checkpoint/fake-time.ts';
import { udp } from '../compare/rig.ts';
import { OneThread } from './one-thread.ts';

const SMALL: Limits = {
  ...LIMITS,
  slabBytes: 80_000,
  slabsMax: 24,
  heldSlabsMax: 8,
  heldFramesMax: 128,
  heldFramesCheckpoint: 32,
  heldSecondaryMax: 16,
  turnFramesMax: 32,
  flowFramesMax: 12,
  asideFramesMax: 24,
  gatedBytesMax: 20_000,
  unsentBytesMax: 20_000,
  dropInUnsentBytesMax: 60_000,
};

/** Rounds in which the thread and the process take turns until both have nothing left to do. */
const ROUNDS_MAX = 2000;

const QMP = unixEndpoint('/absent/qmp');

type Act =
  | { kind: 'send'; port: number; frames: number; bytes: number }
  | { kind: 'thread' | 'process'; times: number }
  | { kind: 'checkpoint' | 'operator' | 'ask' | 'alone' };

const anyAct: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('send' as const),
      port: fc.nat(1),
      frames: fc.integer({ min: 1, max: 80 }),
      bytes: fc.oneof(fc.integer({ min: 4, max: 200 }), fc.integer({ min: 200, max: 9000 })),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom('thread' as const, 'process' as const),
      times: fc.integer({ min: 1, max: 60 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constantFrom(...(['checkpoint', 'checkpoint', 'operator', 'ask', 'alone'] as const)),
    }),
  },
);

const anySockets = fc.record({
  socketBytes: fc.constantFrom(600, 2000, 9000),
  readBytes: fc.constantFrom(1000, 4096),
});

/** A process that is played against the thread of its QEMU. */
type Played = {
  readonly thread: OneThread;
  readonly time: FakeTime;
  /** The two ports that the thread writes to. */
  readonly outputs: readonly [string, string];
  readonly slabsInUse: () => number;
  readonly ask: () => void;
  readonly close: () => void;
};

function act(played: Played, one: Act, counts: number[]): void {
  const { thread } = played;
  const { qmp } = thread;
  switch (one.kind) {
    case 'send': {
      const from = counts[one.port];
      counts[one.port] += one.frames;
      const frames = Array.from({ length: one.frames }, (_, i) =>
        udp(`${from + i} `.padEnd(one.bytes, '.'), 1 + ((from + i) % 3)),
      );
      thread.write(played.outputs[one.port], frames);
      break;
    }
    case 'thread':
      for (let i = 0; i < one.times; i++) thread.step();
      break;
    case 'process':
      for (let i = 0; i < one.times; i++) {
        thread.pump(4096);
        played.time.turn();
      }
      break;
    case 'ask':
      played.ask();
      break;
    case 'alone':
      thread.do(() => {
        qmp.mode = 'none';
        void qmp.emit('RESUME');
      });
      break;
    default: {
      const status = one.kind === 'checkpoint' ? 'colo' : 'paused';
      thread.do(() => {
        qmp.status = status;
        void qmp.emit('STOP');
      });
      thread.do(() => {
        qmp.status = 'running';
        void qmp.emit('RESUME');
      });
    }
  }
}

/** Plays the acts, and then lets both sides run: fails unless they come to an end. */
async function play(played: Played, acts: readonly Act[]): Promise<void> {
  const { thread, time } = played;
  const counts = [0, 0];
  for (const one of acts) {
    act(played, one, counts);
    assert.ok(played.slabsInUse() <= SMALL.slabsMax);
    await settled();
  }
  for (let round = 0; thread.unfinished !== null; round++) {
    assert.ok(round < ROUNDS_MAX, `QEMU stands still: ${thread.unfinished}`);
    for (let i = 0; i < 20; i++) {
      thread.step();
      thread.pump(4096);
      time.turn();
    }
    await settled();
  }
  played.close();
  assert.equal(played.slabsInUse(), 0);
}

test("compare: the one thread of the PVM's QEMU always gets on", async () => {
  const property = fc.asyncProperty(
    fc.array(anyAct, { maxLength: 30 }),
    anySockets,
    async (acts, sockets) => {
      const time = new FakeTime();
      const path = new ComparePath({
        framing: 'plain',
        phase: 'comparing',
        clock: time,
        timers: time,
        hashSeed: 1,
        events: { diverged: () => {}, dropping: () => {}, dropped: () => {} },
        limits: SMALL,
      });
      const ports = [path.primaryIn, path.secondaryIn, path.out];
      const thread = new OneThread({ ports, inputs: ['out'], ...sockets });
      thread.qmp.mode = 'primary';
      const source = new QmpSource(QMP, thread.qmp.connect, time, {
        stopped: () => path.pvmStopped(),
        resumed: () => path.pvmResumed(),
        unchanged: () => path.unchanged(),
        committed: () => path.commit(),
        alone: () => path.goAlone(),
        primary: () => {
          if (!path.isComparing) path.commit();
        },
        unknown: () => {},
        broken: () => {},
        note: () => {},
      });
      await source.start();
      await settled();
      await play(
        {
          thread,
          time,
          outputs: ['primary-in', 'secondary-in'],
          slabsInUse: () => path.slabsInUse,
          ask: () => source.ask(),
          close: () => {
            path.goAlone();
            const { primaryFrames, releasedFrames, droppedFrames } = path.counters;
            assert.equal(
              primaryFrames,
              releasedFrames + droppedFrames + path.drops.primary.frames + path.drops.out.frames,
              'every frame of the PVM is accounted for',
            );
            const numbers = thread
              .take('out')
              .map((frame) => Number.parseInt(frame.toString('latin1', 42), 10));
            assert.equal(new Set(numbers).size, numbers.length, 'no frame leaves twice');
            path.close();
            void source.close();
          },
        },
        acts,
      );
    },
  );
  await fc.assert(property, { numRuns: 100 });
});

test("rewrite: the one thread of the SVM's QEMU always gets on", async () => {
  const property = fc.asyncProperty(
    fc.array(anyAct, { maxLength: 30 }),
    anySockets,
    async (acts, sockets) => {
      const time = new FakeTime();
      const path = new RewritePath({
        framing: 'plain',
        phase: 'following',
        hashSeed: 1,
        timers: time,
        events: { dropping: () => {}, dropped: () => {} },
        limits: SMALL,
      });
      const ports = [path.in, path.guestIn, path.guestOut, path.out];
      const thread = new OneThread({ ports, inputs: ['guest-in', 'out'], ...sockets });
      const watch = new SvmWatch(QMP, thread.qmp.connect, time, {
        stopped: () => path.stop(),
        unchanged: () => path.unchanged(),
        waiting: () => path.wait(),
        committed: () => path.commit(),
        promoted: () => path.promote(),
        note: () => {},
      });
      watch.start();
      await settled();
      await play(
        {
          thread,
          time,
          outputs: ['in', 'guest-out'],
          slabsInUse: () => path.slabsInUse,
          ask: () => {},
          close: () => {
            const { inputFrames, droppedInput, outputFrames, droppedOutput } = path.counters;
            const { drops } = path;
            const input =
              thread.take('guest-in').length + droppedInput + drops.in.frames + drops.guestIn.frames;
            assert.equal(input, inputFrames, 'every frame of the clients is accounted for');
            const output =
              thread.take('out').length + droppedOutput + drops.guestOut.frames + drops.out.frames;
            assert.equal(output, outputFrames, 'every frame of the SVM is accounted for');
            path.close();
            watch.close();
          },
        },
        acts,
      );
    },
  );
  await fc.assert(property, { numRuns: 100 });
});
