/**
 * The rule of datagrams: UDP by payload, everything else whole, in order per flow.
 *
 * The two VMs' datagrams of a flow are matched first to first. Either VM may be any number of frames ahead. An input that
 * one VM lost shows as a difference at the next datagram, and a checkpoint heals it.
 *
 * A datagram in fragments is a chain of frames (fragments.ts) with its first frame in the queue. It is compared piece by
 * piece where the frames lie, with one that is cut differently or not at all, and its frames leave together.
 *
 * A protocol whose datagrams may differ in places has a rule that extends this one (icmp-error.ts).
 */
import { type Framing, vnetBytes } from '../../frames/frame-reader.ts';
import type { FlowId, FrameId, Instant, SlabId } from '../../units.ts';
import type { PacketView } from '../../wire/packet.ts';
import { partialChecksumAt } from '../../wire/virtio-net.ts';
import { RULE, type RuleNumber } from '../classes.ts';
import { DATAGRAM_BYTES, IN_FRAGMENTS, NEXT_FRAGMENT } from '../fragments.ts';
import { HeldFlow } from '../held-flow.ts';
import {
  AT,
  FLAGS,
  FLOW,
  LENGTH,
  NO_FLOW,
  NO_FRAME,
  PAYLOAD,
  PAYLOAD_BYTES,
  SLAB,
  WAITS,
  WAITS_FOR,
} from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import type { Rule } from '../rule.ts';
import type { DivergenceReason } from '../verdict.ts';

/** Offset of SCTP's checksum, which has 32 bits; other checksums have 16. */
const SCTP_CHECKSUM = 8;

export class DatagramRule implements Rule {
  protected readonly holding: Holding;
  private readonly flow: HeldFlow;
  private readonly framing: Framing;
  /** which the flows have that it begins */
  private readonly number: RuleNumber;

  constructor(holding: Holding, framing: Framing, number: RuleNumber = RULE.datagram) {
    this.holding = holding;
    this.number = number;
    this.flow = new HeldFlow(holding.flowWords);
    this.framing = framing;
  }

  begin(): void {}

  end(): void {}

  primaryFrame(packet: PacketView, slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const { holding } = this;
    const flowId = holding.flowOf(packet, slab, this.number, holding.secondary, nowMs);
    if (flowId === NO_FLOW) {
      holding.holdFlowless(slab, at, length, nowMs);
      return;
    }
    const flow = this.flow.moveTo(flowId);
    const first = flow.primary.head === NO_FRAME;
    const id = holding.hold(slab, at, length, nowMs);
    this.describe(id, flowId, packet);
    holding.frames.enqueue(flow.primary, id);
    // After another held datagram it can only leave when that one has left.
    if (first) this.advance(flowId);
    else holding.noteShare(flow.primary);
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
    const flowId = holding.flowOf(packet, slab, this.number, holding.primary, nowMs);
    if (flowId === NO_FLOW) {
      holding.dropFlowless();
      return;
    }
    const flow = this.flow.moveTo(flowId);
    const id = holding.holdSecondary(flow.secondary, slab, at, length, index, nowMs);
    if (id === NO_FRAME) return;
    this.describe(id, flowId, packet);
    if (flow.primary.head !== NO_FRAME) this.advance(flowId);
  }

  advance(id: FlowId): void {
    const { holding } = this;
    const { words } = holding.frames;
    const flow = this.flow.moveTo(id);
    while (flow.primary.head !== NO_FRAME && !flow.diverged) {
      const frame = flow.primary.head;
      const other = flow.secondary.head;
      if (other === NO_FRAME) {
        words[frame + WAITS] = WAITS_FOR.bytes;
        return;
      }
      const reason = this.difference(frame, other);
      if (reason !== null) {
        holding.diverge(flow, reason, frame, other);
        return;
      }
      this.releaseHead(flow);
      this.confirmHead(flow);
    }
  }

  noteAlone(): void {}

  noteCommitted(): void {}

  noteCopied(): boolean {
    return false;
  }

  isExpendable(): boolean {
    return true;
  }

  isOver(): boolean {
    return false;
  }

  owesConfirm(): boolean {
    return false;
  }

