/** An SVM whose neighbour entry has expired, while the PVM's is fresh, goes on answering. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { address, CLIENT_ADDRESS, CLIENT_MAC, ethernet, mac, u16, VM_ADDRESS, VM_MAC } from '../frames.ts';
import { TwoPaths } from './two-paths.ts';

function arp(operation: 1 | 2): Buffer {
  const [vm, client] = [
    Buffer.concat([mac(VM_MAC), address(VM_ADDRESS[4])]),
    Buffer.concat([mac(CLIENT_MAC), address(CLIENT_ADDRESS[4])]),
  ];
  const head = u16(1, 0x0800, 0x0604, operation);
  return operation === 1
    ? ethernet(0x0806, Buffer.concat([head, vm, Buffer.alloc(6), client.subarray(6)]), {
        sourceMac: VM_MAC,
        destinationMac: 'ff:ff:ff:ff:ff:ff',
      })
    : ethernet(0x0806, Buffer.concat([head, client, vm]), { sourceMac: CLIENT_MAC, destinationMac: VM_MAC });
}

test('an SVM that has forgotten its client asks for it, and its answer matches without a checkpoint', () => {
  const pair = new TwoPaths();
  pair.checkpoint();
  pair.client.send('question');
  pair.settle();
  pair.pvm.send('answer');
  pair.svm.write(arp(1));
  pair.settle();
  assert.deepEqual(pair.client.receivedFrames(), [], 'the SVM cannot answer yet');
  assert.equal(pair.secondary.retainedFrames, 1);
  pair.nowMs += 50;
  pair.primary.releaseDue(pair.clock.now());
  pair.settle();
  assert.deepEqual(pair.client.receivedFrames(), [arp(1)], 'its question leaves by the primary’s uplink');
  assert.deepEqual(pair.secondaryNetwork.receivedFrames(), [], 'and by no other');
  assert.equal(pair.secondary.retainedFrames, 0, 'a promotion would not send it again');
  pair.pvm.received();
  pair.svm.received();
  pair.client.write(arp(2));
  pair.settle();
  assert.deepEqual(pair.pvm.receivedFrames(), [arp(2)]);
  assert.deepEqual(pair.svm.receivedFrames(), [arp(2)], 'the reply goes to both VMs');
  pair.svm.send('answer');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['answer']);
  pair.assertNoLeak();
});

test('a primary that may not speak releases no question', () => {
  const pair = new TwoPaths();
  pair.checkpoint();
  pair.svm.write(arp(1));
  pair.settle();
  pair.nowMs += 50;
  pair.voice.fence();
  pair.primary.releaseDue(pair.clock.now());
  pair.settle();
  assert.deepEqual(pair.client.receivedFrames(), []);
  pair.primary.fence();
});
