/** A comparator with both sides played by the test, and a record of all that it does. */
import assert from 'node:assert/strict';
import { Comparator, type Step } from '../../src/compare/comparator.ts';
import { LENGTH, NO_FRAME } from '../../src/compare/held-frames.ts';
import { LESSON } from '../../src/compare/lesson.ts';
import { describeFlowKey, FLOW_KEY_WORDS, writeOutputKey } from '../../src/flow/key.ts';
import { type Framing, prefixBytesOf } from '../../src/frames/frame-reader.ts';
import { SlabPool } from '../../src/frames/slabs.ts';
import { LIMITS, type Limits } from '../../src/limits.ts';
import type { FrameId, Instant, SlabId } from '../../src/units.ts';
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import {
  ACK,
  CLIENT_ADDRESS,
  CLIENT_MAC,
  icmpFrame,
  SYN,
  type TcpSegment,
  tcpFrame,
  udpFrame,
  VM_ADDRESS,
  VM_MAC,
} from '../frames.ts';

export class Rig {
  readonly pool: SlabPool;
  readonly comparator: Comparator;
  readonly released: { bytes: Buffer; cause: string }[] = [];
  readonly absorbed: Buffer[] = [];
  readonly confirmed: number[] = [];
  /** frames that the secondary is taught by */
  readonly syns: Buffer[] = [];
  readonly dates: Buffer[] = [];
  readonly diverged: string[] = [];
  /** of each divergence, the PVM's and the SVM's frame */
  readonly divergedFrames: [Buffer | null, Buffer | null][] = [];
  nowMs = 0;
  private svmIndex = 0;
  readonly prefixBytes: number;

  constructor(
    slabBytes = 2048,
    slabsMax = 1024,
    limits: Partial<Limits> = {},
    framing: Framing = 'plain',
    lane: 'lane' | 'no-lane' = 'lane',
  ) {
    this.prefixBytes = prefixBytesOf(framing);
    this.pool = new SlabPool(slabBytes, slabsMax);
    this.comparator = new Comparator(
      this.pool,
      {
        release: (slab, at, length, cause) =>
          this.released.push({ bytes: this.copy(slab, at, length), cause }),
        absorb: (slab, at, length) => this.absorbed.push(this.copy(slab, at, length)),
        teach: (lesson, slab, at, length) =>
          (lesson === LESSON.tcpSyn ? this.syns : this.dates).push(this.copy(slab, at, length)),
        confirm: (index) => this.confirmed.push(index),
        diverged: (key, reason, primary, secondary) => {
          this.diverged.push(`${reason} ${describeFlowKey(key)}`);
          this.divergedFrames.push([this.heldFrame(primary), this.heldFrame(secondary)]);
        },
      },
      1,
      framing,
      { ...LIMITS, ...limits },
      lane,
    );
  }

  /** A frame of the PVM; returns how many frames this released. */
  pvm(frame: Buffer): number {
    const before = this.released.length;
    const slab = this.place(frame);
    this.comparator.primaryFrame(slab, this.prefixBytes, frame.length, this.nowMs as Instant);
    this.pool.unref(slab);
    return this.released.length - before;
  }

  /** A frame of the SVM; returns how many frames this released. */
  svm(frame: Buffer): number {
    const before = this.released.length;
    const slab = this.place(frame);
    this.comparator.secondaryFrame(
      slab,
      this.prefixBytes,
      frame.length,
      this.svmIndex++,
      this.nowMs as Instant,
    );
    this.pool.unref(slab);
    return this.released.length - before;
  }

  /** One frame of each VM that was read, and not handed in; `index` is that of the SVM's. */
  pairOff(pvm: Buffer, svm: Buffer, index = 0): Step {
    const { prefixBytes, pool, nowMs } = this;
    const [slab, svmSlab] = [this.place(pvm), this.place(svm)];
    const step = this.comparator.pairOff(
      slab,
      prefixBytes,
      pvm.length,
      svmSlab,
      prefixBytes,
      svm.length,
      index,
      nowMs as Instant,
    );
    pool.unref(slab);
    pool.unref(svmSlab);
    return step;
  }

  alone(frame: Buffer): void {
    const slab = this.place(frame);
    this.comparator.passAlone(slab, this.prefixBytes, frame.length, this.nowMs as Instant);
    this.pool.unref(slab);
  }

  commit(): number {
    this.svmIndex = 0;
    return this.comparator.commit();
  }

