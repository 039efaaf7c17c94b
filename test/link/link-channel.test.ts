import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { LESSON, type Lesson } from '../../src/compare/lesson.ts';
import { tcpKeyOf } from '../../src/flow/key.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { LIMITS } from '../../src/limits.ts';
import { IGNORE_LINK, LinkChannel, type LinkHandler } from '../../src/link/link-channel.ts';
import { type Hello, LINK_VERSION, MESSAGE } from '../../src/link/link-protocol.ts';
import type { SlabId } from '../../src/units.ts';
import { FakeStream, fakePair, framed, pumpAll, unframed } from '../io/fake-stream.ts';

/** A handler that records everything. */
function recorder(slabs: SlabPool) {
  const log: string[] = [];
  const closed: (string | null)[] = [];
  const text = (slab: SlabId, at: number, length: number) =>
    slabs.buffer(slab).toString('latin1', at, at + length);
  const handler: LinkHandler = {
    ...IGNORE_LINK,
    control: ({ type, body }) => log.push(`control ${type} ${JSON.stringify(body)}`),
    heartbeat: (number) => log.push(`heartbeat ${number}`),
    heartbeatAck: (number) => log.push(`ack ${number}`),
    input: (epoch, index, ...frame) => log.push(`input ${epoch}/${index} ${text(...frame)}`),
    output: (epoch, index, ...frame) => log.push(`output ${epoch}/${index} ${text(...frame)}`),
    teach: (epoch, lesson, ...frame) => log.push(`teach ${epoch} ${lesson} ${text(...frame)}`),
    confirm: (epoch, from, to) => log.push(`confirm ${epoch} ${from}-${to}`),
    watchSleep: (epoch, frames) => log.push(`watch ${epoch} ${frames}`),
    asleep: (epoch, frames) => log.push(`asleep ${epoch} ${frames}`),
    offsets: (map) => log.push(`offsets ${map.map(({ vmIsn }) => vmIsn).join(' ')}`),
    closed: (cause) =>
      closed.push(cause === null ? null : `${(cause as { code?: string }).code} ${cause.message}`),
  };
  return { log, closed, handler };
}

function sender() {
  const [near, far] = fakePair();
  const slabs = new SlabPool(64 * 1024, 8);
  const channel = new LinkChannel(near, slabs);
  channel.start();
  /** Puts frames side by side into one slab; returns where each one lies. */
  const place = (...frames: string[]) => {
    const slab = slabs.acquire();
    framed(...frames.map((text) => Buffer.from(text))).copy(slabs.buffer(slab));
    let at = 0;
    return frames.map((text) => {
      at += 4 + text.length;
      return { slab, at: at - text.length, length: text.length };
    });
  };
  return { near, far, slabs, channel, place };
}

function receiver(slabsMax = 4) {
  const [near, far] = fakePair();
  const slabs = new SlabPool(128 * 1024, slabsMax);
  const channel = new LinkChannel(near, slabs);
  const { log, closed, handler } = recorder(slabs);
  channel.start();
  return { near, far, slabs, channel, log, handler, closed };
}

/** One message of each kind, as it is on the wire, and how a receiver records it. */
function conversation(): { bytes: Buffer; log: string[] } {
  const { far, slabs, channel, place } = sender();
  const [one, two, apart] = place('one', 'two!', 'apart');
  channel.sendHeartbeat(MESSAGE.heartbeat, 1);
  channel.pushInput(3, 10, one.slab, one.at, one.length);
  channel.pushInput(3, 11, two.slab, two.at, two.length);
  channel.sendWatchSleep(3, 12);
  channel.pushOutput(3, 0, apart.slab, apart.at, apart.length);
  channel.sendAsleep(3, 0xffffffff);
  channel.sendBlind('hidden');
  for (const index of [0, 1, 2, 5, 4, 5]) channel.pushConfirm(3, index);
  channel.flush();
  channel.flushConfirms();
  channel.send(MESSAGE.gate, { epoch: 3 });
  channel.pushTeach(4, LESSON.tcpSyn, one.slab, one.at, one.length);
  channel.flush();
  channel.sendHeartbeat(MESSAGE.heartbeatAck, 0xffffffff);
  slabs.unref(one.slab);
  assert.equal(slabs.inUse, 0, 'a sent frame keeps no slab');
  return {
    bytes: far.inbox,
    log: [
      'heartbeat 1',
      'input 3/10 one',
      'input 3/11 two!',
      'watch 3 12',
      'output 3/0 apart',
      'asleep 3 4294967295',
      'control 19 {"message":"hidden"}',
      'confirm 3 0-2',
      'confirm 3 5-5',
      'confirm 3 4-5',
      'control 8 {"epoch":3}',
      'teach 4 1 one',
      'ack 4294967295',
    ],
  };
}

