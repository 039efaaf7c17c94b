import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { RewritePath, type RewritePhase } from '../../src/dropin/rewrite-path.ts';
import type { Framing } from '../../src/frames/frame-reader.ts';
import type { FramePort } from '../../src/io/frame-port.ts';
import { LIMITS, type Limits } from '../../src/limits.ts';
import { FakeTime } from '../checkpoint/fake-time.ts';
import { arpFrame, u32, udpFrame } from '../frames.ts';
import { type FakeStream, fakePair, framed, pumpAll, unframed } from '../io/fake-stream.ts';
import {
  anyConnection,
  anyExchange,
  anyNumbers,
  CONNECTION,
  type Connection,
  clientSyn,
  type Exchange,
  fromClient,
  fromVm,
  handshakeAck,
  type Numbers,
  PVM,
  SVM,
  vmSyn,
} from '../translate/connection.ts';
import { quoting } from '../translate/quotes.ts';

/** All four peers of one path; frames are written with `write` and read with `received`. */
class Rig {
  readonly path: RewritePath;
  readonly time = new FakeTime();
  readonly events: string[] = [];
  readonly near = new Map<FramePort, FakeStream>();
  private readonly far = new Map<FramePort, FakeStream>();
  private readonly framing: Framing;

  constructor(phase: RewritePhase = 'following', framing: Framing = 'plain', limits: Partial<Limits> = {}) {
    this.framing = framing;
    this.path = new RewritePath({
      framing,
      phase,
      hashSeed: 1,
      timers: this.time,
      events: {
        dropping: (place) => this.events.push(`dropping ${place}`),
        dropped: (place, frames) => this.events.push(`dropped ${place} ${frames}`),
      },
      limits: { ...LIMITS, ...limits },
    });
    for (const port of this.ports) this.join(port);
  }

  get ports(): FramePort[] {
    const { path } = this;
    return [path.in, path.guestIn, path.guestOut, path.out];
  }

  join(port: FramePort): void {
    const [near, far] = fakePair();
    this.near.set(port, near);
    this.far.set(port, far);
    port.attach(near);
  }

  leave(port: FramePort): void {
    this.far.get(port)!.close();
    pumpAll(this.near.get(port)!);
  }

  /** Writes bytes as the peer of `port`; they are not read before `pump`. */
  write(port: FramePort, bytes: Buffer): void {
    this.far.get(port)!.write(bytes, () => {});
  }

  pump(): void {
    pumpAll(...this.near.values());
  }

  received(port: FramePort): Buffer[] {
    const far = this.far.get(port)!;
    const bytes = far.inbox;
    far.inbox = Buffer.alloc(0);
    return this.framing === 'plain' ? unframed(bytes) : unframedVnet(bytes);
  }

  client(...frames: Buffer[]): Buffer[] {
    this.write(this.path.in, framed(...frames));
    this.pump();
    return this.received(this.path.guestIn);
  }

  vm(...frames: Buffer[]): Buffer[] {
    this.write(this.path.guestOut, framed(...frames));
    this.pump();
    return this.received(this.path.out);
  }

  open(c: Connection, pvm: Numbers, svm: Numbers): void {
    if (c.clientOpens) same(this.client(clientSyn(c, pvm)), [clientSyn(c, pvm)]);
    same(this.vm(vmSyn(c, svm)), [vmSyn(c, svm)]);
    if (c.clientOpens) same(this.client(handshakeAck(c, pvm)), [handshakeAck(c, svm)]);
    else same(this.client(clientSyn(c, pvm)), [clientSyn(c, svm)]);
  }

  translates(c: Connection, pvm: Numbers, svm: Numbers, exchanges: Exchange[]): void {
    for (const exchange of exchanges) {
      same(this.vm(fromVm(c, svm, exchange)), [fromVm(c, pvm, exchange)]);
      same(this.client(fromClient(c, pvm, exchange)), [fromClient(c, svm, exchange)]);
    }
  }

  close(): void {
    this.path.close();
    assert.equal(this.path.slabsInUse, 0, 'a slab is still in use');
  }
}

function same(got: Buffer[], expected: Buffer[]): void {
  assert.deepEqual(
    got.map((frame) => frame.toString('hex')),
    expected.map((frame) => frame.toString('hex')),
  );
}

function unframedVnet(bytes: Buffer): Buffer[] {
  const frames: Buffer[] = [];
  for (let at = 0; at < bytes.length; ) {
    const end = at + 8 + bytes.readUInt32BE(at);
    assert.ok(end <= bytes.length, 'the stream ends inside a frame');
    frames.push(bytes.subarray(at + 4, end));
    at = end;
  }
  return frames;
}

