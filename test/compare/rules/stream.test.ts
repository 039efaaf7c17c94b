/**
 * A second protocol with a stream, made up for this test: IP protocol 253, whose payload is the number of its first byte
 * (32 bits) and the bytes. Its rule stands here instead of in src/compare/rules/, and touches no file of TCP's.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RuleNumber } from '../../../src/compare/classes.ts';
import { FLOW_RULE_WORDS, HeldFlow } from '../../../src/compare/held-flow.ts';
import {
  FLOW,
  NO_FLOW,
  NO_FRAME,
  PAYLOAD,
  PAYLOAD_BYTES,
  RULE_WORD_0,
} from '../../../src/compare/held-frames.ts';
import { Holding } from '../../../src/compare/holding.ts';
import type { Rule } from '../../../src/compare/rule.ts';
import { SlabPool } from '../../../src/frames/slabs.ts';
import { LIMITS } from '../../../src/limits.ts';
import type { FlowId, FrameId, Instant, SlabId } from '../../../src/units.ts';
import { readI32 } from '../../../src/wire/bytes.ts';
import { PacketView, parsePacket } from '../../../src/wire/packet.ts';
import { CLIENT_ADDRESS, ethernet, ipv4, VM_ADDRESS } from '../../frames.ts';

const STREAM = 3 as RuleNumber;
/** A held frame's column: the number of its first byte. */
const FIRST = RULE_WORD_0;
const NUMBER_BYTES = 4;

class StreamFlow extends HeldFlow {
  /** the client has all bytes before this one */
  get released(): number {
    return this.words[this.row + FLOW_RULE_WORDS];
  }
  set released(place: number) {
    this.words[this.row + FLOW_RULE_WORDS] = place;
  }
}

/** A PVM frame is released when the SVM's queue has a frame with the same bytes at the same place, which is the next one. */
class StreamRule implements Rule {
  private readonly holding: Holding;
  private readonly flow: StreamFlow;

  constructor(holding: Holding) {
    this.holding = holding;
    this.flow = new StreamFlow(holding.flowWords);
  }

  begin(): void {}

  end(): void {}

  primaryFrame(packet: PacketView, slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const { holding } = this;
    const flow = holding.flowOf(packet, slab, STREAM, holding.secondary, nowMs);
    assert.notEqual(flow, NO_FLOW);
    const id = holding.hold(slab, at, length, nowMs);
    holding.frames.enqueue(this.flow.moveTo(flow).primary, id);
    this.describe(id, flow, packet, slab);
  }

  secondaryFrame(
    packet: PacketView,
    slab: SlabId,
    at: number,
    length: number,
    index: number,
    nowMs: Instant,
  ): void {
    const { holding } = this;
    const flow = holding.flowOf(packet, slab, STREAM, holding.primary, nowMs);
    assert.notEqual(flow, NO_FLOW);
    const id = holding.holdSecondary(this.flow.moveTo(flow).secondary, slab, at, length, index, nowMs);
    this.describe(id, flow, packet, slab);
  }

  advance(id: FlowId): void {
    const { holding } = this;
    const { words } = holding.frames;
    const flow = this.flow.moveTo(id);
    while (flow.primary.head !== NO_FRAME && !flow.diverged) {
      const frame = flow.primary.head;
      const other = flow.secondary.head;
      if (other === NO_FRAME || words[frame + FIRST] !== flow.released) return;
      const bytes = words[frame + PAYLOAD_BYTES];
      if (words[other + FIRST] !== flow.released || !this.equal(frame, 0, other, 0, bytes)) {
        holding.diverge(flow, 'diverged-bytes', frame, other);
        return;
      }
      flow.released += bytes;
      holding.releaseHead(flow.primary);
      holding.confirmHead(flow.secondary);
    }
  }

  noteAlone(): void {}

  noteCommitted(flow: FlowId, frame: FrameId): void {
    const { words } = this.holding.frames;
    this.flow.moveTo(flow).released = words[frame + FIRST] + words[frame + PAYLOAD_BYTES];
  }

  noteCopied(): boolean {
    return false;
  }

  isExpendable(): boolean {
    return false;
  }

  isOver(): boolean {
    return false;
  }

  owesConfirm(): boolean {
    return false;
  }