/** What a receiver is notified of. */
function received(bytes: Buffer): string[] {
  const { near, far, channel, log, handler } = receiver();
  channel.listen(handler);
  far.write(bytes, () => {});
  while (near.pump());
  return log;
}

/** The headers of frame messages. */
function headers(bytes: Buffer) {
  return unframed(bytes).map((message) => ({
    type: message[0],
    epoch: message.readUInt32BE(4),
    tag: message.readUInt32BE(8),
    bytes: message.length - 12,
  }));
}

test('what is sent is received, in order, split at any byte', () => {
  const { bytes, log: expected } = conversation();
  for (let split = 0; split <= bytes.length; split++) {
    const { near, far, slabs, channel, log, handler } = receiver();
    channel.listen(handler);
    far.write(bytes.subarray(0, split), () => {});
    near.pump();
    far.write(bytes.subarray(split), () => {});
    near.pump();
    assert.deepEqual(log, expected);
    channel.close();
    assert.equal(slabs.inUse, 0);
  }
});

test('what is sent is received byte by byte', () => {
  const { bytes, log: expected } = conversation();
  const { near, far, channel, log, handler } = receiver();
  channel.listen(handler);
  far.write(bytes, () => {});
  while (near.pump(1));
  assert.deepEqual(log, expected);
});

test('neighbours of one kind and epoch leave as one message, and no others', () => {
  const { near, channel, place } = sender();
  const [a, b, c] = place('a', 'b', 'c');
  [a, b, c].forEach(({ slab, at, length }, index) => {
    channel.pushInput(0, index, slab, at, length);
  });
  channel.flush();
  assert.equal(near.writes, 2, 'one header, one run');
  channel.pushInput(0, 3, a.slab, a.at, a.length);
  channel.pushOutput(0, 0, b.slab, b.at, b.length);
  channel.pushOutput(1, 0, c.slab, c.at, c.length);
  channel.flush();
  assert.equal(near.writes, 8);
  assert.equal(near.corks, 0);
});

test('a message has frames whose indices follow each other, and no others', () => {
  const { far, channel, place } = sender();
  const [a, b, c, d] = place('a', 'b', 'c', 'd');
  channel.pushOutput(2, 7, a.slab, a.at, a.length);
  channel.pushOutput(2, 8, b.slab, b.at, b.length);
  channel.pushOutput(2, 12, c.slab, c.at, c.length);
  channel.pushOutput(2, 13, d.slab, d.at, d.length);
  channel.flush();
  assert.deepEqual(received(far.inbox), ['output 2/7 a', 'output 2/8 b', 'output 2/12 c', 'output 2/13 d']);
});

/** Lessons of a later version of this code. */
const [SYN, OTHER, THIRD] = [LESSON.tcpSyn, 3 as Lesson, 4 as Lesson];

test('a message teaches one lesson, and a frame that teaches is never taken for one with an index', () => {
  const { near, far, channel, place } = sender();
  const [a, b, c, d, e] = place('a', 'b', 'c', 'd', 'e');
  channel.pushTeach(2, SYN, a.slab, a.at, a.length);
  channel.pushTeach(2, SYN, b.slab, b.at, b.length);
  // The index that would follow a frame with index 1 is 2.
  channel.pushTeach(2, OTHER, c.slab, c.at, c.length);
  channel.pushTeach(2, THIRD, d.slab, d.at, d.length);
  channel.pushInput(2, 4, e.slab, e.at, e.length);
  channel.flush();
  assert.equal(near.writes, 8, 'four messages: SYN twice, the two others, and the input');
  assert.deepEqual(
    headers(far.inbox).map(({ type, epoch, tag, bytes }) => [type, epoch, tag, bytes]),
    [
      [MESSAGE.teach, 2, SYN, 10],
      [MESSAGE.teach, 2, OTHER, 5],
      [MESSAGE.teach, 2, THIRD, 5],
      [MESSAGE.input, 2, 4, 5],
    ],
  );
});

