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

test('alone, everything passes at once, and nobody else hears of it', () => {
  const pair = new TwoPaths();
  pair.client.send('question');
  pair.pvm.send('answer');
  pair.settle();
  assert.deepEqual(pair.pvm.received(), ['question']);
  assert.deepEqual(pair.client.received(), ['answer']);
  assert.deepEqual(pair.svm.received(), []);
  pair.assertNoLeak();
});

test('protected, both VMs hear the same in the same order, and output waits for the SVM', () => {
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
  assert.equal(pair.secondary.retainedFrames, 0, 'confirmed: the client has it');
  pair.svm.send('b', 'c');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['b']);
  assert.equal(pair.secondary.retainedFrames, 1);
  pair.assertNoLeak();
});

test('frames that are not the VM’s to hear go nowhere', () => {
  const pair = protectedPair();
  pair.client.write(udpFrame({ destinationMac: CLIENT_MAC }));
  pair.settle();
  assert.deepEqual([pair.pvm.received(), pair.svm.received()], [[], []]);
  assert.equal(pair.primary.counters.foreignFrames, 1);
});

test('the gate keeps input back, in order, for both', () => {
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

test('a commit needs a closed gate, releases all in order and forgets the SVM’s', () => {
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

test('output of the next epoch that overtakes the commit is kept for it', () => {
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
  assert.deepEqual(seen, ['early: epoch 2 index 0'], 'captured as what it is');
  assert.equal(pair.primary.counters.peerFrames, before + 1);
  pair.primary.openGate();
  pair.pvm.send('early');
  pair.settle();
  assert.deepEqual(pair.client.received(), ['early']);
  assert.deepEqual(pair.diverged, []);
  assert.equal(pair.secondary.retainedFrames, 0);
  pair.assertNoLeak();
});

test('output of an epoch that is over is not believed', () => {
  const pair = protectedPair();
  pair.pvm.send('said before');
  pair.svm.send('said before', 'and late');
  pair.svm.near.pump();
  pair.primary.closeGate();
  pair.pvm.near.pump();
  pair.primary.commit(pair.primaryLink);
  assert.deepEqual(pair.client.received(), ['said before']);
  pair.pvm.send('and late');
  pair.settle();
  assert.deepEqual(pair.client.received(), []);
  assert.equal(pair.primary.comparator.primary.frames, 1);
});

test('nothing leaves after the right to speak is over, and all of it when it is renewed', () => {
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
  pair.primary.announce(Buffer.alloc(64));
  assert.deepEqual(pair.client.received(), []);
  assert.equal(pair.secondary.retainedFrames, 2, 'what may never leave is still kept by the secondary');
  pair.voice.prolong(2500);
  pair.primary.flush();
  pair.settle();
  assert.deepEqual(pair.client.received(), ['late', 'later']);
  assert.equal(pair.secondary.retainedFrames, 0);
  pair.assertNoLeak();
});

test('the secondary keeps what an uplink that is full has not taken', () => {
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

test('what the uplink has no room for waits where the lease can still stop it, and leaves with the next one', () => {
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
  assert.deepEqual(pair.client.received(), ['fourth', 'fifth'], 'room is reason enough to go on');
  pair.assertNoLeak();
});

/** Lets the VM say more than may wait for the uplink; answers what it said. */
function flood(pair: TwoPaths): string[] {
  const said: string[] = [];
  for (let bytes = 0; bytes < LIMITS.unsentBytesMax + 1e6; bytes += 50_000) {
    said.push(`${said.length} `.padEnd(50_000, '.'));
    pair.pvm.send(said.at(-1) ?? '');
    if (said.length % 5 === 0) pair.settle();
  }
  pair.settle();
  return said;
}

/** The bytes of each write, as they are corked together. */
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

test('a full uplink is given one short write at a time, stops the VM, and both go on when there is room', () => {
  const pair = new TwoPaths();
  pair.client.near.stalled = true;
  const sizes = writesOf(pair.client.near);
  const said = flood(pair);
  assert.ok(pair.pvm.near.paused, 'what waits here counts as well');
  assert.equal(sizes.length, 1, 'the first one is not taken yet');
  pair.client.near.unstall();
  pair.settle();
  assert.ok(!pair.pvm.near.paused);
  const heard = pair.client.received();
  assert.equal(heard.length, said.length);
  assert.ok(heard.every((text, i) => text === said[i]));
  const most = Math.max(...sizes);
  const max = LIMITS.uplinkWriteBytesMax;
  assert.ok(most <= max && most > max / 2, `at most ${most} bytes were written at once`);
  pair.assertNoLeak();
});

test('a stream that says within a write that some of it has left changes no order', () => {
  const pair = new TwoPaths();
  const { out } = pair.ports.uplink;
  const slabs = pair.primarySlabs;
  const perSlab = 8;
  for (let i = 0; i < 500; ) {
    const slab = slabs.acquire();
    for (let k = 0; k < perSlab; k++, i++) {
      const frame = outputFrame(`${i} `.padEnd(2000, '.'));
      // A gap before each: a run of its own.
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
  const heard = pair.client.received().map((text) => Number.parseInt(text, 10));
  assert.deepEqual(heard, [...Array(expected).keys()]);
  pair.assertNoLeak();
});

test('a VM that waits for a lease goes on with it, and one that waits for an uplink when that is gone', () => {
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

test('a fence drops what waits and what comes, for good', () => {
  const pair = protectedPair();
  pair.voice.lease(0);
  pair.pvm.send('matched, but silent', 'held');
  pair.svm.send('matched, but silent');
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
  pair.primary.announce(Buffer.alloc(64));
  assert.deepEqual(pair.client.received(), []);
  assert.deepEqual(pair.pvm.received(), []);
  assert.equal(pair.primary.comparator.primary.frames, 0);
  pair.assertNoLeak();
});

test('alone again: what was held leaves, the gate opens, and the link hears no more', () => {
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

test('a limit stops the reading of the VM; the rest is read at the checkpoint, and the next epoch flows', () => {
  const pair = protectedPair();
  const frames = LIMITS.heldFramesCheckpoint + 5000;
  const chunk = Array.from({ length: 1000 }, () => 'x');
  for (let i = 0; i < frames / 1000; i++) pair.pvm.send(...chunk);
  pair.settle();
  assert.equal(pair.primary.pressure(), 'limit-share');
  assert.equal(pair.primary.outputExhausted, false, 'not read any more');
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

test('holds of a path end with it: its ports go to the next one', () => {
  const pair = protectedPair();
  pair.primary.closeGate();
  const large = 'x'.repeat(60_000);
  for (let bytes = 0; bytes < LIMITS.gatedBytesMax + 1e6; bytes += large.length) pair.client.send(large);
  pair.settle();
  assert.ok(pair.client.near.unreadBytes() > 0, 'a full gate is back-pressure');
  assert.equal(pair.client.near.paused, true);
  pair.primary.fence();
  assert.equal(pair.client.near.paused, false);
  pair.settle();
  pair.assertNoLeak();
});

test('a fenced node takes back what its uplink’s socket has not taken', () => {
  const pair = new TwoPaths();
  pair.client.near.stalled = true;
  pair.pvm.send('late voice');
  pair.settle();
  pair.primary.fence();
  pair.client.near.unstall();
  pair.settle();
  assert.deepEqual(pair.client.received(), []);
  pair.assertNoLeak();
});

test('what was taken back is not confirmed: the secondary sends it', () => {
  const pair = protectedPair();
  pair.client.near.stalled = true;
  pair.pvm.send('answer');
  pair.svm.send('answer');
  pair.settle();
  pair.primary.fence();
  pair.settle();
  assert.equal(pair.secondary.retainedFrames, 1);
});

test('what the uplink lost is not confirmed: the secondary keeps it until the next checkpoint', () => {
  for (const answers of [['answer'], ['answer', 'that waited behind it']]) {
    const pair = protectedPair();
    pair.client.near.stalled = true;
    for (const answer of answers) {
      pair.pvm.send(answer);
      pair.svm.send(answer);
      pair.settle();
    }
    pair.client.near.close();
    pair.settle();
    assert.equal(pair.secondary.retainedFrames, answers.length);
    pair.checkpoint();
    assert.equal(pair.secondary.retainedFrames, 0);
  }
});

test('what is released while there is no uplink is not confirmed either', () => {
  const pair = protectedPair();
  pair.client.near.close();
  pair.settle();
  pair.pvm.send('answer');
  pair.svm.send('answer');
  pair.settle();
  assert.equal(pair.secondary.retainedFrames, 1);
});

test('a fenced node keeps nothing of what the SVM still says', () => {
  const pair = protectedPair();
  pair.primary.fence();
  pair.svm.send('goes on');
  pair.settle();
  assert.equal(pair.primary.comparator.secondary.frames, 0);
});

test('the secondary hears a SYN that the VM repeats after a failover in the VM’s own numbers', () => {
  const c: Connection = {
    version: 4,
    tags: [],
    stamped: false,
    clientOpens: true,
    clientIsn: 500,
    clientPort: 40000,
  };
  const [said, told] = [vmSyn(c, { isn: 1000, ts: 0 }), vmSyn(c, { isn: 5000, ts: 0 })];
  const view = new PacketView();
  parsePacket(said, 0, said.length, view);
  const key = new Int32Array(FLOW_KEY_WORDS);
  writeOutputKey(said, view, key);
  const pair = new TwoPaths();
  for (const path of [pair.primary, pair.secondary])
    path.offsets.import([{ key: [...key], vmIsn: 1000, seqDelta: 4000, tsDelta: 0, clientPort: 80 }]);
  pair.checkpoint();
  // The SVM is first, so that the PVM's leaves at once, and the link is not written before.
  pair.svm.write(said);
  pair.settle();
  pair.pvm.write(said);
  pair.settle();
  assert.deepEqual(pair.client.receivedFrames(), [told]);
  assert.equal(pair.secondary.offsets.size, 1, 'a SYN with another number would have ended the connection');
});
