import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MigrationRelay } from '../../src/checkpoint/migration-relay.ts';
import { u16, u32 } from '../frames.ts';
import { fakePair, pumpAll } from '../io/fake-stream.ts';

const REQUEST = u32(1);

function relay(side: 'primary' | 'secondary') {
  const [qemu, qemuNear] = fakePair();
  const [peer, peerNear] = fakePair();
  const log: string[] = [];
  const one = new MigrationRelay(side, qemuNear, peerNear, {
    message: (message) => log.push(message),
    request: () => log.push('request'),
    closed: (cause) => log.push(cause === null ? 'closed' : ((cause as { code?: string }).code ?? 'error')),
  });
  one.start();
  const settle = () => pumpAll(qemuNear, peerNear);
  /** What this end has got since it was asked last. */
  const got = (end: typeof qemu) => {
    const hex = end.inbox.toString('hex');
    end.inbox = Buffer.alloc(0);
    return hex;
  };
  return { qemu, peer, qemuNear, peerNear, relay: one, log, settle, got };
}

test('a REQUEST may come in pieces', () => {
  const { qemu, peer, qemuNear, log, relay: one, settle, got } = relay('primary');
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
  assert.equal(got(peer), '00000001');
});

test('primary: state flows, messages wait until they are passed, and REQUEST waits too', () => {
  const { qemu, peer, relay: one, log, settle, got } = relay('primary');
  qemu.write(Buffer.from('state'), () => {});
  peer.write(Buffer.concat([u16(4, 2), Buffer.from([1, 2]), u32(0)]), () => {});
  settle();
  assert.equal(got(peer), Buffer.from('state').toString('hex'));
  assert.equal(got(qemu), '000400020102', 'the return path passes at once');
  assert.deepEqual(log, ['ready']);
  one.pass('ready');
  assert.equal(got(qemu), '00000000');

  for (let checkpoint = 0; checkpoint < 2; checkpoint++) {
    log.length = 0;
    qemu.write(REQUEST, () => {});
    settle();
    assert.deepEqual(log, ['request']);
    assert.equal(got(peer), '');
    one.passRequest();
    assert.equal(got(peer), '00000001');
    peer.write(u32(2), () => {});
    settle();
    assert.equal(got(qemu), '');
    one.pass('reply');
    assert.equal(got(qemu), '00000002');
    qemu.write(Buffer.concat([u32(3), Buffer.from('four')]), () => {});
    settle();
    assert.equal(
      got(peer),
      `00000003${Buffer.from('four').toString('hex')}`,
      'four bytes are no REQUEST here',
    );
    peer.write(u32(5, 6), () => {});
    settle();
    assert.deepEqual(log, ['request', 'reply', 'received', 'loaded']);
    one.pass('received');
    one.pass('loaded');
    assert.equal(got(qemu), '0000000500000006');
  }
  assert.equal(one.stateBytes, 5 + 2 * 8);
});

test('secondary: the stream goes to QEMU as it is, its messages wait', () => {
  const { qemu, peer, relay: one, log, settle, got } = relay('secondary');
  peer.write(Buffer.from('state'), () => {});
  qemu.write(Buffer.concat([u16(1, 0), u32(0)]), () => {});
  settle();
  assert.equal(got(qemu), Buffer.from('state').toString('hex'));
  assert.equal(got(peer), '00010000');
  assert.deepEqual(log, ['ready']);
  one.pass('ready');
  assert.equal(got(peer), '00000000');
  peer.write(REQUEST, () => {});
  settle();
  assert.equal(got(qemu), '00000001', 'the primary has judged it already');
  qemu.write(u32(2), () => {});
  settle();
  assert.equal(got(peer), '');
  one.pass('reply');
  assert.equal(got(peer), '00000002');
});

test('what is no REQUEST where one belongs ends the relay', () => {
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

test('garbage from the secondary ends the relay', () => {
  const { peer, qemuNear, peerNear, log, settle } = relay('primary');
  peer.write(u32(0, 99), () => {});
  settle();
  assert.deepEqual(log, ['ready', 'COLO_MIGRATION_GARBLED']);
  assert.deepEqual([qemuNear.open, peerNear.open], [false, false]);
});

for (const end of ['qemu', 'peer'] as const) {
  test(`the end of ${end} ends both, and is told once`, () => {
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

test('secondary: what QEMU said before the end is told before the end', () => {
  const { qemu, peer, qemuNear, peerNear, log, got } = relay('secondary');
  qemu.write(u32(0), () => {});
  pumpAll(qemuNear, peerNear);
  assert.equal(got(peer), '');
  // The VM owns the new state, and the primary's node dies: the bad news is read first.
  qemu.write(u32(5), () => {});
  peer.close();
  pumpAll(peerNear);
  qemu.write(u32(6), () => {});
  pumpAll(qemuNear);
  assert.deepEqual(log, ['ready', 'received', 'closed'], 'and what it could not say any more is not');
});