const exchanges = fc.array(anyExchange, { minLength: 1, maxLength: 4 });
const EXCHANGE: Exchange = {
  clientAt: 9,
  vmAt: 5,
  time: 3,
  blocks: [[20, 30]],
  payload: Buffer.from('data'),
};

test("a connection, whoever opens it: the SVM receives its own numbers and the comparator the PVM's", () => {
  fc.assert(
    fc.property(anyConnection, anyNumbers, anyNumbers, exchanges, (c, pvm, svm, all) => {
      const rig = new Rig();
      rig.open(c, pvm, svm);
      rig.translates(c, pvm, svm, all);
      rig.close();
    }),
  );
});

test('a checkpoint ends translation, also for frames that were retained', () => {
  fc.assert(
    fc.property(anyConnection, anyNumbers, anyNumbers, exchanges, (c, pvm, svm, all) => {
      const rig = new Rig();
      rig.open(c, pvm, svm);
      rig.path.stop();
      const retained = all.map((one) => fromClient(c, pvm, one));
      same(rig.client(...retained), []);
      assert.equal(rig.path.commit(), 1);
      same(rig.received(rig.path.guestIn), retained);
      rig.translates(c, pvm, pvm, all);
      rig.close();
    }),
  );
});

test('while the SVM is stopped, its output from before is dropped, and later output waits until its numbers are known', () => {
  for (const end of ['commit', 'unchanged', 'wait', 'promote'] as const) {
    const rig = new Rig();
    const { path } = rig;
    rig.open(CONNECTION, PVM, SVM);
    rig.write(path.guestOut, framed(fromVm(CONNECTION, SVM, EXCHANGE)));
    path.stop();
    rig.pump();
    const numbers = end === 'commit' ? PVM : SVM;
    same(rig.vm(fromVm(CONNECTION, numbers, EXCHANGE)), []);
    assert.equal(path.counters.droppedOutput, 1);
    assert.equal(rig.near.get(path.guestOut)!.unreadBytes(), 0, 'everything is read');
    path[end]();
    same(rig.received(path.out), end === 'wait' ? [] : [fromVm(CONNECTION, PVM, EXCHANGE)]);
    rig.close();
  }
});

test('a stop that is not a checkpoint changes no numbers', () => {
  const rig = new Rig();
  rig.open(CONNECTION, PVM, SVM);
  rig.path.stop();
  same(rig.client(fromClient(CONNECTION, PVM, EXCHANGE)), []);
  rig.path.unchanged();
  same(rig.received(rig.path.guestIn), [fromClient(CONNECTION, SVM, EXCHANGE)]);
  rig.translates(CONNECTION, PVM, SVM, [EXCHANGE]);
  rig.close();
});

test('after a failover living connections are translated until they end, and new ones are left alone', () => {
  fc.assert(
    fc.property(anyConnection, anyNumbers, anyNumbers, exchanges, (c, pvm, svm, all) => {
      const rig = new Rig();
      rig.open(c, pvm, svm);
      rig.path.stop();
      const retained = fromClient(c, pvm, all[0]);
      same(rig.client(retained), []);
      assert.equal(rig.path.promote(), 0);
      same(rig.received(rig.path.guestIn), [fromClient(c, svm, all[0])]);
      rig.translates(c, pvm, svm, all);
      assert.equal(rig.path.promote(), 0, 'promoted already');
      rig.translates(c, pvm, svm, all);

      const own = { isn: svm.isn + 12345, ts: svm.ts };
      rig.open(c, own, own);
      rig.translates(c, own, own, all);
      assert.equal(rig.path.connections, 0);
      rig.close();
    }),
  );
});

test('a survivor that becomes a secondary again translates nothing', () => {
  const rig = new Rig();
  rig.open(CONNECTION, PVM, SVM);
  rig.path.promote();
  rig.path.wait();
  assert.equal(rig.path.connections, 0);
  same(rig.client(arpFrame()), []);
  rig.path.commit();
  rig.translates(CONNECTION, PVM, PVM, [EXCHANGE]);
  rig.close();
});

test('an SVM that is promoted a second time continues its connections', () => {
  const rig = new Rig();
  rig.open(CONNECTION, PVM, SVM);
  rig.path.promote();
  rig.translates(CONNECTION, PVM, SVM, [EXCHANGE]);
  rig.path.commit();
  const young = { ...CONNECTION, clientPort: 40001 };
  rig.open(young, PVM, SVM);
  assert.equal(rig.path.promote(), 0);
  rig.translates(young, PVM, SVM, [EXCHANGE]);
  rig.translates(CONNECTION, PVM, PVM, [EXCHANGE]);
  rig.close();
});

