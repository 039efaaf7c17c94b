import assert from 'node:assert/strict';
import { ColoError } from '../../src/error.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import type { ByteStream, KernelStream } from '../../src/io/byte-stream.ts';
import { LIMITS } from '../../src/limits.ts';
import { IGNORE_LINK, type LinkChannel } from '../../src/link/link-channel.ts';
import { type Hello, LINK_VERSION, MESSAGE } from '../../src/link/link-protocol.ts';
import { listenLink } from '../../src/link/link-setup.ts';
import { AsSecondary } from '../../src/node/as-secondary.ts';
import { Scope } from '../../src/node/scope.ts';
import { type FakeStream, fakePair, pumpAll } from '../io/fake-stream.ts';
import { CONFIG } from './config-of-b.ts';
import { fakeParts, never } from './parts.ts';

/** A candidate; the test plays its primary, which accepts both channels and records the control messages. */
export async function candidate() {
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
          link.listen({
            ...IGNORE_LINK,
            control: ({ type }) => type !== MESSAGE.uplink && received.push(type),
          });
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
          failStart = () => reject(new ColoError('COLO_QEMU_EXITED', 'QEMU ended'));
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
  return {
    secondary,
    parts,
    time,
    dispatched,
    data,
    opened,
    received,
    startSync,
    failStart: () => failStart(),
    pump,
    types,
    streams,
  };
}
