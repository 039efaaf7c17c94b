import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Hello } from '../../src/link/link-protocol.ts';
import { AsPrimary } from '../../src/node/as-primary.ts';
import { statusOf } from '../../src/node/status.ts';
import { newPair } from '../../src/pair/machine.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { candidate } from './candidate.ts';
import { FakeLauncher } from './fake-launcher.ts';
import { fakeParts } from './parts.ts';

const HELLO = { channel: 'data', node: 'a', role: 'candidate', generation: 3 } as Hello;

test('a node without a role shows no VM, no epoch and no connection', () => {
  const { parts, time } = fakeParts();
  assert.partialDeepStrictEqual(statusOf(parts, newPair('b', true), null, time.now()), {
    node: 'b',
    pair: 'test',
    role: null,
    phase: 'starting',
    generation: 0,
    epoch: 0,
    voice: { state: 'silent' },
    peer: { name: null, connected: false, lastHeardMs: null, summary: null },
    vm: { running: false, pid: null, qemu: null, accel: null },
    held: { frames: 0, bytes: 0, oldestMs: 0 },
    flows: { tcp: 0, other: 0, translated: 0 },
    failover: null,
  });
});

test('a fenced node shows no VM and no path, but the link that is still open', async () => {
  const launcher = new FakeLauncher();
  const { parts, time } = fakeParts({ launcher, transports: { connect: launcher.connect } });
  const primary = AsPrimary.toBoot(parts, 3);
  await primary.boot(1);
  const { primaryLink } = new TwoPaths();
  primaryLink.unlisten();
  primary.openSession(primaryLink, HELLO);
  await time.pass(40);
  primary.path.counters.inputFrames = 5;
  const pair = newPair('b', true);
  pair.stored = { revision: 7, record: { generation: 3, state: 'pair', primary: 'b', secondary: 'a' } };
  pair.state = { name: 'primary', peer: 'a' };
  const peer = { name: 'a', connected: true, lastHeardMs: 40 };
  assert.partialDeepStrictEqual(statusOf(parts, pair, primary, time.now()), {
    role: 'primary',
    phase: 'protected',
    generation: 3,
    voice: { state: 'alone' },
    peer,
    vm: { running: true, pid: 4711, qemu: '11.1.0', accel: 'kvm' },
    traffic: { inputFrames: 5 },
  });

  primary.fence();
  pair.state = { name: 'fenced', why: 'yielded to a' };
  assert.partialDeepStrictEqual(statusOf(parts, pair, primary, time.now()), {
    role: null,
    phase: 'fenced',
    generation: 3,
    voice: { state: 'fenced' },
    epoch: 0,
    peer,
    vm: { running: false, pid: null, qemu: null, accel: null },
    traffic: { inputFrames: 0 },
  });
});

test('a candidate shows when the primary’s latest heartbeat arrived, until the link closes', async () => {
  const { secondary, parts, time, data, pump } = await candidate();
  const pair = newPair('b', true);
  const peerOf = () => statusOf(parts, pair, secondary, time.now()).peer;
  const lastHeardMs = time.now() - (secondary.session?.promise.lastHeardMs ?? 0);
  assert.ok(lastHeardMs > 0);
  assert.deepEqual(peerOf(), { name: 'a', connected: true, lastHeardMs, summary: null });
  data.close();
  await pump();
  assert.deepEqual(peerOf(), { name: 'a', connected: false, lastHeardMs: null, summary: null });
});