  get held(): number {
    return this.comparator.primary.frames;
  }

  /** Asserts that no frame is held and no slab in use. */
  assertEmpty(): void {
    assert.equal(this.comparator.primary.frames, 0, 'PVM frames held');
    assert.equal(this.comparator.secondary.frames, 0, 'SVM frames held');
    assert.equal(this.comparator.primary.bytes, 0);
    assert.equal(this.comparator.secondary.bytes, 0);
    assert.equal(this.comparator.owedAcks, 0, 'owed ACKs');
    assert.equal(this.pool.inUse, this.comparator.ownSlabs, 'slabs in use');
  }

  /** Asserts that every one of `count` SVM frames was confirmed once. */
  assertConfirmed(count: number): void {
    const sorted = [...this.confirmed].sort((a, b) => a - b);
    assert.deepEqual(
      sorted,
      Array.from({ length: count }, (_, i) => i),
    );
  }

  /** Returns a slab with the frame at `prefixBytes`. */
  place(frame: Buffer): SlabId {
    const slab = this.pool.acquire();
    assert.ok(slab >= 0, 'the rig ran out of slabs');
    this.pool.buffer(slab).writeUInt32BE(frame.length);
    this.pool.buffer(slab).writeUInt32BE(VNET_HEADER_BYTES, 4);
    frame.copy(this.pool.buffer(slab), this.prefixBytes);
    return slab;
  }

  private heldFrame(id: FrameId): Buffer | null {
    if (id === NO_FRAME) return null;
    const { frames } = this.comparator;
    return this.copy(frames.slabOf(id), frames.offsetOf(id), frames.words[id + LENGTH]);
  }

  private copy(slab: SlabId, at: number, length: number): Buffer {
    return Buffer.from(this.pool.buffer(slab).subarray(at, at + length));
  }
}

/** With vnet framing, frames begin with a virtio-net header of this length. */
export const VNET_HEADER_BYTES = 12;

const FROM_VM = { sourceMac: VM_MAC, destinationMac: CLIENT_MAC };
const ADDRESSES = { source: VM_ADDRESS[4], destination: CLIENT_ADDRESS[4] };

/** A TCP segment that the VM sends. */
export function tcp(segment: Omit<TcpSegment, 'payload'> & { text?: string; payload?: Uint8Array }): Buffer {
  const { text, ...rest } = segment;
  return tcpFrame({
    ...FROM_VM,
    ...ADDRESSES,
    sourcePort: 80,
    destinationPort: 40000,
    ...rest,
    ...(text === undefined ? {} : { payload: Buffer.from(text) }),
  });
}

export function udp(text: string, destinationPort = 5000): Buffer {
  const payload = Buffer.from(text);
  return udpFrame({ ...FROM_VM, ...ADDRESSES, sourcePort: 53, destinationPort, payload });
}

export function echoReply(id: number, sequence: number, text: string): Buffer {
  const payload = Buffer.from(text);
  return icmpFrame({ ...FROM_VM, ...ADDRESSES, type: 0, id, sequence, payload });
}

/** Returns the flow of a frame of a VM. */
export function flowOf({ comparator }: Rig, frame: Buffer) {
  const view = new PacketView();
  const key = new Int32Array(FLOW_KEY_WORDS);
  parsePacket(frame, 0, frame.length, view);
  writeOutputKey(frame, view, key);
  return comparator.flowWithKey(key);
}

/** Opens a connection on both sides; the next byte of the VM is 1001, of the client 501. */
export function opened(): Rig {
  const rig = new Rig();
  const synAck = tcp({ flags: SYN | ACK, seq: 1000, ack: 501 });
  assert.equal(rig.pvm(synAck), 0);
  assert.equal(rig.svm(synAck), 1);
  return rig;
}

export const data = (seq: number, text: string, ack = 501, flags = ACK) => tcp({ seq, ack, flags, text });

/** A frame as text, without what the comparator may lower in a TCP segment: ACK, window, options, and a bare ACK's place. */
export function withoutNumbers(frame: Buffer): string {
  const view = new PacketView();
  const masked = Buffer.from(frame);
  if (parsePacket(frame, 0, frame.length, view) === PACKET.tcp) {
    masked.fill(0, view.l4 + (view.payloadBytes === 0 ? 4 : 8), view.l4 + 12);
    masked.fill(0, view.l4 + 14, view.l4 + 18);
    masked.fill(0, view.l4 + 20, view.payload);
  }
  return masked.toString('hex');
}
