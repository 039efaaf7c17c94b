/** Rules come into force while nothing is held: alone at once, else with the next commit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ACK, CLIENT_ADDRESS, CLIENT_MAC, tcpFrame, VM_ADDRESS, VM_MAC } from '../frames.ts';
import { TwoPaths } from './two-paths.ts';

const UDP_53 = { match: { protocol: 17, port: 53, client: null }, exempt: true } as const;

test('what is held when its flow becomes exempt leaves with the commit, and what comes after it at once', () => {
  const pair = new TwoPaths();
  pair.checkpoint();
  const { primary } = pair;
  pair.pvm.send('held');
  pair.settle();
  const inForce: string[] = [];
  primary.useRules([UDP_53], () => inForce.push('now'));
  assert.equal(primary.pressure(), 'requested');
  pair.pvm.send('still held');
  pair.settle();
  assert.deepEqual([pair.client.received(), inForce], [[], []]);
  pair.checkpoint();
  assert.deepEqual(inForce, ['now']);
  assert.equal(primary.pressure(), null);
  pair.settle();
  assert.deepEqual(pair.client.received(), ['held', 'still held']);
  pair.pvm.send('exempt');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['exempt']);
  assert.equal(primary.releasedBy.exempt, 1);
});

test('a flow that is exempt no longer is held and compared from the commit on', () => {
  const pair = new TwoPaths();
  pair.primary.useRules([UDP_53], () => {});
  pair.checkpoint();
  pair.pvm.send('leaves');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['leaves']);
  pair.primary.useRules([], () => {});
  pair.checkpoint();
  pair.pvm.send('held');
  pair.settle();
  assert.deepEqual(pair.client.received(), []);
  pair.svm.send('held');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['held']);
});

test('alone, rules are in force at once, and so they are when a primary goes alone', () => {
  const pair = new TwoPaths();
  const { primary } = pair;
  const inForce: number[] = [];
  primary.useRules([UDP_53], () => inForce.push(1));
  assert.deepEqual(inForce, [1]);
  pair.checkpoint();
  primary.useRules([], () => inForce.push(2));
  assert.deepEqual(inForce, [1]);
  primary.goAlone(7);
  assert.deepEqual(inForce, [1, 2]);
});

test('input that waits for the SVM in a flow goes on before new rules forget the flow', () => {
  const pair = new TwoPaths();
  pair.checkpoint();
  const { primary } = pair;
  const ports = { sourcePort: 80, destinationPort: 40_000 };
  const payload = Buffer.from('a');
  const fromVm = {
    sourceMac: VM_MAC,
    destinationMac: CLIENT_MAC,
    source: VM_ADDRESS[4],
    destination: CLIENT_ADDRESS[4],
  };
  pair.pvm.write(tcpFrame({ ...fromVm, ...ports, seq: 1000, ack: 500, flags: ACK, payload }));
  pair.settle();
  pair.client.write(
    tcpFrame({ sourcePort: 40_000, destinationPort: 80, seq: 500, ack: 1000, flags: ACK, payload }),
  );
  pair.settle();
  assert.deepEqual([primary.catchUp.status.caughtUpFrames, pair.pvm.received().length], [0, 0]);
  primary.useRules([{ match: { protocol: 6, port: 80, client: null }, exempt: true }], () => {});
  pair.checkpoint();
  pair.settle();
  assert.equal(primary.catchUp.status.caughtUpFrames, 1);
  assert.equal(pair.pvm.received().length, 1);
  assert.equal(primary.comparator.flowCount, 0);
});
