import assert from 'node:assert/strict';
import { test } from 'node:test';
import { LESSON } from '../../src/compare/lesson.ts';
import { CONFIRM_MS_MAX } from '../../src/datapath/confirmations.ts';
import { PrimaryPath } from '../../src/datapath/primary-path.ts';
import { LIMITS } from '../../src/limits.ts';
import { Voice } from '../../src/pair/voice.ts';
import { TCP_SYN } from '../../src/wire/tcp.ts';
import { arpFrame, CLIENT_ADDRESS, CLIENT_MAC, tcpFrame, VM_ADDRESS, VM_MAC } from '../frames.ts';
import { type Connection, clientSyn, fromClient, fromVm, vmSyn } from '../translate/connection.ts';
import { TwoPaths } from './two-paths.ts';

function protectedPair(): TwoPaths {
  const pair = new TwoPaths();
  pair.checkpoint();
  return pair;
}

/** Gives the secondary's ports to a primary's path, as a node does. */
function promote(pair: TwoPaths) {
  pair.secondary.leave();
  const voice = new Voice();
  voice.grantAlone(2);
  const path = new PrimaryPath({
    slabs: pair.secondarySlabs,
    vm: pair.ports.svm,
    uplink: pair.ports.silent,
    clock: pair.clock,
    offsets: pair.secondary.offsets,
    mac: VM_MAC,
    hashSeed: 2,
    voice,
    epoch: pair.secondary.epoch,
    events: {
      diverged: () => assert.fail('a lone VM has nothing to compare'),
      settled: () => assert.fail('a lone VM has nothing to compare'),
    },
  });
  const promotion = pair.secondary.handOver((slab, at, length) => path.sendAsIs(slab, at, length));
  path.flush();
  return { path, promotion };
}

test('before the first commit the SVM’s output and its own uplink’s input are dropped', () => {
  const pair = new TwoPaths();
  assert.equal(pair.secondary.isPromotable, false);
  pair.svm.send('boot noise');
  pair.secondaryNetwork.send('too early');
  pair.settle();
  assert.equal(pair.secondary.counters.droppedFrames, 1);
  assert.equal(pair.secondary.retainedFrames, 0);
  pair.checkpoint();
  assert.equal(pair.secondary.isPromotable, true);
  assert.partialDeepStrictEqual(promote(pair).promotion, {
    sentFrames: 0,
    deliveredFrames: 0,
    lostConnections: 0,
  });
});

test('the secondary sends nothing to its uplink', () => {
  const pair = protectedPair();
  pair.client.send('request');
  pair.secondaryNetwork.send('request');
  pair.settle();
  pair.svm.send('reply');
  pair.settle();
  assert.deepEqual(pair.secondaryNetwork.received(), []);
});

test('the first GATE gives the secondary the epoch’s number, and a later one must match', () => {
  const pair = new TwoPaths({ epoch: 41 });
  pair.checkpoint();
  assert.equal(pair.secondary.epoch, 42);
  assert.equal(pair.primary.epoch, 42);
  assert.throws(() => pair.secondary.endOfEpoch(7), { code: 'COLO_INVARIANT' });
});

test('a promotion sends unconfirmed output and delivers unmirrored input, each once, and frames pass afterwards', () => {
  const pair = protectedPair();
  pair.pvm.send('released');
  pair.svm.send('released');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['released']);
  pair.secondaryNetwork.send('mirrored', 'not mirrored');
  pair.client.send('mirrored');
  pair.settle();
  pair.svm.send('retained 1', 'retained 2');
  pair.settle();
  assert.deepEqual(pair.svm.received(), ['mirrored']);
  pair.primaryLink.close();
  const { promotion, path } = promote(pair);
  assert.partialDeepStrictEqual(promotion, { sentFrames: 2, deliveredFrames: 1, lostConnections: 0 });
  pair.settle();
  assert.deepEqual(pair.secondaryNetwork.received(), ['retained 1', 'retained 2']);
  assert.deepEqual(pair.svm.received(), ['not mirrored']);
  pair.secondaryNetwork.send('request');
  pair.svm.send('reply');
  pair.settle();
  assert.deepEqual(pair.svm.received(), ['request']);
  assert.deepEqual(pair.secondaryNetwork.received(), ['reply']);
  assert.partialDeepStrictEqual(path.releasedBy, { match: 0, alone: 1, promotion: 2 });
  assert.equal(path.counters.releasedFrames, 3);
  pair.assertNoLeak();
});

