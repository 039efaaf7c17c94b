/** When a primary announces where its VM is, and asks it for its multicast groups. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Hello } from '../../src/link/link-protocol.ts';
import { AsPrimary } from '../../src/node/as-primary.ts';
import type { GuardedVm } from '../../src/node/guarded-vm.ts';
import { announcements, withConfigured } from '../../src/pair/announce.ts';
import { membershipQueries } from '../../src/pair/membership-query.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import { arpFrame, VM_MAC } from '../frames.ts';
import { fakeParts } from './parts.ts';

const HELLO = { channel: 'data', node: 'a', role: 'candidate', generation: 3 } as Hello;

function begun() {
  const { parts, time, dispatched } = fakeParts();
  const primary = AsPrimary.toBoot(parts, 1);
  Object.defineProperty(primary.vm, 'vm', { value: {} as GuardedVm });
  const sent: Uint8Array[] = [];
  const asked: Uint8Array[] = [];
  primary.path.own.announce = (frame) => void sent.push(frame);
  primary.path.own.input = (frames) => void asked.push(...frames);
  return { parts, time, dispatched, primary, sent, asked };
}

const frames = announcements(VM_MAC, withConfigured([{ tags: [], addresses: [] }], ['10.0.2.15']));

test('a primary announces its addresses when a candidate connects, until it is fenced', async () => {
  const { time, dispatched, primary, sent, asked } = begun();
  const { primaryLink } = new TwoPaths();
  primaryLink.unlisten();
  primary.openSession(primaryLink, HELLO);
  assert.deepEqual(dispatched, [{ type: 'linkUp', peer: 'a' }]);
  await time.pass(300);
  primary.fence();
  await time.pass(600);
  assert.equal(sent.length, 3 * frames.length);
  assert.deepEqual(sent.slice(0, frames.length), frames);
  const queries = membershipQueries([{ tags: [], addresses: [] }]);
  assert.deepEqual(asked, [...queries, ...queries, ...queries]);
});

test('each uplink that comes up begins the rounds again, for each VLAN that is known by then', async () => {
  const { parts, time, primary, sent, asked } = begun();
  primary.uplinkUp();
  await time.pass(100);
  assert.equal(sent.length, 2 * frames.length);
  primary.uplinkUp();
  await time.pass(5000);
  assert.equal(sent.length, (2 + 7) * frames.length, 'the rounds that were under way are over');
  sent.length = 0;
  asked.length = 0;
  const tagged = arpFrame({ sourceMac: VM_MAC, source: '10.9.0.1', tags: [{ id: 9 }] });
  parts.places.sent(tagged, 0, tagged.length);
  primary.uplinkUp();
  await time.pass(0);
  assert.equal(sent.length, frames.length + 2);
  assert.equal(asked.length, 4);
});
