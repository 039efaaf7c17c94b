import assert from 'node:assert/strict';
import { test } from 'node:test';
import { TAP } from '../../src/datapath/tap.ts';
import { FLOW_KEY_WORDS, writeOutputKey } from '../../src/flow/key.ts';
import { LIMITS } from '../../src/limits.ts';
import { PacketView, parsePacket } from '../../src/wire/packet.ts';
import { CLIENT_MAC, udpFrame } from '../frames.ts';
import { type Connection, vmSyn } from '../translate/connection.ts';
import { outputFrame, TwoPaths } from './two-paths.ts';

function protectedPair(): TwoPaths {
  const pair = new TwoPaths();
  pair.checkpoint();
  return pair;
}

test('a lone VM’s input and output pass at once, and the peer receives nothing', () => {
  const pair = new TwoPaths();
  pair.client.send('request');
  pair.pvm.send('reply');
  pair.settle();
  assert.deepEqual(pair.pvm.received(), ['request']);
  assert.deepEqual(pair.client.received(), ['reply']);
  assert.deepEqual(pair.svm.received(), []);
  pair.assertNoLeak();
});

test('both VMs receive the same input in the same order, and output is held until the SVM has sent it', () => {
  const pair = protectedPair();
  pair.client.send('1', '2');
  pair.client.send('3');
  pair.settle();
  assert.deepEqual(pair.pvm.received(), ['1', '2', '3']);
  assert.deepEqual(pair.svm.received(), ['1', '2', '3']);
  pair.pvm.send('a', 'b');
  pair.settle();
  assert.deepEqual(pair.client.received(), []);
  pair.svm.send('a');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['a']);
  assert.equal(pair.secondary.retainedFrames, 0, 'the client has received it, so it is confirmed');
  pair.svm.send('b', 'c');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['b']);
  assert.equal(pair.secondary.retainedFrames, 1);
  pair.assertNoLeak();
});

test('frames for another machine are dropped', () => {
  const pair = protectedPair();
  pair.client.write(udpFrame({ destinationMac: CLIENT_MAC }));
  pair.settle();
  assert.deepEqual([pair.pvm.received(), pair.svm.received()], [[], []]);
  assert.equal(pair.primary.counters.foreignFrames, 1);
});

test('a closed gate retains input, and both VMs get it in order when the gate opens', () => {
  const pair = protectedPair();
  pair.client.send('before');
  pair.settle();
  pair.primary.closeGate();
  for (let i = 0; i < 5; i++) {
    pair.client.send(`gated ${i}`);
    pair.settle();
  }
  assert.deepEqual(pair.pvm.received(), ['before']);
  assert.deepEqual(pair.svm.received(), ['before']);
  pair.primary.openGate();
  pair.client.send('after');
  pair.settle();
  const expected = ['gated 0', 'gated 1', 'gated 2', 'gated 3', 'gated 4', 'after'];
  assert.deepEqual(pair.pvm.received(), expected);
  assert.deepEqual(pair.svm.received(), expected);
  pair.assertNoLeak();
});

test('a commit needs a closed gate, releases held output in order, and drops the SVM’s', () => {
  const pair = protectedPair();
  assert.throws(() => pair.primary.commit(pair.primaryLink), { code: 'COLO_INVARIANT' });
  pair.pvm.send('x', 'y', 'z');
  pair.svm.send('other');
  pair.settle();
  assert.deepEqual(pair.diverged, ['diverged-length udp 10.0.2.15:53 <-> 10.0.2.2:5353']);
  pair.checkpoint();
  assert.deepEqual(pair.client.received(), ['x', 'y', 'z']);
  assert.equal(pair.secondary.retainedFrames, 0);
  pair.pvm.send('next');
  pair.svm.send('next');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['next']);
  assert.equal(pair.secondary.retainedFrames, 0, 'confirmations name the new epoch');
  pair.assertNoLeak();
});