test('a frame that teaches is sent as it is now, however it is changed later', () => {
  const { far, slabs, channel, place } = sender();
  const [frame, other] = place('before', 'other');
  const bytes = slabs.buffer(frame.slab);
  channel.pushTeach(2, SYN, other.slab, other.at, other.length);
  channel.sendTeach(2, SYN, bytes.subarray(frame.at, frame.at + frame.length));
  bytes.write('after!', frame.at);
  channel.flush();
  assert.deepEqual(received(far.inbox), ['teach 2 1 other', 'teach 2 1 before']);
});

test('a lesson that this node does not know garbles the link', () => {
  const { far, channel, place } = sender();
  const [frame] = place('x');
  channel.pushTeach(0, OTHER, frame.slab, frame.at, frame.length);
  channel.flush();
  const other = receiver();
  other.channel.listen(other.handler);
  other.far.write(far.inbox, () => {});
  other.near.pump();
  assert.match(other.closed[0] ?? '', /^COLO_LINK_GARBLED .*lesson 3/);
});

test('frames side by side that are too long for one message leave as several', () => {
  const [near, far] = fakePair();
  const slabs = new SlabPool(256 * 1024, 2);
  const channel = new LinkChannel(near, slabs);
  const frames = Array.from({ length: 10 }, () => Buffer.alloc(9000));
  const slab = slabs.acquire();
  framed(...frames).copy(slabs.buffer(slab));
  frames.forEach(({ length }, index) => {
    channel.pushInput(0, index, slab, 4 + index * (4 + length), length);
  });
  channel.flush();
  const sent = headers(far.inbox);
  assert.deepEqual(
    sent.map(({ tag }) => tag),
    [0, Math.floor(LIMITS.linkRunBytesMax / 9004)],
  );
});

test('a confirmation names its own epoch, whatever else was sent', () => {
  const { far, channel, place } = sender();
  const [frame] = place('x');
  channel.pushInput(4, 0, frame.slab, frame.at, frame.length);
  channel.flush();
  far.inbox = Buffer.alloc(0);
  channel.pushConfirm(5, 0);
  channel.send(MESSAGE.takeover, {});
  assert.equal(far.inbox.readInt8(4), MESSAGE.takeover, 'nothing but flushConfirms sends confirmations');
  far.inbox = Buffer.alloc(0);
  channel.flushConfirms();
  assert.equal(
    far.inbox.toString('hex', 0, 20),
    '00000010' + '07000000' + '00000005' + '00000000' + '00000000',
  );
});

test('a confirmation of an epoch that is over is not sent', () => {
  const { far, channel } = sender();
  channel.pushConfirm(5, 3);
  channel.pushConfirm(6, 0);
  channel.flushConfirms();
  assert.equal(far.inbox.toString('hex', 8), '00000006' + '00000000' + '00000000');
  channel.pushConfirm(6, 1);
  channel.dropConfirms();
  far.inbox = Buffer.alloc(0);
  channel.flushConfirms();
  assert.equal(far.inbox.length, 0);
});

test('many separate confirmations are split over messages, and none is lost', () => {
  const { far, channel } = sender();
  for (let i = 0; i < 5000; i++) channel.pushConfirm(1, 2 * i);
  channel.flushConfirms();
  const other = receiver();
  other.channel.listen(other.handler);
  other.far.write(far.inbox, () => {});
  while (other.near.pump());
  assert.deepEqual(
    other.log,
    Array.from({ length: 5000 }, (_, i) => `confirm 1 ${2 * i}-${2 * i}`),
  );
});

const message = (type: number, body: Buffer | string) =>
  framed(Buffer.concat([Buffer.from([type, 0, 0, 0]), Buffer.from(body as string)]));

