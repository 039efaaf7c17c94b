/** The network is told again where the VM is when the former primary comes back: it may have spoken late. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Hello } from '../../src/link/link-protocol.ts';
import { ColoNode } from '../../src/node/node.ts';
import { announcements } from '../../src/pair/announce.ts';
import type { Pair } from '../../src/pair/machine.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { CONFIG } from './config-of-b.ts';

const HELLO = { channel: 'data', node: 'a', role: 'candidate', generation: 3 } as Hello;
const never = () => new Promise<never>(() => {});

type Inside = {
  pair: Pair;
  vm: unknown;
  path: TwoPaths['primary'];
  openPrimarySession(channel: TwoPaths['primaryLink'], hello: Hello): void;
};

test('a candidate that connects has the addresses announced', async () => {
  const time = new FakeTime();
  const paths = new TwoPaths();
  const node = new ColoNode({
    config: CONFIG,
    arbiter: { read: never, compareAndSwap: never },
    events: { emit() {} },
    surroundings: { clock: time, timers: time, transports: { connect: never, listen: never, unlink() {} } },
    hashSeed: 1,
  });
  const inside = node as unknown as Inside;
  inside.pair.state = { name: 'alone', peer: null };
  inside.vm = { colo: { resetAfterFailover: never } };
  inside.path = paths.primary;
  const said: Uint8Array[] = [];
  paths.primary.announce = (frame) => void said.push(frame);
  inside.openPrimarySession(paths.primaryLink, HELLO);
  assert.equal(inside.pair.state.name, 'syncing');
  await time.pass(900);
  const frames = announcements('52:54:00:12:34:56', ['10.0.2.15']);
  assert.equal(said.length, 5 * frames.length);
  assert.deepEqual(said.slice(0, frames.length), frames);
});