test('a capture shows why a frame could leave by a checkpoint only: its reason and class, in its own epoch', () => {
  const pair = protectedPair();
  const seen: string[] = [];
  pair.primary.tap = (point, bytes, at, length, comment) => {
    if (point === TAP.released)
      seen.push(`${Buffer.from(bytes).toString('latin1', at + 42, at + length)}: ${comment}`);
  };
  pair.pvm.send('it is 03:22:35', 'behind it');
  pair.svm.send('it is 03:22:36');
  pair.settle();
  pair.checkpoint();
  assert.deepEqual(seen, [
    'it is 03:22:35: commit, diverged-bytes, clock: a time of day',
    'behind it: commit',
  ]);
  seen.length = 0;
  pair.pvm.send('alike');
  pair.svm.send('alike');
  pair.pvm.send('late');
  pair.settle();
  pair.checkpoint();
  assert.deepEqual(seen, ['alike: match', 'late: commit']);
  pair.assertNoLeak();
});

test('an exchange of which the other half comes later is settled by the commit, before anything leaves', () => {
  const pair = protectedPair();
  const seen: string[] = [];
  pair.primary.tap = (point, _bytes, _at, _length, comment) => {
    if (point === TAP.released) seen.push(comment);
  };
  const toAnother = outputFrame('first');
  toAnother.writeUInt16BE(6000, 36);
  pair.pvm.send('first');
  pair.svm.send('other');
  pair.settle();
  pair.svm.write(toAnother);
  pair.settle();
  assert.deepEqual([pair.diverged.length, pair.settled], [1, []]);
  pair.checkpoint();
  const order = 'commit, diverged-bytes, order: the other VM sent these bytes to another client';
  assert.deepEqual([pair.settled, seen], [['order'], [order]]);
  pair.assertNoLeak();
});

test('a divergence that is open is settled when the pair ends, too', () => {
  for (const end of ['goAlone', 'fence'] as const) {
    const pair = protectedPair();
    pair.pvm.send('first');
    pair.svm.send('other');
    pair.settle();
    assert.deepEqual(pair.settled, []);
    if (end === 'goAlone') pair.primary.goAlone(2);
    else pair.primary.fence();
    assert.deepEqual(pair.settled, ['unknown']);
  }
});

test('a frame that lies where one that differed lay has no class of its own', () => {
  const pair = protectedPair();
  const seen: string[] = [];
  pair.primary.tap = (point, _bytes, _at, _length, comment) => {
    if (point === TAP.released) seen.push(comment);
  };
  const long = (second: number): string => `it is 03:22:${second}`.padEnd(60_000);
  pair.pvm.send(long(35));
  pair.svm.send(long(36));
  pair.settle();
  pair.checkpoint();
  // A slab has room for four of them, and is read into again.
  for (let epoch = 0; epoch < 20; epoch++) {
    pair.pvm.send(long(35));
    pair.settle();
    pair.checkpoint();
  }
  assert.deepEqual(
    seen.map((comment) => comment.slice(0, 14)),
    ['commit, diverg', ...Array(20).fill('commit')],
  );
  pair.assertNoLeak();
});

test('an epoch with many divergences does not keep the next one from its classes', () => {
  const pair = protectedPair();
  const seen: string[] = [];
  pair.primary.tap = (point, _bytes, _at, _length, comment) => {
    if (point === TAP.released) seen.push(comment);
  };
  const frames = (second: number): Buffer[] =>
    Array.from({ length: 150 }, (_, i) => {
      const frame = outputFrame(`it is 03:22:${second}`);
      frame.writeUInt16BE(6000 + i, 36);
      return frame;
    });
  for (let epoch = 0; epoch < 2; epoch++) {
    seen.length = 0;
    pair.pvm.write(...frames(35));
    pair.svm.write(...frames(36));
    pair.settle();
    pair.checkpoint();
    assert.equal(seen.filter((comment) => comment.includes('clock')).length, 128);
    assert.equal(seen.filter((comment) => comment.includes('unknown')).length, 22);
  }
  pair.assertNoLeak();
});

test('output of the next epoch that overtakes the commit is retained for it', () => {
  const pair = protectedPair();
  pair.primary.closeGate();
  pair.settle();
  pair.svm.send('of the old epoch');
  pair.settle();
  pair.commitSecondary();
  const seen: string[] = [];
  pair.primary.tap = (point, bytes, at, length, comment) => {
    if (point === TAP.secondaryVm)
      seen.push(`${Buffer.from(bytes).toString('latin1', at + 42, at + length)}: ${comment}`);
  };
  const before = pair.primary.counters.peerFrames;
  pair.svm.send('early');
  pair.settle();
  pair.primary.commit(pair.primaryLink);
  assert.deepEqual(seen, ['early: epoch 2 index 0'], 'a capture shows the epoch that it belongs to');
  assert.equal(pair.primary.counters.peerFrames, before + 1);
  pair.primary.openGate();
  pair.pvm.send('early');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['early']);
  assert.deepEqual(pair.diverged, []);
  assert.equal(pair.secondary.retainedFrames, 0);
  pair.assertNoLeak();
});