  equal(frame: FrameId, offset: number, other: FrameId, otherOffset: number, bytes: number): boolean {
    return this.holding.samePayload(frame, offset, other, otherOffset, bytes);
  }

  private describe(id: FrameId, flow: FlowId, packet: PacketView, slab: SlabId): void {
    const { words } = this.holding.frames;
    words[id + FLOW] = flow;
    words[id + FIRST] = readI32(this.holding.slabs.buffer(slab), packet.payload);
    words[id + PAYLOAD] = packet.payload + NUMBER_BYTES;
    words[id + PAYLOAD_BYTES] = packet.payloadBytes - NUMBER_BYTES;
    this.advance(flow);
  }
}

class StreamRig {
  readonly released: string[] = [];
  readonly confirmed: number[] = [];
  readonly diverged: string[] = [];
  readonly slabs = new SlabPool(256, 16);
  readonly holding: Holding;
  private readonly rule: StreamRule;
  private svmFrames = 0;

  constructor() {
    const sink = {
      release: (slab: SlabId, at: number, length: number) => {
        this.released.push(
          this.slabs
            .buffer(slab)
            .subarray(at, at + length)
            .toString('latin1')
            .slice(-1),
        );
      },
      absorb: () => {},
      teach: () => {},
      confirm: (index: number) => this.confirmed.push(index),
      diverged: (_key: Int32Array, reason: string) => this.diverged.push(reason),
    };
    this.holding = new Holding(this.slabs, sink, 1, { ...LIMITS, heldFramesMax: 64, flowsMax: 4 });
    this.rule = new StreamRule(this.holding);
    this.holding.useRules([this.rule, this.rule, this.rule, this.rule]);
  }

  pvm(first: number, text: string): void {
    this.say(first, text, (packet, slab, length) =>
      this.rule.primaryFrame(packet, slab, 0, length, 0 as Instant),
    );
  }

  svm(first: number, text: string): void {
    this.say(first, text, (packet, slab, length) =>
      this.rule.secondaryFrame(packet, slab, 0, length, this.svmFrames++, 0 as Instant),
    );
  }

  private say(
    first: number,
    text: string,
    handIn: (packet: PacketView, slab: SlabId, length: number) => void,
  ): void {
    const number = Buffer.alloc(NUMBER_BYTES);
    number.writeInt32BE(first);
    const header = { source: VM_ADDRESS[4], destination: CLIENT_ADDRESS[4], protocol: 253 };
    const frame = ethernet(0x0800, ipv4(header, Buffer.concat([number, Buffer.from(text)])));
    const slab = this.slabs.acquire();
    frame.copy(this.slabs.buffer(slab));
    const packet = new PacketView();
    parsePacket(this.slabs.buffer(slab), 0, frame.length, packet);
    handIn(packet, slab, frame.length);
    this.slabs.unref(slab);
  }
}

test('a stream of another protocol than TCP is held, released and confirmed', () => {
  const rig = new StreamRig();
  rig.pvm(0, 'a');
  rig.pvm(1, 'b');
  assert.deepEqual(rig.released, []);
  rig.svm(0, 'a');
  assert.deepEqual(rig.released, ['a']);
  rig.svm(1, 'b');
  rig.svm(2, 'c');
  rig.pvm(2, 'c');
  assert.deepEqual(rig.released, ['a', 'b', 'c']);
  assert.deepEqual(rig.confirmed, [0, 1, 2]);
  assert.equal(rig.holding.flowCountOf(STREAM), 1);
  assert.equal(rig.slabs.inUse, 0);
});

test('it diverges once, and a commit releases what was held and goes on after it', () => {
  const rig = new StreamRig();
  for (const text of ['x', 'y']) rig.pvm(text === 'x' ? 0 : 1, text);
  rig.svm(0, 'z');
  assert.deepEqual(rig.diverged, ['diverged-bytes']);
  assert.deepEqual(rig.released, []);
  assert.equal(rig.holding.commit(), 2);
  assert.deepEqual(rig.released, ['x', 'y']);
  rig.pvm(2, 'w');
  rig.svm(2, 'w');
  assert.deepEqual(rig.released, ['x', 'y', 'w']);
  assert.deepEqual(rig.diverged, ['diverged-bytes']);
  assert.equal(rig.slabs.inUse, 0);
});
