/** A first copy that is done, or fails, when its session has ended: the next session's copy goes on. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ColoError } from '../../src/error.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import type { KernelStream } from '../../src/io/byte-stream.ts';
import { LIMITS } from '../../src/limits.ts';
import { LINK_VERSION, MESSAGE } from '../../src/link/link-protocol.ts';
import { type LinkHost, listenLink } from '../../src/link/link-setup.ts';
import { ColoNode } from '../../src/node/node.ts';
import type { Pair } from '../../src/pair/machine.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { fakePair, pumpAll } from '../io/fake-stream.ts';
import { CONFIG } from './config-of-b.ts';

const never = () => new Promise<never>(() => {});
const failure = new ColoError('COLO_QEMU_EXITED', 'QEMU ended');

/** A session as far as a copy needs one; `closed` is why it was ended. */
class Session {
  readonly link = new TwoPaths().secondaryLink;
  readonly closed: string[] = [];
  fail: () => void = () => {};

  begun = 0;

  begin(): void {
    this.begun++;
  }

  close(cause: string): void {
    this.closed.push(cause);
  }

  sync(): Promise<void> {
    return new Promise((_, reject) => {
      this.fail = () => reject(failure);
    });
  }
}

type Inside = {
  pair: Pair;
  vm: unknown;
  primarySession: Session | null;
  secondarySession: Session | null;
  startVm(incoming: boolean): Promise<unknown>;
  receiveCopy(session: Session, channels: string[]): Promise<void>;
  startSync(): Promise<void>;
};

function make() {
  const time = new FakeTime();
  let failStart = () => {};
  const [near, far] = fakePair();
  const connect = async () => {
    const listen = async (_: unknown, accept: (stream: KernelStream) => void) => {
      accept(far);
      return { close: async () => {} };
    };
    const transports = { connect: never, listen, unlink() {} };
    const host: LinkHost = {
      hello: (channel) => ({
        version: LINK_VERSION,
        channel,
        pair: CONFIG.pair,
        node: 'a',
        generation: 0,
        role: 'primary',
        leaseMs: CONFIG.heartbeat.leaseMs,
      }),
      admit: { alone() {}, copy() {} },
      open: { data() {}, state() {} },
    };
    const slabs = new SlabPool(LIMITS.slabBytes, 4);
    void listenLink(CONFIG.link.listen, slabs, host, { timers: time, transports });
    return near;
  };
  const node = new ColoNode({
    config: CONFIG,
    arbiter: { read: never, compareAndSwap: never },
    events: { emit() {} },
    surroundings: { clock: time, timers: time, transports: { connect, listen: never, unlink() {} } },
    launcher: {
      probeExitWithParent: async () => true,
      start: () =>
        new Promise((_, reject) => {
          failStart = () => reject(failure);
        }),
      connectQmp: never,
    },
    hashSeed: 1,
  });
  const pump = async () => {
    for (let i = 0; i < 10; i++) {
      pumpAll(near, far);
      await time.pass(1);
    }
  };
  return { time, inside: node as unknown as Inside, failStart: () => failStart(), pump, near };
}

test('a secondary whose copy fails starts again, but not for a copy of a session that has ended', async () => {
  for (const late of [false, true]) {
    const { time, inside, failStart } = make();
    const [first, second] = [new Session(), new Session()];
    const told: string[] = [];
    first.link.send = (type) => void told.push(String(type));
    inside.pair.state = { name: 'copying' };
    inside.secondarySession = first;
    const copy = inside.receiveCopy(first, ['state']);
    await time.pass(10);
    if (late) inside.secondarySession = second;
    failStart();
    await copy;
    assert.deepEqual(told, [String(MESSAGE.failed)]);
    assert.equal(inside.pair.state.name, late ? 'copying' : 'starting');
    assert.deepEqual([first.closed.length, second.closed.length], late ? [0, 0] : [1, 0]);
  }
});

test('a copy begins, but not with a session that has ended', async () => {
  for (const late of [false, true]) {
    const { inside, pump, near } = make();
    const [first, second] = [new Session(), new Session()];
    const [qemu] = fakePair();
    inside.startVm = async () => ({
      colo: { prepare: async () => {} },
      openIncoming: async () => ({ state: qemu }),
    });
    inside.pair.state = { name: 'copying' };
    inside.secondarySession = first;
    const copy = inside.receiveCopy(first, ['state']);
    if (late) inside.secondarySession = second;
    await pump();
    await copy;
    assert.deepEqual([first.begun, second.begun], [late ? 0 : 1, 0]);
    assert.deepEqual([qemu.open, near.open], [!late, !late], 'what nobody uses is closed');
  }
});

test('a primary whose copy fails ends the session that it was for', async () => {
  for (const late of [false, true]) {
    const { time, inside } = make();
    const [first, second] = [new Session(), new Session()];
    inside.pair.state = { name: 'syncing', peer: 'a' };
    inside.vm = { colo: { resetAfterFailover: async () => {} } };
    inside.primarySession = first;
    const copy = inside.startSync();
    await time.pass(1);
    if (late) inside.primarySession = second;
    first.fail();
    await copy;
    assert.deepEqual(first.closed, ['QEMU ended']);
    assert.deepEqual(second.closed, []);
    assert.equal(inside.pair.state.name, 'syncing');
  }
});