test('SVM output of a finished epoch is dropped', () => {
  const pair = protectedPair();
  pair.pvm.send('before');
  pair.svm.send('before', 'late');
  pair.svm.near.pump();
  pair.primary.closeGate();
  pair.pvm.near.pump();
  pair.primary.commit(pair.primaryLink);
  assert.deepEqual(pair.client.received(), ['before']);
  pair.pvm.send('late');
  pair.settle();
  assert.deepEqual(pair.client.received(), []);
  assert.equal(pair.primary.comparator.primary.frames, 1);
});

test('nothing leaves after the lease has ended, and everything that waited leaves when it is renewed', () => {
  const pair = protectedPair();
  pair.voice.lease(2000);
  pair.nowMs = 1999;
  pair.pvm.send('in time');
  pair.svm.send('in time');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['in time']);
  pair.nowMs = 2000;
  pair.pvm.send('late', 'later');
  pair.svm.send('late');
  pair.settle();
  pair.svm.send('later');
  pair.settle();
  pair.primary.own.announce(Buffer.alloc(64));
  assert.deepEqual(pair.client.received(), []);
  assert.equal(pair.secondary.retainedFrames, 2, 'the secondary retains what the primary may never send');
  pair.voice.prolong(2500);
  pair.primary.flush();
  pair.settle();
  assert.deepEqual(pair.client.received(), ['late', 'later']);
  assert.equal(pair.secondary.retainedFrames, 0);
  pair.assertNoLeak();
});

test('the secondary retains what a full uplink has not taken', () => {
  const pair = protectedPair();
  pair.client.near.stalled = true;
  pair.pvm.send('one', 'two');
  pair.svm.send('one', 'two');
  pair.settle();
  assert.equal(pair.secondary.retainedFrames, 2);
  pair.client.near.unstall();
  pair.settle();
  assert.deepEqual(pair.client.received(), ['one', 'two']);
  assert.equal(pair.secondary.retainedFrames, 0);
  pair.assertNoLeak();
});

test('output that the socket has no room for waits in the node, where the end of a lease stops it', () => {
  const pair = new TwoPaths();
  pair.client.near.stalled = true;
  for (const text of ['under way', 'second', 'third']) {
    pair.pvm.send(text);
    pair.settle();
  }
  pair.voice.lease(0);
  pair.client.near.unstall();
  pair.settle();
  assert.deepEqual(pair.client.received(), ['under way']);
  pair.voice.grantAlone(2);
  pair.primary.flush();
  pair.settle();
  assert.deepEqual(pair.client.received(), ['second', 'third']);
  pair.client.near.stalled = true;
  pair.pvm.send('fourth');
  pair.settle();
  pair.pvm.send('fifth');
  pair.settle();
  pair.client.near.unstall();
  pair.settle();
  assert.deepEqual(
    pair.client.received(),
    ['fourth', 'fifth'],
    'room in the socket alone continues the writing',
  );
  pair.assertNoLeak();
});

/** Makes the VM send more than may wait for the uplink; returns what it sent. */
function flood(pair: TwoPaths): string[] {
  const sent: string[] = [];
  for (let bytes = 0; bytes < LIMITS.unsentBytesMax + 1e6; bytes += 50_000) {
    sent.push(`${sent.length} `.padEnd(50_000, '.'));
    pair.pvm.send(sent.at(-1) ?? '');
    if (sent.length % 5 === 0) pair.settle();
  }
  pair.settle();
  return sent;
}

/** Returns the bytes of each write; writes that are corked together count as one. */
function writesOf(stream: TwoPaths['client']['near']): number[] {
  const sizes: number[] = [];
  const { cork, write } = stream;
  stream.cork = () => {
    sizes.push(0);
    cork.call(stream);
  };
  stream.write = (bytes, done) => {
    sizes[sizes.length - 1] += bytes.length;
    write.call(stream, bytes, done);
  };
  return sizes;
}