test('a NIC that is not virtio gets no short frame: both VMs the same, silent input at a failover included', () => {
  const pair = new TwoPaths({ frameBytesMin: 60 });
  const all = ['a', 'b', 'c'].map((name) => {
    const arp = arpFrame();
    arp.write(name, 38);
    return arp;
  });
  const inFull = all.map((arp) => Buffer.concat([arp, Buffer.alloc(60 - arp.length)]));
  pair.client.write(all[0]);
  pair.settle();
  assert.deepEqual(pair.pvm.receivedFrames(), [inFull[0]], 'alone');
  pair.checkpoint();
  pair.secondaryNetwork.write(all[1], all[2]);
  pair.client.write(all[1]);
  pair.settle();
  assert.deepEqual(pair.pvm.receivedFrames(), [inFull[1]]);
  assert.deepEqual(pair.svm.receivedFrames(), [inFull[1]]);
  pair.primaryLink.close();
  assert.equal(
    promote(pair).promotion.deliveredFrames,
    1,
    'padding does not hide that the link brought the frame',
  );
  pair.settle();
  assert.deepEqual(pair.svm.receivedFrames(), [inFull[2]]);
  pair.assertNoLeak();
});

test('input that the link brings before the own uplink is not delivered twice', () => {
  const pair = protectedPair();
  pair.client.send('request');
  pair.settle();
  pair.secondaryNetwork.send('request');
  pair.settle();
  assert.partialDeepStrictEqual(promote(pair).promotion, {
    sentFrames: 0,
    deliveredFrames: 0,
    lostConnections: 0,
  });
});

test('a commit drops the output that the SVM sent before it', () => {
  const pair = protectedPair();
  pair.svm.send('of the old state');
  pair.settle();
  assert.equal(pair.secondary.retainedFrames, 1);
  pair.checkpoint();
  assert.partialDeepStrictEqual(promote(pair).promotion, {
    sentFrames: 0,
    deliveredFrames: 0,
    lostConnections: 0,
  });
});

test('a confirmation of another epoch changes nothing', () => {
  const pair = protectedPair();
  pair.svm.send('retained');
  pair.settle();
  pair.secondary.confirm(0, 0, 10);
  pair.secondary.confirm(2, 0, 10);
  assert.equal(pair.secondary.retainedFrames, 1);
  pair.secondary.confirm(1, 0, 10);
  assert.equal(pair.secondary.retainedFrames, 0);
});

test('a link that takes nothing pauses the reading of the SVM, and a promotion resumes it', () => {
  const pair = protectedPair();
  pair.linkStreams[1].stalled = true;
  const large = 'x'.repeat(60_000);
  for (let bytes = 0; bytes < LIMITS.unsentBytesMax + 1e6; bytes += large.length) pair.svm.send(large);
  pair.settle();
  assert.equal(pair.svm.near.paused, true);
  assert.equal(pair.secondary.outputExhausted, false);
  promote(pair);
  assert.equal(pair.svm.near.paused, false);
  pair.settle();
  assert.equal(pair.svm.near.unreadBytes(), 0);
});

test('a discarded secondary resumes the reading of the SVM and retains nothing', () => {
  const pair = protectedPair();
  pair.linkStreams[1].stalled = true;
  const large = 'x'.repeat(60_000);
  for (let bytes = 0; bytes < LIMITS.unsentBytesMax + 1e6; bytes += large.length) pair.svm.send(large);
  pair.settle();
  pair.secondary.discard();
  assert.equal(pair.svm.near.paused, false);
  assert.equal(pair.secondary.retainedFrames, 0);
  pair.assertNoLeak();
});

const place: Connection = {
  version: 4,
  tags: [],
  stamped: true,
  clientOpens: false,
  clientIsn: 100,
  clientPort: 443,
};

