import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MigrationRelay } from '../../src/checkpoint/migration-relay.ts';
import { u16, u32 } from '../frames.ts';
import { fakePair, pumpAll } from '../io/fake-stream.ts';

const REQUEST = u32(1);

function relay(side: 'primary' | 'secondary', disks: 'disks' | 'no-disks' = 'no-disks') {
  const [qemu, qemuNear] = fakePair();
  const [peer, peerNear] = fakePair();
  const log: string[] = [];
  const one = new MigrationRelay(side, qemuNear, peerNear, {
    message: (message) => log.push(message),
    request: () => log.push('request'),
    ...(disks === 'disks' ? { state: () => log.push('state') } : {}),
    closed: (cause) => log.push(cause === null ? 'closed' : ((cause as { code?: string }).code ?? 'error')),
  });
  one.start();
  const settle = () => pumpAll(qemuNear, peerNear);
  /** Returns what an end has received since the last call, as hex. */
  const receivedBy = (end: typeof qemu) => {
    const hex = end.inbox.toString('hex');
    end.inbox = Buffer.alloc(0);
    return hex;
  };
  return { qemu, peer, qemuNear, peerNear, relay: one, log, settle, receivedBy };
}

test('a REQUEST may arrive in pieces', () => {
  const { qemu, peer, qemuNear, log, relay: one, settle, receivedBy } = relay('primary');
  peer.write(u32(0), () => {});
  settle();
  one.pass('ready');
  log.length = 0;
  qemu.write(REQUEST, () => {});
  for (let i = 0; i < 4; i++) {
    assert.deepEqual(log, []);
    qemuNear.pump(1);
  }
  assert.deepEqual(log, ['request']);
  one.passRequest();
  assert.equal(receivedBy(peer), '00000001');
});

test('primary: state is copied at once; messages and REQUEST wait until they are passed on', () => {
  const { qemu, peer, relay: one, log, settle, receivedBy } = relay('primary');
  qemu.write(Buffer.from('state'), () => {});
  peer.write(Buffer.concat([u16(4, 2), Buffer.from([1, 2]), u32(0)]), () => {});
  settle();
  assert.equal(receivedBy(peer), Buffer.from('state').toString('hex'));
  assert.equal(receivedBy(qemu), '000400020102', 'return-path messages are passed on at once');
  assert.deepEqual(log, ['ready']);
  one.pass('ready');
  assert.equal(receivedBy(qemu), '00000000');

  for (let checkpoint = 0; checkpoint < 2; checkpoint++) {
    log.length = 0;
    qemu.write(REQUEST, () => {});
    settle();
    assert.deepEqual(log, ['request']);
    assert.equal(receivedBy(peer), '');
    one.passRequest();
    assert.equal(receivedBy(peer), '00000001');
    peer.write(u32(2), () => {});
    settle();
    assert.equal(receivedBy(qemu), '');
    one.pass('reply');
    assert.equal(receivedBy(qemu), '00000002');
    qemu.write(Buffer.concat([u32(3), Buffer.from('four')]), () => {});
    settle();
    assert.equal(
      receivedBy(peer),
      `00000003${Buffer.from('four').toString('hex')}`,
      'VM state of four bytes is not taken for a REQUEST',
    );
    peer.write(u32(5, 6), () => {});
    settle();
    assert.deepEqual(log, ['request', 'reply', 'received', 'loaded']);
    one.pass('received');
    one.pass('loaded');
    assert.equal(receivedBy(qemu), '0000000500000006');
  }
  assert.equal(one.stateBytes, 5 + 2 * 8);
});