test('a full uplink gets one short write at a time and pauses the reading of the VM, until there is room', () => {
  const pair = new TwoPaths();
  pair.client.near.stalled = true;
  const sizes = writesOf(pair.client.near);
  const sent = flood(pair);
  assert.ok(pair.pvm.near.paused, 'output that waits in the node counts as well');
  assert.equal(sizes.length, 1, 'the first write is not taken yet');
  pair.client.near.unstall();
  pair.settle();
  assert.ok(!pair.pvm.near.paused);
  const received = pair.client.received();
  assert.equal(received.length, sent.length);
  assert.ok(received.every((text, i) => text === sent[i]));
  const most = Math.max(...sizes);
  const max = LIMITS.uplinkWriteBytesMax;
  assert.ok(most <= max && most > max / 2, `at most ${most} bytes were written at once`);
  pair.assertNoLeak();
});

test('a stream that reports progress from within a write does not change the order', () => {
  const pair = new TwoPaths();
  const { out } = pair.ports.uplink;
  const slabs = pair.primarySlabs;
  const perSlab = 8;
  for (let i = 0; i < 500; ) {
    const slab = slabs.acquire();
    for (let k = 0; k < perSlab; k++, i++) {
      const frame = outputFrame(`${i} `.padEnd(2000, '.'));
      // A gap before each frame makes it a run of its own.
      const at = 4 + k * 4096;
      slabs.buffer(slab).writeUInt32BE(frame.length, at - 4);
      slabs.buffer(slab).set(frame, at);
      out.push(slab, at, frame.length);
    }
    slabs.unref(slab);
  }
  assert.ok(out.bytes > 3 * LIMITS.uplinkWriteBytesMax);
  const expected = out.frames;
  pair.primary.flush();
  const received = pair.client.received().map((text) => Number.parseInt(text, 10));
  assert.deepEqual(received, [...Array(expected).keys()]);
  pair.assertNoLeak();
});

test('a VM that is paused for a lease is read when the lease is renewed; for an uplink, when that is lost', () => {
  const pair = new TwoPaths();
  pair.voice.lease(0);
  flood(pair);
  assert.ok(pair.pvm.near.paused);
  assert.equal(pair.client.near.queuedBytes(), 0);
  pair.voice.grantAlone(2);
  pair.primary.flush();
  assert.ok(!pair.pvm.near.paused);
  pair.settle();
  pair.voice.lease(0);
  flood(pair);
  assert.ok(pair.pvm.near.paused);
  pair.ports.uplink.close();
  assert.ok(!pair.pvm.near.paused);
});

test('a fenced path drops what waits and what arrives', () => {
  const pair = protectedPair();
  pair.voice.lease(0);
  pair.pvm.send('matched, not sent', 'held');
  pair.svm.send('matched, not sent');
  pair.settle();
  pair.primary.closeGate();
  pair.client.send('gated');
  pair.settle();
  pair.pvm.received();
  pair.primary.fence();
  assert.equal(pair.primary.counters.droppedFrames, 1);
  pair.voice.prolong(1_000_000);
  pair.voice.lease(1_000_000);
  pair.primary.openGate();
  pair.client.send('more');
  pair.pvm.send('more');
  pair.svm.send('held', 'more');
  pair.settle();
  pair.primary.flush();
  pair.primary.own.announce(Buffer.alloc(64));
  assert.deepEqual(pair.client.received(), []);
  assert.deepEqual(pair.pvm.received(), []);
  assert.equal(pair.primary.comparator.primary.frames, 0);
  pair.assertNoLeak();
});

test('when the VM is alone again, held output leaves, the gate opens, and the link gets no more input', () => {
  const pair = protectedPair();
  pair.voice.lease(0);
  pair.pvm.send('held');
  pair.primary.closeGate();
  pair.client.send('gated');
  pair.settle();
  assert.equal(pair.primary.goAlone(2), 1);
  pair.settle();
  pair.pvm.send('at once');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['held', 'at once']);
  assert.deepEqual(pair.pvm.received(), ['gated']);
  assert.deepEqual(pair.svm.received(), []);
  pair.assertNoLeak();
});