for (const [name, bytes, code] of [
  ['a length of zero', Buffer.alloc(4), 'COLO_STREAM_FRAMING'],
  ['an impossible length', Buffer.from('GET / HTTP/1.1\r\n'), 'COLO_STREAM_FRAMING'],
  ['a message without its header', framed(Buffer.from([1, 0])), 'COLO_LINK_GARBLED'],
  ['a control message that is not JSON', message(MESSAGE.gate, '{"epoch":'), 'COLO_LINK_GARBLED'],
  ['frames without their header', message(MESSAGE.input, Buffer.alloc(7)), 'COLO_LINK_GARBLED'],
  ['a frame of no bytes', message(MESSAGE.input, Buffer.alloc(12)), 'COLO_LINK_GARBLED'],
  ['a frame longer than its message', message(MESSAGE.output, Buffer.alloc(13, 9)), 'COLO_LINK_GARBLED'],
  [
    'bytes after the last frame',
    message(MESSAGE.input, Buffer.from([...Buffer.alloc(8), 0, 0, 0, 1, 7, 7])),
    'COLO_LINK_GARBLED',
  ],
  ['a heartbeat without its number', message(MESSAGE.heartbeat, ''), 'COLO_LINK_GARBLED'],
  ['half a question about sleep', message(MESSAGE.watchSleep, Buffer.alloc(4)), 'COLO_LINK_GARBLED'],
  [
    'news of sleep with more than two numbers',
    message(MESSAGE.asleep, Buffer.alloc(12)),
    'COLO_LINK_GARBLED',
  ],
  ['half a confirmation', message(MESSAGE.confirm, Buffer.alloc(8)), 'COLO_LINK_GARBLED'],
] as const) {
  test(`${name} closes the link, once, and leaks nothing`, () => {
    const { near, far, slabs, channel, log, handler, closed } = receiver();
    channel.listen(handler);
    far.write(Buffer.concat([message(MESSAGE.heartbeat, Buffer.from([0, 0, 0, 9])), bytes]), () => {});
    pumpAll(near, far);
    assert.equal(log[0], 'heartbeat 9');
    assert.equal(closed.length, 1);
    assert.match(closed[0] ?? '', new RegExp(`^${code} `));
    assert.equal(near.open, false);
    assert.equal(channel.isOpen, false);
    // A real stream asks for its next buffer even if it was closed within a read.
    assert.equal(near.sink?.buffer(), null);
    assert.equal(slabs.inUse, 0);
  });
}

test('random garbage never throws and never leaks', () => {
  fc.assert(
    fc.property(fc.array(fc.uint8Array({ maxLength: 40 }), { maxLength: 10 }), (pieces) => {
      const { near, far, slabs, channel, handler, closed } = receiver();
      channel.listen(handler);
      for (const piece of pieces) {
        far.write(message(piece[0] ?? 0, Buffer.from(piece)), () => {});
        near.pump();
      }
      channel.close();
      assert.equal(closed.length, 1);
      assert.equal(slabs.inUse, 0);
    }),
  );
});

test('a listener first gets what came before it listened, in order', async () => {
  const { near, far, channel, log, handler } = receiver();
  const hello: Hello = {
    version: LINK_VERSION,
    channel: 'data',
    pair: 'p',
    node: 'a',
    generation: 1,
    role: 'primary',
    leaseMs: 250,
  };
  channel.listen({
    ...handler,
    control: ({ type }) => {
      log.push(`first ${type}`);
      channel.unlisten();
    },
  });
  const said = sender();
  said.channel.send(MESSAGE.hello, hello);
  said.channel.sendHeartbeat(MESSAGE.heartbeat, 1);
  said.channel.send(MESSAGE.startSync, { generation: 1, channels: ['state'] });
  far.write(said.far.inbox, () => {});
  near.pump();
  assert.deepEqual(log, ['first 1']);
  channel.listen(handler);
  assert.deepEqual(log, ['first 1'], 'not from within `listen`');
  await Promise.resolve();
  assert.deepEqual(log, ['first 1', 'heartbeat 1', 'control 11 {"generation":1,"channels":["state"]}']);
});

test('a peer that sends more than a session expects before it begins is garbled', async () => {
  const { near, far, channel, handler, closed } = receiver();
  for (let i = 0; i < 17; i++) far.write(message(MESSAGE.heartbeat, Buffer.alloc(4)), () => {});
  near.pump();
  channel.listen(handler);
  assert.deepEqual(closed, [], 'not from within `listen`');
  await Promise.resolve();
  assert.equal(closed.length, 1);
  assert.match(closed[0] ?? '', /^COLO_LINK_GARBLED /);
});

