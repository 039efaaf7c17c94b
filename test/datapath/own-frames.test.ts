/** Frames that the primary's node makes: announcements leave only while it may speak, queries are input of both VMs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LIMITS } from '../../src/limits.ts';
import { announcements } from '../../src/pair/announce.ts';
import { membershipQueries } from '../../src/pair/membership-query.ts';
import { ethernet, ipv4, VM_ADDRESS, VM_MAC } from '../frames.ts';
import { TwoPaths } from './two-paths.ts';

const QUERIES = membershipQueries([{ tags: [], addresses: [] }]);
const [ANNOUNCEMENT] = announcements(VM_MAC, [{ tags: [], addresses: [] }]);
const FRAMES = QUERIES.map((message) => Buffer.from(message.subarray(4)));
/** An IGMPv2 report of 239.7.7.7. */
const REPORT = ethernet(
  0x0800,
  ipv4(
    { source: VM_ADDRESS[4], destination: '239.7.7.7', protocol: 2, ttl: 1, options: [0x94, 4, 0, 0] },
    Buffer.from([0x16, 0, 0xf3, 0xf0, 239, 7, 7, 7]),
  ),
  { sourceMac: VM_MAC, destinationMac: '01:00:5e:07:07:07' },
);

test('both VMs get a query, in order with what clients send, and the report of one leaves at once', () => {
  const pair = new TwoPaths();
  pair.checkpoint();
  pair.client.send('before');
  pair.settle();
  pair.primary.own.input(QUERIES);
  pair.client.send('after');
  pair.settle();
  const [pvm, svm] = [pair.pvm.receivedFrames(), pair.svm.receivedFrames()];
  assert.deepEqual(pvm.slice(1, 3), FRAMES);
  assert.equal(pvm.length, 4);
  assert.deepEqual(svm, pvm);
  pair.svm.write(REPORT);
  pair.settle();
  assert.deepEqual(pair.client.receivedFrames(), [], 'the report of the SVM is dropped');
  pair.pvm.write(REPORT);
  pair.settle();
  assert.deepEqual(pair.client.receivedFrames(), [REPORT]);
  assert.deepEqual(pair.diverged, []);
  assert.equal(pair.primary.comparator.primary.frames, 0);
  pair.assertNoLeak();
});

test('a query waits at the gate like all input, and reaches both VMs after the checkpoint', () => {
  const pair = new TwoPaths();
  pair.checkpoint();
  pair.primary.closeGate();
  pair.primary.own.input(QUERIES);
  pair.settle();
  assert.deepEqual(pair.pvm.receivedFrames(), []);
  pair.commitSecondary();
  pair.primary.commit(pair.primaryLink);
  pair.primary.openGate();
  pair.settle();
  assert.deepEqual(pair.pvm.receivedFrames(), FRAMES);
  assert.deepEqual(pair.svm.receivedFrames(), FRAMES);
  pair.assertNoLeak();
});

test('a lone VM is asked too, and one that was fenced is not', () => {
  const pair = new TwoPaths();
  pair.primary.own.input(QUERIES);
  pair.settle();
  assert.deepEqual(pair.pvm.receivedFrames(), FRAMES);
  pair.voice.fence();
  pair.primary.own.input(QUERIES);
  pair.settle();
  assert.deepEqual(pair.pvm.receivedFrames(), []);
  pair.assertNoLeak();
});

test('without a free slab a query is left out', () => {
  const pair = new TwoPaths();
  const { primarySlabs } = pair;
  const taken = [];
  while (primarySlabs.inUse < primarySlabs.slabsMax) taken.push(primarySlabs.acquire());
  pair.primary.own.input(QUERIES);
  for (const slab of taken) primarySlabs.unref(slab);
  pair.settle();
  assert.deepEqual(pair.pvm.receivedFrames(), []);
});

test('queries that the VMs do not read take one slab', () => {
  const pair = new TwoPaths();
  pair.checkpoint();
  for (const vm of [pair.pvm, pair.svm]) vm.near.stalled = true;
  const before = pair.primarySlabs.inUse;
  for (let round = 0; round < 100; round++) {
    pair.primary.own.input(QUERIES);
    pair.settle();
  }
  assert.equal(pair.primarySlabs.inUse - before, 1);
  for (const vm of [pair.pvm, pair.svm]) vm.near.unstall();
  pair.settle();
  const read = pair.pvm.receivedFrames();
  assert.deepEqual(read.slice(-2), FRAMES);
  assert.equal(read.length, 200);
  assert.deepEqual(pair.svm.receivedFrames(), read);
  pair.assertNoLeak();
});

test('under a lease an announcement is left out while the uplink has not taken what was written before', () => {
  const pair = new TwoPaths();
  pair.checkpoint();
  pair.voice.lease(pair.nowMs + 1000);
  pair.client.near.stalled = true;
  pair.pvm.write(REPORT);
  pair.settle();
  const { queuedBytes } = pair.ports.uplink;
  assert.ok(queuedBytes > 0);
  pair.primary.own.announce(ANNOUNCEMENT);
  assert.equal(pair.ports.uplink.queuedBytes, queuedBytes);
  pair.client.near.unstall();
  pair.primary.own.announce(ANNOUNCEMENT);
  assert.deepEqual(pair.client.receivedFrames(), [REPORT, Buffer.from(ANNOUNCEMENT.subarray(4))]);
  pair.assertNoLeak();
});

test('a lone VM is announced behind what waits, until that is as much as may wait', () => {
  const pair = new TwoPaths();
  pair.client.near.stalled = true;
  const large = Buffer.alloc(1 << 20);
  for (let count = 0; count < 20; count++) pair.primary.own.announce(large);
  assert.equal(pair.ports.uplink.queuedBytes, LIMITS.unsentBytesMax + large.length);
});
