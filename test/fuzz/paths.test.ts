/**
 * Whole paths with hostile frames on every stream, in reads of any size: a path drops only what it may drop, keeps the
 * order of each flow whatever happens to its checkpoints, and frees every slab.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InputFilter } from '../../src/datapath/input-filter.ts';
import { ComparePath } from '../../src/dropin/compare-path.ts';
import { RewritePath } from '../../src/dropin/rewrite-path.ts';
import type { Framing } from '../../src/frames/frame-reader.ts';
import type { FramePort } from '../../src/io/frame-port.ts';
import { LIMITS, type Limits } from '../../src/limits.ts';
import type { Instant } from '../../src/units.ts';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import { TwoPaths } from '../datapath/two-paths.ts';
import type { Dice } from '../dice.ts';
import { ACK, FIN, RST, SYN, u32, VM_MAC } from '../frames.ts';
import { type FakeStream, fakePair } from '../io/fake-stream.ts';
import { fuzz } from './cases.ts';
import { hostileFrame } from './hostile.ts';
import { read } from './output-commit.ts';
import { beginsTcp, quotedTcp } from './quoted.ts';

const SMALL: Limits = {
  ...LIMITS,
  slabBytes: 128 * 1024,
  slabsMax: 32,
  heldSlabsMax: 8,
  heldFramesMax: 256,
  heldFramesCheckpoint: 128,
  heldSecondaryMax: 64,
  flowsMax: 64,
  flowIdleMsMax: 1e9,
  translationsMax: 16,
  earlyFramesMax: 32,
  turnFramesMax: 24,
  flowFramesMax: 48,
  fragmentedDatagramsMax: 8,
  fragmentsPerDatagramMax: 8,
};
/** There is room for everything that these tests send between two commits. */
const NO_DROPS = {
  dropping: (place: string) => assert.fail(`frames are dropped at ${place}`),
  dropped: () => {},
};
/** A read brings fewer frames than there is room for between a limit and the end. */
const READ_BYTES_MAX = 600;

function anyFrame(dice: Dice, fromVm: boolean): Buffer {
  for (;;) {
    const frame = hostileFrame(dice, fromVm);
    if (frame.length > 0) return frame;
  }
}

/** The other end of a port's stream. */
class FarEnd {
  readonly near: FakeStream;
  private readonly far: FakeStream;
  private readonly framing: Framing;

  constructor(port: FramePort, framing: Framing) {
    [this.near, this.far] = fakePair();
    this.framing = framing;
    port.attach(this.near);
  }

  send(dice: Dice, frame: Buffer): Buffer {
    if (this.framing === 'plain') {
      this.far.write(Buffer.concat([u32(frame.length), frame]), () => {});
      return frame;
    }
    const header = dice.bytes(dice.pick([0, 10, 12, 20, 24]));
    const whole = Buffer.concat([header, frame]);
    this.far.write(Buffer.concat([u32(whole.length, header.length), whole]), () => {});
    return whole;
  }

  received(): Buffer[] {
    return this.receivedWithHeaders().map(({ bytes }) => bytes);
  }

  /** `headerBytes` of a frame are its virtio-net header. */
  receivedWithHeaders(): { bytes: Buffer; headerBytes: number }[] {
    const frames: { bytes: Buffer; headerBytes: number }[] = [];
    const bytes = this.far.inbox;
    const prefix = this.framing === 'plain' ? 4 : 8;
    for (let at = 0; at < bytes.length; ) {
      const end = at + prefix + bytes.readUInt32BE(at);
      const headerBytes = this.framing === 'plain' ? 0 : bytes.readUInt32BE(at + 4);
      frames.push({ bytes: bytes.subarray(at + prefix, end), headerBytes });
      at = end;
    }
    this.far.inbox = Buffer.alloc(0);
    return frames;
  }
}

/** A TCP segment, the beginning of one, or an error that quotes one. */
function mayChange(frame: Buffer): boolean {
  const view = new PacketView();
  const kind = parsePacket(frame, 0, frame.length, view);
  if (kind === PACKET.malformed) return false;
  return kind === PACKET.tcp || beginsTcp(frame, view) || quotedTcp(frame, view) !== null;
}

/** What a frame of the PVM carries: a TCP segment may leave with a lesser ACK and window. `hex`: with those. */
type Carried = {
  flow: string;
  hex: string;
  what: string;
  part: string;
  kind: 'segment' | 'bare ACK' | 'other';
};