test('a limit pauses the reading of the VM; the checkpoint reads the rest, and the next epoch is read again', () => {
  const pair = protectedPair();
  const frames = LIMITS.heldFramesCheckpoint + 5000;
  const chunk = Array.from({ length: 1000 }, () => 'x');
  for (let i = 0; i < frames / 1000; i++) pair.pvm.send(...chunk);
  pair.settle();
  assert.equal(pair.primary.pressure(), 'limit-share');
  assert.equal(pair.primary.outputExhausted, false, 'reading is paused');
  pair.primary.closeGate();
  pair.settle();
  pair.primary.readRest();
  pair.settle();
  assert.equal(pair.primary.outputExhausted, true);
  pair.commitSecondary();
  assert.equal(pair.primary.commit(pair.primaryLink), Math.ceil(frames / 1000) * 1000);
  pair.primary.openGate();
  pair.settle();
  pair.client.received();
  pair.pvm.send('on');
  pair.svm.send('on');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['on']);
  pair.assertNoLeak();
});

test('a fenced path resumes the reading of its ports', () => {
  const pair = protectedPair();
  pair.primary.closeGate();
  const large = 'x'.repeat(60_000);
  for (let bytes = 0; bytes < LIMITS.gatedBytesMax + 1e6; bytes += large.length) pair.client.send(large);
  pair.settle();
  assert.ok(pair.client.near.unreadBytes() > 0, 'a full gate pauses the reading of the uplink');
  assert.equal(pair.client.near.paused, true);
  pair.primary.fence();
  assert.equal(pair.client.near.paused, false);
  pair.settle();
  pair.assertNoLeak();
});

test('a fenced path drops what the uplink’s socket has not taken', () => {
  const pair = new TwoPaths();
  pair.client.near.stalled = true;
  pair.pvm.send('late');
  pair.settle();
  pair.primary.fence();
  pair.client.near.unstall();
  pair.settle();
  assert.deepEqual(pair.client.received(), []);
  pair.assertNoLeak();
});

test('output that a fence dropped is not confirmed, so the secondary can send it', () => {
  const pair = protectedPair();
  pair.client.near.stalled = true;
  pair.pvm.send('reply');
  pair.svm.send('reply');
  pair.settle();
  pair.primary.fence();
  pair.settle();
  assert.equal(pair.secondary.retainedFrames, 1);
});

test('output that a closed uplink dropped is not confirmed: the secondary retains it until the next checkpoint', () => {
  for (const replies of [['reply'], ['reply', 'second reply']]) {
    const pair = protectedPair();
    pair.client.near.stalled = true;
    for (const reply of replies) {
      pair.pvm.send(reply);
      pair.svm.send(reply);
      pair.settle();
    }
    pair.client.near.close();
    pair.settle();
    assert.equal(pair.secondary.retainedFrames, replies.length);
    pair.checkpoint();
    assert.equal(pair.secondary.retainedFrames, 0);
  }
});

test('output that is released while no uplink is connected is not confirmed', () => {
  const pair = protectedPair();
  pair.client.near.close();
  pair.settle();
  pair.pvm.send('reply');
  pair.svm.send('reply');
  pair.settle();
  assert.equal(pair.secondary.retainedFrames, 1);
});

test('a fenced path drops what the SVM still sends', () => {
  const pair = protectedPair();
  pair.primary.fence();
  pair.svm.send('later output');
  pair.settle();
  assert.equal(pair.primary.comparator.secondary.frames, 0);
});

test('the primary teaches a SYN that the VM repeats after a failover in the VM’s own numbers', () => {
  const c: Connection = {
    version: 4,
    tags: [],
    stamped: false,
    clientOpens: true,
    clientIsn: 500,
    clientPort: 40000,
  };
  const [own, translated] = [vmSyn(c, { isn: 1000, ts: 0 }), vmSyn(c, { isn: 5000, ts: 0 })];
  const view = new PacketView();
  parsePacket(own, 0, own.length, view);
  const key = new Int32Array(FLOW_KEY_WORDS);
  writeOutputKey(own, view, key);
  const pair = new TwoPaths();
  for (const path of [pair.primary, pair.secondary])
    path.offsets.import([{ key: [...key], vmIsn: 1000, seqDelta: 4000, tsDelta: 0, clientPort: 80 }]);
  pair.checkpoint();
  // The SVM's SYN comes first, so that the PVM's leaves at once, before the link is written.
  pair.svm.write(own);
  pair.settle();
  pair.pvm.write(own);
  pair.settle();
  assert.deepEqual(pair.client.receivedFrames(), [translated]);
  assert.equal(pair.secondary.offsets.size, 1, 'a SYN with another number would have ended the connection');
});
