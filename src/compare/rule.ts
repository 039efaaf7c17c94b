/**
 * What a rule is: how the frames of one protocol family are compared.
 *
 * A flow has one rule, which follows from its key (`ruleOf` in classes.ts); its number stands in the flow's row. The comparator parses a
 * frame and hands it to the rule of its flow (table.ts). The rule holds the frame in the holding (holding.ts), or releases,
 * drops or confirms it. What a rule does not understand it leaves held: a commit releases it.
 *
 * All of a rule's methods that take a flow may be called in any order and for any flow of that rule; none of them may keep
 * a frame's id beyond the frame's removal.
 */
import type { FlowId, FrameId, Instant, SlabId } from '../units.ts';
import type { PacketView } from '../wire/packet.ts';

export interface Rule {
  /** A flow begins: sets the rule's words in its row, which are 0. */
  begin(flow: FlowId): void;

  /** A flow of which no frame is held is forgotten. */
  end(flow: FlowId): void;

  /** A PVM frame, parsed in `packet`: releases or holds it. */
  primaryFrame(packet: PacketView, slab: SlabId, at: number, length: number, nowMs: Instant): void;

  /** An SVM frame, parsed in `packet`: holds, confirms or drops it, and releases PVM frames that it is the counterpart of. */
  secondaryFrame(
    packet: PacketView,
    slab: SlabId,
    at: number,
    length: number,
    index: number,
    nowMs: Instant,
  ): void;

  /** One of the flow's queues has grown: releases PVM frames that have their counterpart. */
  advance(flow: FlowId): void;

  /** A PVM frame, parsed in `packet`, is released without comparison because the VM is alone. */
  noteAlone(packet: PacketView, slab: SlabId, nowMs: Instant): void;

  /** A held PVM frame is released by a commit. */
  noteCommitted(flow: FlowId, frame: FrameId): void;

  /** A commit has made the SVM a copy of the PVM, and no frame is held. Returns true if the flow is over and can be forgotten. */
  noteCopied(flow: FlowId): boolean;

  /** Nothing would be missed if the flow were forgotten: it gives its place in a full table first. */
  isExpendable(flow: FlowId): boolean;

  /** The flow is over, or as good as over after `idleMs` without a frame. */
  isOver(flow: FlowId, idleMs: number): boolean;

  /** An SVM frame of the flow that is no longer held is still to be confirmed. */
  owesConfirm(flow: FlowId): boolean;

  /**
   * Whether `bytes` payload bytes of a held PVM frame, from `offset` on, and as many of a held SVM frame, from `otherOffset`
   * on, mean the same to a receiver. A rule for payloads that may differ in places stands here.
   */
  equal(frame: FrameId, offset: number, other: FrameId, otherOffset: number, bytes: number): boolean;
}
