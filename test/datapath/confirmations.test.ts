/** When the secondary learns what clients have: with the next input, or soon. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONFIRM_BYTES_MAX, CONFIRM_MS_MAX } from '../../src/datapath/confirmations.ts';
import { ACK, CLIENT_ADDRESS, CLIENT_MAC, SYN, tcpFrame, udpFrame, VM_ADDRESS, VM_MAC } from '../frames.ts';
import { TwoPaths } from './two-paths.ts';

const ISN = { pvm: 1000, svm: 9000 };
const CLIENT_ISN = 500;

const fromClient = (flags: number, ack = 0) =>
  tcpFrame({
    ...{ source: CLIENT_ADDRESS[4], destination: VM_ADDRESS[4], sourcePort: 40_000, destinationPort: 80 },
    ...{ seq: flags === SYN ? CLIENT_ISN : CLIENT_ISN + 1, ack, flags },
  });

const fromVm = (vm: 'pvm' | 'svm', place: number, bytes: number, flags = ACK) =>
  tcpFrame({
    ...{
      sourceMac: VM_MAC,
      destinationMac: CLIENT_MAC,
      source: VM_ADDRESS[4],
      destination: CLIENT_ADDRESS[4],
    },
    ...{ sourcePort: 80, destinationPort: 40_000, seq: ISN[vm] + place, ack: CLIENT_ISN + 1, flags },
    payload: Buffer.alloc(bytes, 7),
  });

/** A pair with an open connection, and nothing to confirm. */
function opened(): TwoPaths {
  const pair = new TwoPaths();
  pair.checkpoint();
  pair.client.write(fromClient(SYN));
  pair.settle();
  for (const vm of ['pvm', 'svm'] as const) pair[vm].write(fromVm(vm, 0, 0, SYN | ACK));
  pair.settle();
  pair.client.write(fromClient(ACK, ISN.pvm + 1));
  pair.pass(CONFIRM_MS_MAX);
  assert.equal(pair.secondary.retainedFrames, 0);
  pair.client.receivedFrames();
  return pair;
}

function reply(pair: TwoPaths, place: number, bytes: number): void {
  for (const vm of ['pvm', 'svm'] as const) pair[vm].write(fromVm(vm, place, bytes));
  pair.settle();
}

test('a reply by TCP is confirmed with the next input', () => {
  const pair = opened();
  reply(pair, 1, 100);
  assert.equal(pair.secondary.retainedFrames, 1, 'no message for it alone');
  pair.client.write(fromClient(ACK, ISN.pvm + 101));
  pair.settle();
  assert.equal(pair.secondary.retainedFrames, 0);
  pair.assertNoLeak();
});

test(`without input, replies by TCP are confirmed within ${CONFIRM_MS_MAX} ms of the first`, () => {
  const pair = opened();
  reply(pair, 1, 100);
  pair.pass(CONFIRM_MS_MAX / 2);
  reply(pair, 101, 100);
  assert.equal(pair.secondary.retainedFrames, 2);
  pair.pass(CONFIRM_MS_MAX / 2);
  assert.equal(pair.secondary.retainedFrames, 0);
  reply(pair, 201, 100);
  pair.pass(CONFIRM_MS_MAX - 1);
  assert.equal(pair.secondary.retainedFrames, 1);
  pair.pass(1);
  assert.equal(pair.secondary.retainedFrames, 0, 'and so is the next one');
  pair.assertNoLeak();
});

function datagram(pair: TwoPaths): void {
  const frame = udpFrame({
    ...{
      sourceMac: VM_MAC,
      destinationMac: CLIENT_MAC,
      source: VM_ADDRESS[4],
      destination: CLIENT_ADDRESS[4],
    },
    ...{ sourcePort: 53, destinationPort: 4000, payload: Buffer.from('reply') },
  });
  pair.svm.write(frame);
  pair.pvm.write(frame);
  pair.settle();
}

test('much that was released is confirmed at once', () => {
  const pair = opened();
  let place = 1;
  for (const bytes = 1400; place + bytes < CONFIRM_BYTES_MAX; place += bytes) reply(pair, place, bytes);
  assert.notEqual(pair.secondary.retainedFrames, 0);
  reply(pair, place, 1400);
  assert.equal(pair.secondary.retainedFrames, 0);
});

test('a datagram is confirmed at once, with what waits', () => {
  const pair = opened();
  reply(pair, 1, 100);
  datagram(pair);
  assert.equal(pair.secondary.retainedFrames, 0);
});

test('nothing is confirmed that the uplink has not taken', () => {
  const pair = opened();
  pair.client.near.stalled = true;
  reply(pair, 1, 100);
  pair.client.write(fromClient(ACK, ISN.pvm + 1));
  pair.pass(2 * CONFIRM_MS_MAX);
  assert.equal(pair.secondary.retainedFrames, 1);
  pair.client.near.unstall();
  pair.settle();
  pair.pass(CONFIRM_MS_MAX);
  assert.equal(pair.secondary.retainedFrames, 0);
});

test('nothing is confirmed of which the write failed, or that waits when the uplink ends', async () => {
  for (const how of ['failing', 'stalled'] as const) {
    const pair = opened();
    pair.client.near[how] = true;
    datagram(pair);
    await Promise.resolve();
    pair.settle();
    assert.equal(pair.secondary.retainedFrames, 1, how);
    pair.ports.uplink.close();
    pair.settle();
    pair.pass(2 * CONFIRM_MS_MAX);
    assert.equal(pair.secondary.retainedFrames, 1, `${how}: a promotion sends it`);
  }
});