function carriedBy(bytes: Buffer, headerBytes: number): Carried | null {
  // The second byte of a virtio-net header says whether the frame is yet to be cut into segments.
  const said = read(bytes.subarray(headerBytes), headerBytes > 0 && bytes[1] !== 0);
  if (said === null) return null;
  const hex = bytes.toString('hex');
  // ARP and the like overtake held output.
  const flow = said.harmless ? 'harmless' : said.flow;
  if (said.tcp === null) return { flow, hex, what: hex, part: '', kind: 'other' };
  const { flags, seq, payload } = said.tcp;
  const special = flags & (SYN | FIN | RST);
  const part = `${flow} ${seq >>> 0} ${payload.toString('hex')}`;
  const isBare = special === 0 && payload.length === 0 && (flags & ACK) !== 0;
  return { flow, hex, what: `${special} ${part}`, part, kind: isBare ? 'bare ACK' : 'segment' };
}

/** Fails unless each segment left once, and besides only bare ACKs and parts of segments. Segments leave by place in the stream. */
function assertSegments(sent: readonly Carried[], left: readonly Carried[]): void {
  const missing = new Map<string, number>();
  for (const { what, kind } of sent) if (kind === 'segment') missing.set(what, (missing.get(what) ?? 0) + 1);
  for (const { what, part, kind, hex } of left) {
    if (kind === 'bare ACK') continue;
    const count = missing.get(what) ?? 0;
    if (count > 0) missing.set(what, count - 1);
    else
      assert.ok(
        sent.some((one) => one.part.startsWith(part)),
        `left, and was not sent: ${hex}`,
      );
  }
  assert.deepEqual(
    [...missing].filter(([, count]) => count > 0),
    [],
    'segments that did not leave',
  );
}

for (const framing of ['plain', 'vnet'] as const) {
  test(`compare, ${framing}: what a frame of the PVM carries leaves once, in order of its flow, whatever happens to checkpoints`, async () => {
    await fuzz(120, (dice) => {
      const turnEnds: (() => void)[] = [];
      const path = new ComparePath({
        framing,
        phase: dice.chance(2) ? 'comparing' : 'alone',
        clock: { now: () => 0 as Instant, wall: () => 0 },
        timers: { soon: (call) => turnEnds.push(call), after: () => () => {} },
        hashSeed: 1,
        events: { diverged: () => {}, ...NO_DROPS },
        limits: SMALL,
      });
      const [primary, secondary, out] = [path.primaryIn, path.secondaryIn, path.out].map(
        (port) => new FarEnd(port, framing),
      );
      const sent: Carried[] = [];
      const left: Carried[] = [];
      const echoes: Buffer[] = [];
      const pump = () => {
        for (const { near } of dice.chance(2) ? [primary, secondary] : [secondary, primary]) {
          for (let reads = dice.roll(4); reads > 0; reads--) near.pump(1 + dice.roll(READ_BYTES_MAX));
        }
        if (!dice.chance(3)) for (const end of turnEnds.splice(0)) end();
        if (path.pressure() !== null) path.commit();
        while (out.near.pump());
        for (const { bytes, headerBytes } of out.receivedWithHeaders()) {
          const carried = carriedBy(bytes, headerBytes);
          assert.ok(carried !== null, `left, and contradicts itself: ${bytes.toString('hex')}`);
          left.push(carried);
        }
      };
      for (let steps = 20 + dice.roll(150); steps > 0; steps--) {
        const frame = anyFrame(dice, true);
        if (dice.chance(2)) {
          const bytes = primary.send(dice, frame);
          const carried = carriedBy(bytes, bytes.length - frame.length);
          if (carried !== null) sent.push(carried);
          if (!dice.chance(4)) echoes.push(frame);
        } else secondary.send(dice, (!dice.chance(4) && echoes.shift()) || frame);
        if (dice.chance(3)) pump();
        if (dice.chance(15))
          dice.pick([() => path.pvmStopped(), () => path.pvmResumed(), () => path.unchanged()])();
        if (dice.chance(20)) path.commit();
        if (dice.chance(60)) path.goAlone();
      }
      path.goAlone();
      for (let i = 0; i < 2000 && primary.near.unreadBytes() + secondary.near.unreadBytes() > 0; i++) {
        pump();
      }
      pump();
      const others = (carried: readonly Carried[]) => carried.filter(({ kind }) => kind === 'other');
      const hexes = (carried: readonly Carried[]) => carried.map(({ hex }) => hex);
      assert.deepEqual(
        hexes(others(left)).sort(),
        hexes(others(sent)).sort(),
        'each frame once, and nothing else',
      );
      for (const flow of new Set(others(sent).map((one) => one.flow))) {
        const ofFlow = (carried: readonly Carried[]) =>
          hexes(others(carried).filter((one) => one.flow === flow));
        assert.deepEqual(ofFlow(left), ofFlow(sent), `order in flow ${flow}`);
      }
      assertSegments(sent, left);
      path.close();
      assert.equal(path.slabsInUse, 0);
    });
  });

  test(`rewrite, ${framing}: frames pass in order, with no byte more or less`, async () => {
    await fuzz(120, (dice) => {
      const path = new RewritePath({
        framing,
        phase: 'following',
        hashSeed: 1,
        timers: { after: () => () => {} },
        events: NO_DROPS,
        limits: SMALL,
      });
      const ports = [path.in, path.guestIn, path.guestOut, path.out].map((port) => new FarEnd(port, framing));
      const [client, toGuest, guest, out] = ports;
      const sent: Buffer[] = [];
      const received: Buffer[] = [];
      const left: Buffer[] = [];
      let guestFrames = 0;
      const pump = () => {
        for (const { near } of ports) {
          for (let reads = dice.roll(4); reads > 0; reads--) near.pump(1 + dice.roll(READ_BYTES_MAX));
        }
        received.push(...toGuest.received());
        left.push(...out.received());
      };
      for (let steps = 20 + dice.roll(100); steps > 0; steps--) {
        if (dice.chance(2)) sent.push(client.send(dice, anyFrame(dice, false)));
        else {
          guest.send(dice, anyFrame(dice, true));
          guestFrames++;
        }
        if (dice.chance(3)) pump();
        if (dice.chance(12)) dice.pick([() => path.stop(), () => path.unchanged(), () => path.commit()])();
        if (dice.chance(100)) path.promote();
      }
      path.unchanged();
      for (let i = 0; i < 2000 && ports.some(({ near }) => near.unreadBytes() > 0); i++) pump();
      pump();
      assert.deepEqual(
        received.map(({ length }) => length),
        sent.map(({ length }) => length),
        'the SVM receives each frame of the client',
      );
      received.forEach((frame, i) => {
        const passed = framing === 'vnet' || mayChange(frame) || frame.equals(sent[i]);
        assert.ok(passed, `changed: ${sent[i].toString('hex')}`);
      });
      assert.equal(
        left.length + path.counters.droppedOutput,
        guestFrames,
        'every frame of the SVM leaves, or is dropped and counted',
      );
      path.close();
      assert.equal(path.slabsInUse, 0);
    });
  });
}

