/** A first copy that is complete, or fails, after its session has ended does not affect the next session. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError } from '../../src/error.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import type { ByteStream, KernelStream } from '../../src/io/byte-stream.ts';
import { LIMITS } from '../../src/limits.ts';
import { IGNORE_LINK, type LinkChannel } from '../../src/link/link-channel.ts';
import { type Hello, LINK_VERSION, MESSAGE } from '../../src/link/link-protocol.ts';
import { listenLink } from '../../src/link/link-setup.ts';
import { AsPrimary } from '../../src/node/as-primary.ts';
import { AsSecondary } from '../../src/node/as-secondary.ts';
import type { GuardedVm } from '../../src/node/guarded-vm.ts';
import { Scope } from '../../src/node/scope.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { type FakeStream, fakePair, pumpAll } from '../io/fake-stream.ts';
import { CONFIG } from './config-of-b.ts';
import { fakeParts, never } from './parts.ts';

const failure = new ColoError('COLO_QEMU_EXITED', 'QEMU ended');
const HELLO = { channel: 'data', node: 'a', role: 'candidate', generation: 3 } as Hello;

/** A candidate; the test plays its primary, which accepts both channels and records the control messages. */
async function candidate() {
  let failStart = () => {};
  const streams: FakeStream[] = [];
  const opened: { data?: LinkChannel; state?: ByteStream } = {};
  const received: number[] = [];
  const connect = async () => {
    const [near, far] = fakePair();
    streams.push(near, far);
    const listen = async (_: unknown, accept: (stream: KernelStream) => void) => {
      accept(far);
      return { close: async () => {} };
    };
    const host = {
      hello: (channel: Hello['channel']): Hello => ({
        version: LINK_VERSION,
        channel,
        pair: CONFIG.pair,
        node: 'a',
        generation: 0,
        role: 'primary',
        leaseMs: CONFIG.heartbeat.leaseMs,
      }),
      admit: { alone() {}, copy() {} },
      open: {
        alone: (link: LinkChannel) => {
          opened.data = link;
          link.listen({ ...IGNORE_LINK, control: ({ type }) => received.push(type) });
        },
        copy: (stream: ByteStream) => {
          opened.state = stream;
        },
      },
    };
    const transports = { connect: never, listen, unlink() {} };
    void listenLink(CONFIG.link.listen, new SlabPool(LIMITS.slabBytes, 4), host, {
      timers: time,
      transports,
    });
    return near;
  };
  const { parts, time, dispatched } = fakeParts({
    launcher: {
      start: () =>
        new Promise((_, reject) => {
          failStart = () => reject(failure);
        }),
    },
    transports: { connect },
  });
  const pump = async () => {
    for (let i = 0; i < 10; i++) {
      pumpAll(...streams);
      await time.pass(1);
    }
  };
  const secondary = new AsSecondary(parts);
  void secondary.dial(new Scope(parts.scope));
  await pump();
  const { data } = opened;
  assert.ok(data !== undefined);
  const startSync = async () => {
    data.send(MESSAGE.startSync, { generation: 1, channels: ['state'] });
    await pump();
  };
  const types = () => dispatched.map(({ type }) => type);
  return { secondary, data, opened, received, startSync, failStart: () => failStart(), pump, types, streams };
}

test('a failed copy is reported and dispatched, unless its session has ended', async () => {
  for (const late of [false, true]) {
    const { data, received, startSync, failStart, pump, types } = await candidate();
    await startSync();
    if (late) data.close();
    await pump();
    failStart();
    await pump();
    assert.deepEqual(received, late ? [] : [MESSAGE.failed]);
    assert.deepEqual(types(), ['linkUp', 'syncAsked', late ? 'linkLost' : 'syncFailed']);
  }
});

test('a copy begins, unless its session has ended', async () => {
  for (const late of [false, true]) {
    const { secondary, data, opened, received, startSync, pump, streams } = await candidate();
    const [qemu] = fakePair();
    const waiting = Promise.withResolvers<void>();
    secondary.vm.start = async () =>
      ({
        colo: { prepare: () => waiting.promise },
        openIncoming: async () => ({ state: qemu }),
      }) as unknown as GuardedVm;
    await startSync();
    if (late) data.close();
    await pump();
    waiting.resolve();
    await pump();
    assert.deepEqual(received, late ? [] : [MESSAGE.syncReady]);
    assert.ok(opened.state !== undefined);
    assert.deepEqual([qemu.open, streams[2].open], [!late, !late], 'streams that no session uses are closed');
  }
});

test('a primary whose copy fails ends the session of that copy, and no later one', async () => {
  for (const late of [false, true]) {
    const { parts, time, dispatched } = fakeParts();
    const primary = AsPrimary.toBoot(parts, 1);
    const copied = Promise.withResolvers<void>();
    Object.defineProperty(primary.vm, 'vm', {
      value: { colo: { resetAfterFailover: () => copied.promise } },
    });
    const [first, second] = [new TwoPaths().primaryLink, new TwoPaths().primaryLink];
    for (const link of [first, second]) link.unlisten();
    primary.openSession(first, HELLO);
    const copy = primary.copy(1);
    if (late) {
      first.close();
      primary.openSession(second, HELLO);
    }
    copied.reject(failure);
    await copy;
    await time.pass(1);
    assert.equal(first.isOpen, false);
    assert.equal(primary.session?.link, late ? second : undefined);
    assert.equal(second.isOpen, true);
    assert.deepEqual(
      dispatched.at(-1),
      late ? { type: 'linkUp', peer: 'a' } : { type: 'linkLost', cause: 'QEMU ended' },
    );
  }
});