test('a connection that the two VMs open from different ports is one connection, whichever VM is first', () => {
  for (const svmFirst of [true, false]) {
    const pair = protectedPair();
    const [pvm, svm] = [
      { isn: 1000, ts: 10, port: 5001 },
      { isn: 2000, ts: 20, port: 5002 },
    ];
    const syns = [() => pair.pvm.write(vmSyn(place, pvm)), () => pair.svm.write(vmSyn(place, svm))];
    for (const send of svmFirst ? syns.reverse() : syns) {
      send();
      pair.settle();
    }
    const data = { clientAt: 1, vmAt: 1, time: 5, payload: Buffer.from('GET') };
    assert.deepEqual(pair.client.receivedFrames(), [vmSyn(place, pvm)]);
    pair.client.write(clientSyn(place, pvm));
    pair.settle();
    assert.deepEqual(pair.pvm.receivedFrames(), [clientSyn(place, pvm)]);
    assert.deepEqual(pair.svm.receivedFrames(), [clientSyn(place, svm)]);
    pair.pvm.write(fromVm(place, pvm, data));
    pair.svm.write(fromVm(place, svm, data));
    pair.settle();
    assert.deepEqual(pair.client.receivedFrames(), [fromVm(place, pvm, data)]);

    // The secondary is promoted, and the client does not notice.
    pair.primaryLink.close();
    promote(pair);
    const reply = { clientAt: 1, vmAt: 4, time: 5, payload: Buffer.from('200') };
    pair.secondaryNetwork.receivedFrames();
    pair.secondaryNetwork.write(fromClient(place, pvm, reply));
    pair.svm.write(fromVm(place, svm, { clientAt: 4, vmAt: 4, time: 8 }));
    pair.settle();
    assert.deepEqual(pair.svm.receivedFrames(), [fromClient(place, svm, reply)]);
    assert.deepEqual(pair.secondaryNetwork.receivedFrames(), [
      fromVm(place, pvm, { clientAt: 4, vmAt: 4, time: 8 }),
    ]);
    assert.deepEqual(pair.diverged, []);
  }
});

test('a SYN of the PVM that arrives after its epoch has ended is paired with no SYN of the SVM', () => {
  const pair = protectedPair();
  const before = pair.secondary.epoch - 1;
  const teach = (epoch: number, seq: number) => {
    const frame = tcpFrame({
      sourceMac: VM_MAC,
      destinationMac: CLIENT_MAC,
      source: VM_ADDRESS[4],
      destination: CLIENT_ADDRESS[4],
      flags: TCP_SYN,
      seq,
    });
    const slab = pair.secondarySlabs.acquire();
    frame.copy(pair.secondarySlabs.buffer(slab), 4);
    pair.secondary.teach(epoch, LESSON.tcpSyn, slab, 4, frame.length);
  };
  teach(before, 1);
  assert.equal(pair.secondary.translator.size, 0, 'the commit gave the SVM this connection');
  teach(pair.secondary.epoch, 1);
  assert.equal(pair.secondary.translator.size, 0, 'its repetition is known too');
  teach(pair.secondary.epoch, 2);
  assert.equal(pair.secondary.translator.size, 1);
});

test('a barrier that ends after the promotion pauses no reading', () => {
  const pair = protectedPair();
  pair.primaryLink.close();
  promote(pair);
  pair.secondary.stop();
  pair.svm.send('after the promotion');
  pair.settle();
  assert.equal(pair.svm.near.unreadBytes(), 0);
});

test('a SYN of the PVM leaves only when the secondary has learned its number', () => {
  for (const clientOpens of [true, false]) {
    const c: Connection = { ...place, clientOpens };
    const [pvm, svm] = [
      { isn: 1000, ts: 10, port: 80 },
      { isn: 2000, ts: 20, port: 80 },
    ];
    const pair = protectedPair();
    // The link carries nothing to the secondary, but everything back.
    pair.linkStreams[0].stalled = true;
    pair.svm.write(vmSyn(c, svm));
    pair.pvm.write(vmSyn(c, pvm));
    pair.settle();
    assert.deepEqual(pair.client.receivedFrames(), [], 'the secondary could not continue this connection');
    pair.linkStreams[0].unstall();
    pair.settle();
    assert.deepEqual(pair.client.receivedFrames(), [vmSyn(c, pvm)]);
    assert.equal(pair.primary.comparator.secondary.frames, 0);
    pair.pass(CONFIRM_MS_MAX);
    assert.equal(pair.secondary.retainedFrames, 0);
    pair.assertNoLeak();
  }
});