test('an SVM without state receives nothing and sends nothing', () => {
  const rig = new Rig('waiting');
  same(rig.client(arpFrame()), []);
  same(rig.vm(arpFrame()), []);
  assert.equal(rig.path.counters.droppedInput, 1);
  assert.equal(rig.path.counters.droppedOutput, 1);
  rig.path.commit();
  same(rig.client(arpFrame()), [arpFrame()]);
  rig.close();
});

test('a frame that is not TCP passes unchanged', () => {
  const rig = new Rig();
  const frames = [arpFrame(), udpFrame({ payload: Buffer.from('x') }), Buffer.from('short')];
  same(rig.client(...frames), frames);
  same(rig.vm(...frames), frames);
  rig.close();
});

test('the framing of a peer that reconnects starts at its first byte, and connections are still translated', () => {
  for (const place of ['in', 'guestIn', 'guestOut', 'out'] as const) {
    const rig = new Rig();
    const port = rig.path[place];
    rig.open(CONNECTION, PVM, SVM);
    rig.write(port, framed(arpFrame()).subarray(0, 30));
    rig.pump();
    rig.leave(port);
    rig.client(arpFrame());
    rig.vm(arpFrame());
    rig.join(port);
    rig.translates(CONNECTION, PVM, SVM, [EXCHANGE]);
    rig.close();
  }
});

test('input for a stopped SVM: reading goes on, and the newest frames above the limit are dropped', async () => {
  for (const limits of [{ gatedBytesMax: 500 }, { asideFramesMax: 5 }]) {
    const rig = new Rig('following', 'plain', limits);
    const { path } = rig;
    path.stop();
    const frames = Array.from({ length: 8 }, (_, i) => udpFrame({ payload: Buffer.alloc(58, i) }));
    same(rig.client(...frames), []);
    assert.equal(rig.near.get(path.in)!.unreadBytes(), 0);
    path.commit();
    same(rig.received(path.guestIn), frames.slice(0, 5));
    assert.equal(path.drops.in.frames, 3);
    await rig.time.pass(2000);
    assert.deepEqual(rig.events, ['dropping in', 'dropped in 3']);
    same(rig.client(arpFrame()), [arpFrame()]);
    rig.close();
  }
});

test('output of an SVM whose numbers are not known: above the limit the newest frames are dropped', () => {
  const rig = new Rig('following', 'plain', { asideFramesMax: 5 });
  const { path } = rig;
  path.stop();
  const frames = Array.from({ length: 8 }, (_, i) => udpFrame({ payload: Buffer.alloc(58, i) }));
  same(rig.vm(...frames), []);
  path.unchanged();
  same(rig.received(path.out), frames.slice(0, 5));
  assert.equal(path.drops.guestOut.frames, 3);
  rig.close();
  assert.deepEqual(
    rig.events,
    ['dropping guest-out', 'dropped guest-out 3'],
    'the end of a path ends the spell',
  );
});

test('a peer that takes no frame: reading goes on, the newest frames are dropped, and the rest leaves whole', () => {
  for (const [from, to] of [
    ['guestOut', 'out'],
    ['in', 'guestIn'],
  ] as const) {
    const rig = new Rig('following', 'plain', { dropInUnsentBytesMax: 1 << 20 });
    const { path } = rig;
    const near = rig.near.get(path[to])!;
    near.stalled = true;
    const frames = Array.from({ length: 100 }, (_, i) => udpFrame({ payload: Buffer.alloc(60_000, i) }));
    rig.write(path[from], framed(...frames));
    rig.pump();
    assert.equal(rig.near.get(path[from])!.unreadBytes(), 0);
    assert.ok(path[to].queuedBytes <= (1 << 20) + 4 * frames.length);
    near.unstall();
    rig.pump();
    const received = rig.received(path[to]);
    same(received, frames.slice(0, received.length));
    assert.equal(received.length + path.drops[to].frames, frames.length);
    assert.ok(received.length >= 17);
    same(rig[to === 'out' ? 'vm' : 'client'](arpFrame()), [arpFrame()]);
    rig.close();
  }
});

