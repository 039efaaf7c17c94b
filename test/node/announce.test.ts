/** The primary announces its VM's addresses again when the former primary comes back, which may have spoken late. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Hello } from '../../src/link/link-protocol.ts';
import { AsPrimary } from '../../src/node/as-primary.ts';
import type { GuardedVm } from '../../src/node/guarded-vm.ts';
import { announcements } from '../../src/pair/announce.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { fakeParts } from './parts.ts';

const HELLO = { channel: 'data', node: 'a', role: 'candidate', generation: 3 } as Hello;

test('a primary announces its addresses when a candidate connects, until it is fenced', async () => {
  const { parts, time, dispatched } = fakeParts();
  const primary = AsPrimary.toBoot(parts, 1);
  Object.defineProperty(primary.vm, 'vm', { value: {} as GuardedVm });
  const sent: Uint8Array[] = [];
  primary.path.announce = (frame) => void sent.push(frame);
  const { primaryLink } = new TwoPaths();
  primaryLink.unlisten();
  primary.openSession(primaryLink, HELLO);
  assert.deepEqual(dispatched, [{ type: 'linkUp', peer: 'a' }]);
  await time.pass(300);
  primary.fence();
  await time.pass(600);
  const frames = announcements('52:54:00:12:34:56', ['10.0.2.15']);
  assert.equal(sent.length, 3 * frames.length);
  assert.deepEqual(sent.slice(0, frames.length), frames);
});