test('a pair of nodes: both VMs receive the same input, and the client each frame of the PVM once', async () => {
  await fuzz(6, (dice) => {
    const pair = new TwoPaths();
    const filter = new InputFilter(VM_MAC);
    pair.checkpoint();
    let fromClient = 0;
    let fromPvm = 0;
    const received = { pvm: 0, svm: 0, client: 0 };
    const count = () => {
      received.pvm += pair.pvm.received().length;
      received.svm += pair.svm.received().length;
      received.client += pair.client.received().length;
      assert.equal(pair.secondaryNetwork.received().length, 0, 'the secondary speaks');
    };
    for (let steps = 500; steps > 0; steps--) {
      const frame = anyFrame(dice, true);
      const input = anyFrame(dice, false);
      switch (dice.roll(4)) {
        case 0:
          pair.client.write(input);
          if (filter.accepts(input, 0, input.length)) fromClient++;
          if (dice.chance(2)) pair.secondaryNetwork.write(input);
          break;
        case 1:
          pair.pvm.write(frame);
          if (read(frame) !== null) fromPvm++;
          break;
        case 2:
          pair.svm.write(frame);
          break;
        default:
          pair.pvm.write(frame);
          pair.svm.write(frame);
          if (read(frame) !== null) fromPvm++;
      }
      if (dice.chance(4)) pair.settle();
      if (dice.chance(40)) pair.checkpoint();
      if (dice.chance(10)) count();
    }
    pair.settle();
    pair.checkpoint();
    count();
    const { made, absorbed, questions } = pair.primary.comparator.counters;
    const toClient = fromPvm + made - absorbed + questions;
    assert.deepEqual(received, { pvm: fromClient, svm: fromClient, client: toClient });
    const byCause = Object.values(pair.primary.releasedBy).reduce((sum, count) => sum + count, 0);
    assert.equal(byCause, pair.primary.counters.releasedFrames, 'each released frame has one cause');
    pair.assertNoLeak();
  });
});