test('memory is never short for a reader: a flood that nobody takes is read and dropped', () => {
  const rig = new Rig('following', 'plain', { slabsMax: 24, slabBytes: 80_000 });
  const { path } = rig;
  for (const to of [path.guestIn, path.out]) rig.near.get(to)!.stalled = true;
  const frames = Array.from({ length: 300 }, (_, i) => udpFrame({ payload: Buffer.alloc(20_000, i) }));
  for (const from of [path.in, path.guestOut]) {
    rig.write(from, framed(...frames));
    rig.pump();
    assert.equal(rig.near.get(from)!.unreadBytes(), 0);
  }
  assert.ok(path.slabsInUse < 24);
  assert.ok(path.drops.in.frames > 0 && path.drops.guestOut.frames > 0);
  for (const to of [path.guestIn, path.out]) rig.near.get(to)!.unstall();
  same(rig.client(arpFrame()).slice(-1), [arpFrame()]);
  same(rig.vm(arpFrame()).slice(-1), [arpFrame()]);
  rig.close();
});

/** A frame with vnet framing. `partial` is its partial checksum, null if its checksum is complete. */
function vnetFramed(frame: Buffer, partial: number | null): Buffer {
  const header = Buffer.from([partial === null ? 0 : 1, 1, 66, 0, 0xa8, 0x05, 34, 0, 16, 0, 0, 0]);
  const copy = Buffer.from(frame);
  if (partial !== null) copy.writeUInt16BE(partial, 34 + 16);
  return Buffer.concat([u32(header.length + copy.length, header.length), header, copy]);
}

test('vnet framing: the packet after the header is translated, and a partial checksum stays', () => {
  const rig = new Rig('following', 'vnet');
  const { path } = rig;
  const c = { ...CONNECTION, stamped: false };
  const send = (port: FramePort, frame: Buffer, partial: number | null): Buffer => {
    rig.write(port, vnetFramed(frame, partial));
    rig.pump();
    const [frameReceived, ...more] = rig.received(port === path.in ? path.guestIn : path.out);
    assert.equal(more.length, 0);
    return frameReceived;
  };
  const is = (got: Buffer, frame: Buffer, partial: number | null): void =>
    same([got], [vnetFramed(frame, partial).subarray(4)]);
  is(send(path.in, clientSyn(c, PVM), 0xbeef), clientSyn(c, PVM), 0xbeef);
  is(send(path.guestOut, vmSyn(c, SVM), 0xbeef), vmSyn(c, SVM), 0xbeef);
  is(send(path.in, handshakeAck(c, PVM), null), handshakeAck(c, SVM), null);
  const large = { ...EXCHANGE, payload: Buffer.alloc(64_000, 'x') };
  for (const partial of [0x1234, null]) {
    is(send(path.guestOut, fromVm(c, SVM, large), partial), fromVm(c, PVM, large), partial);
    is(send(path.in, fromClient(c, PVM, EXCHANGE), partial), fromClient(c, SVM, EXCHANGE), partial);
  }
  assert.equal(path.connections, 1);
  rig.close();
});

test('vnet framing: an error keeps its partial checksum, and the segment that it quotes is translated', () => {
  for (const version of [4, 6] as const) {
    const rig = new Rig('following', 'vnet');
    const { path } = rig;
    const c = { ...CONNECTION, version, stamped: false };
    const start = version === 4 ? 34 : 54;
    const framedAs = (frame: Buffer, partial: number | null): Buffer => {
      const header = Buffer.from([partial === null ? 0 : 1, 0, 0, 0, 0, 0, start, 0, 2, 0, 0, 0]);
      const copy = Buffer.from(frame);
      if (partial !== null) copy.writeUInt16BE(partial, start + 2);
      return Buffer.concat([u32(header.length + copy.length, header.length), header, copy]);
    };
    const becomes = (port: FramePort, frame: Buffer, expected: Buffer, partial: number | null): void => {
      rig.write(port, framedAs(frame, partial));
      rig.pump();
      same(rig.received(port === path.in ? path.guestIn : path.out), [
        framedAs(expected, partial).subarray(4),
      ]);
    };
    becomes(path.guestOut, vmSyn(c, SVM), vmSyn(c, SVM), null);
    becomes(path.in, handshakeAck(c, PVM), handshakeAck(c, SVM), null);
    const said = (vm: Numbers) => quoting(fromVm(c, vm, EXCHANGE), false, { version });
    const received = (vm: Numbers) => quoting(fromClient(c, vm, EXCHANGE), true, { version });
    for (const partial of [0x1234, null]) {
      becomes(path.in, said(PVM), said(SVM), partial);
      becomes(path.guestOut, received(SVM), received(PVM), partial);
    }
    rig.close();
  }
});