  /** A checksum that the frame's sender completes later (virtio-net) is not compared. */
  equal(frame: FrameId, offset: number, other: FrameId, otherOffset: number, bytes: number): boolean {
    const { holding } = this;
    const field = this.framing === 'vnet' ? this.partialChecksumIn(frame, other) : -1;
    const after = field + (field === SCTP_CHECKSUM ? 4 : 2);
    if (field < 0 || offset !== 0 || otherOffset !== 0 || after > bytes)
      return holding.samePayload(frame, offset, other, otherOffset, bytes);
    return (
      holding.samePayload(frame, 0, other, 0, field) &&
      holding.samePayload(frame, after, other, after, bytes - after)
    );
  }

  /** Returns how two held datagrams differ, or null. */
  protected difference(id: FrameId, other: FrameId): DivergenceReason | null {
    const bytes = this.datagramBytes(id);
    if (bytes !== this.datagramBytes(other)) return 'diverged-length';
    const inFragments = this.isInFragments(id) || this.isInFragments(other);
    const same = inFragments ? this.sameInFragments(id, other, bytes) : this.equal(id, 0, other, 0, bytes);
    return same ? null : 'diverged-bytes';
  }

  /** Writes what the packet says into a held frame's columns. */
  protected describe(id: FrameId, flow: FlowId, packet: PacketView): void {
    const { words } = this.holding.frames;
    words[id + FLOW] = flow;
    words[id + PAYLOAD] = packet.payload;
    words[id + PAYLOAD_BYTES] = packet.payloadBytes;
    words[id + FLAGS] = 0;
  }

  private releaseHead(flow: HeldFlow): void {
    const { holding } = this;
    if (!this.isInFragments(flow.primary.head)) {
      holding.releaseHead(flow.primary);
      return;
    }
    for (let id = holding.frames.dequeue(flow.primary); id !== NO_FRAME; ) {
      const next = holding.frames.words[id + NEXT_FRAGMENT] as FrameId;
      holding.releaseMatched(id);
      id = next;
    }
  }

  private confirmHead(flow: HeldFlow): void {
    const { holding } = this;
    if (!this.isInFragments(flow.secondary.head)) {
      holding.confirmHead(flow.secondary);
      return;
    }
    for (let id = holding.frames.dequeue(flow.secondary); id !== NO_FRAME; ) {
      const next = holding.frames.words[id + NEXT_FRAGMENT] as FrameId;
      holding.confirmHeld(id);
      id = next;
    }
  }

  private isInFragments(head: FrameId): boolean {
    return (this.holding.frames.words[head + FLAGS] & IN_FRAGMENTS) !== 0;
  }

  private datagramBytes(id: FrameId): number {
    const { words } = this.holding.frames;
    return words[id + (this.isInFragments(id) ? DATAGRAM_BYTES : PAYLOAD_BYTES)];
  }

  private sameInFragments(id: FrameId, other: FrameId, bytes: number): boolean {
    const { holding } = this;
    const { words } = holding.frames;
    let at = 0;
    let otherAt = 0;
    for (let left = bytes; left > 0; ) {
      if (at === words[id + PAYLOAD_BYTES]) {
        id = words[id + NEXT_FRAGMENT] as FrameId;
        at = 0;
        continue;
      }
      if (otherAt === words[other + PAYLOAD_BYTES]) {
        other = words[other + NEXT_FRAGMENT] as FrameId;
        otherAt = 0;
        continue;
      }
      const run = Math.min(left, words[id + PAYLOAD_BYTES] - at, words[other + PAYLOAD_BYTES] - otherAt);
      if (!holding.samePayload(id, at, other, otherAt, run)) return false;
      left -= run;
      at += run;
      otherAt += run;
    }
    return true;
  }

  /** Returns the offset of an incomplete checksum in the payload of one of the frames, or -1. */
  private partialChecksumIn(id: FrameId, other: FrameId): number {
    const field = this.partialChecksum(id);
    return field < 0 ? this.partialChecksum(other) : field;
  }

  private partialChecksum(id: FrameId): number {
    const { words } = this.holding.frames;
    const bytes = this.holding.slabs.buffer(words[id + SLAB] as SlabId);
    const at = words[id + AT];
    const field = partialChecksumAt(bytes, at, words[id + LENGTH], vnetBytes(bytes, at));
    return field < words[id + PAYLOAD] ? -1 : field - words[id + PAYLOAD];
  }
}