test('a closed channel sends nothing and keeps no slab', () => {
  const { slabs, channel, place } = sender();
  const [frame] = place('x');
  channel.pushInput(0, 0, frame.slab, frame.at, frame.length);
  channel.close();
  channel.pushInput(0, 1, frame.slab, frame.at, frame.length);
  channel.send(MESSAGE.takeover, {});
  channel.sendHeartbeat(MESSAGE.heartbeat, 1);
  slabs.unref(frame.slab);
  assert.equal(slabs.inUse, 0);
});

test('a channel without a free slab reads nothing, and loses nothing', () => {
  const { bytes, log: expected } = conversation();
  const { near, far, slabs, channel, log, handler } = receiver(1);
  channel.listen(handler);
  const taken = slabs.acquire();
  far.write(bytes, () => {});
  assert.equal(near.pump(), false);
  assert.equal(near.paused, true);
  slabs.unref(taken);
  near.pump();
  assert.deepEqual(log, expected);
});

test('a slab that becomes free after the end does not start the reading again', () => {
  const { near, slabs, channel } = receiver(1);
  const taken = slabs.acquire();
  assert.equal(near.sink?.buffer(), null);
  channel.close();
  near.paused = true;
  slabs.unref(taken);
  assert.equal(near.paused, true);
});

test('a detached stream keeps no slab, and is open for its next user', () => {
  const { near, far, slabs, channel, log, handler } = receiver();
  channel.listen(handler);
  far.write(message(MESSAGE.heartbeat, Buffer.alloc(4)), () => {});
  near.pump();
  channel.unlisten();
  const stream = channel.detach();
  assert.ok(stream instanceof FakeStream);
  assert.equal(slabs.inUse, 0);
  assert.deepEqual(log, ['heartbeat 0']);
  assert.equal(stream.open, true);
});

for (const [what, bytes] of [
  ['a part of a message', Buffer.alloc(3)],
  ['a whole message', message(MESSAGE.heartbeat, Buffer.alloc(4))],
] as const) {
  test(`a peer that sends ${what} before the stream has its user is garbled`, () => {
    const { near, far, slabs, channel } = receiver();
    far.write(bytes, () => {});
    near.pump();
    assert.throws(() => channel.detach(), { code: 'COLO_LINK_GARBLED' });
    assert.equal(near.open, false);
    assert.equal(slabs.inUse, 0);
  });
}

test('a channel has one listener', () => {
  const { channel, handler } = receiver();
  channel.listen(handler);
  assert.throws(() => channel.listen(handler), { code: 'COLO_INVARIANT' });
  assert.throws(() => channel.detach(), { code: 'COLO_INVARIANT' });
  channel.unlisten();
  channel.listen(handler);
});

test('the listener is notified of room when frames have left, and of the end once, last', () => {
  const { near, channel, place } = sender();
  const log: string[] = [];
  channel.listen({ ...IGNORE_LINK, written: () => log.push('written'), closed: () => log.push('closed') });
  const [frame] = place('x');
  near.stalled = true;
  channel.pushInput(0, 0, frame.slab, frame.at, frame.length);
  channel.flush();
  assert.deepEqual(log, []);
  near.unstall();
  assert.deepEqual(log, ['written']);
  channel.close();
  near.pump();
  assert.deepEqual(log, ['written', 'closed']);
});

test('a map of offsets is passed on when it is complete', () => {
  const { far, channel } = sender();
  const address = 'f'.repeat(32);
  const key = tcpKeyOf({
    family: 6,
    vlans: [],
    localAddress: address,
    localPort: 65535,
    remoteAddress: address,
    remotePort: 65535,
  });
  const map = Array.from({ length: 300 }, (_, vmIsn) => ({
    key,
    vmIsn,
    seqDelta: -0x80000000,
    tsDelta: -0x80000000,
    clientPort: 65535,
  }));
  channel.sendOffsets(map);
  channel.sendOffsets([]);
  assert.deepEqual(received(far.inbox), [`offsets ${map.map(({ vmIsn }) => vmIsn).join(' ')}`, 'offsets ']);
});