test('secondary: the stream is copied to QEMU unchanged, and QEMU’s messages wait until they are passed on', () => {
  const { qemu, peer, relay: one, log, settle, receivedBy } = relay('secondary');
  peer.write(Buffer.from('state'), () => {});
  qemu.write(Buffer.concat([u16(1, 0), u32(0)]), () => {});
  settle();
  assert.equal(receivedBy(qemu), Buffer.from('state').toString('hex'));
  assert.equal(receivedBy(peer), '00010000');
  assert.deepEqual(log, ['ready']);
  one.pass('ready');
  assert.equal(receivedBy(peer), '00000000');
  peer.write(REQUEST, () => {});
  settle();
  assert.equal(receivedBy(qemu), '00000001', 'the primary’s relay has checked it already');
  qemu.write(u32(2), () => {});
  settle();
  assert.equal(receivedBy(peer), '');
  one.pass('reply');
  assert.equal(receivedBy(peer), '00000002');
});

test('bytes that are not a REQUEST where one belongs end the relay', () => {
  for (const bytes of [u32(3), u32(1, 1), Buffer.from('x'), Buffer.alloc(100)]) {
    const { qemu, peer, relay: one, log, settle } = relay('primary');
    peer.write(u32(0), () => {});
    settle();
    one.pass('ready');
    qemu.write(bytes, () => {});
    settle();
    assert.deepEqual(log, ['ready', 'COLO_MIGRATION_GARBLED']);
    settle();
    assert.equal(peer.inbox.length, 0);
  }
});

test('an unknown message from the secondary ends the relay', () => {
  const { peer, qemuNear, peerNear, log, settle } = relay('primary');
  peer.write(u32(0, 99), () => {});
  settle();
  assert.deepEqual(log, ['ready', 'COLO_MIGRATION_GARBLED']);
  assert.deepEqual([qemuNear.open, peerNear.open], [false, false]);
});

for (const end of ['qemu', 'peer'] as const) {
  test(`the end of ${end} ends both streams, and the relay notifies once`, () => {
    const one = relay('primary');
    one[end].close();
    one.settle();
    assert.deepEqual(one.log, ['closed']);
    assert.deepEqual([one.qemuNear.open, one.peerNear.open], [false, false]);
    one.relay.close();
    one.relay.pass('reply');
    one.relay.passRequest();
    one.settle();
    assert.deepEqual(one.log, ['closed']);
  });
}

test('secondary: a message that QEMU sent before the end is notified before the end', () => {
  const { qemu, peer, qemuNear, peerNear, log, receivedBy } = relay('secondary');
  qemu.write(u32(0), () => {});
  pumpAll(qemuNear, peerNear);
  assert.equal(receivedBy(peer), '');
  // The VM owns the new state, and the primary's node dies; the end of the peer's stream is read first.
  qemu.write(u32(5), () => {});
  peer.close();
  pumpAll(peerNear);
  qemu.write(u32(6), () => {});
  pumpAll(qemuNear);
  assert.deepEqual(log, ['ready', 'received', 'closed'], 'QEMU could not send LOADED any more');
});

test('primary with disks: the secondary lacks the last byte of a state until the disks have been asked for', () => {
  const { qemu, peer, relay: one, log, settle, receivedBy } = relay('primary', 'disks');
  qemu.write(Buffer.from('first copy'), () => {});
  peer.write(u32(0), () => {});
  settle();
  assert.equal(receivedBy(peer), Buffer.from('first copy').toString('hex'), 'a first copy is not held');
  one.pass('ready');
  for (let checkpoint = 0; checkpoint < 2; checkpoint++) {
    log.length = 0;
    qemu.write(REQUEST, () => {});
    settle();
    one.passRequest();
    receivedBy(peer);
    peer.write(u32(2), () => {});
    settle();
    one.pass('reply');
    qemu.write(u32(3), () => {});
    settle();
    assert.deepEqual(log, ['request', 'reply', 'state']);
    assert.equal(receivedBy(peer), '000000');
    qemu.write(Buffer.from('abc'), () => {});
    settle();
    assert.equal(receivedBy(peer), '036162');
    one.passState();
    assert.equal(receivedBy(peer), '63');
    qemu.write(Buffer.from('def'), () => {});
    settle();
    assert.equal(receivedBy(peer), '646566');
    assert.deepEqual(log, ['request', 'reply', 'state']);
    peer.write(u32(5, 6), () => {});
    settle();
    one.pass('received');
    one.pass('loaded');
  }
});
