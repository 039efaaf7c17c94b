/**
 * The rule of flows that an operator has exempted (operator-rules.ts): they are not compared. The PVM's output leaves at once, the
 * SVM's is dropped.
 *
 * It gives up rule 1 for these flows and for nothing else: after a failover the promoted VM may not have sent what a client got, so
 * that such a connection is gone or goes on differently. The PVM's SYNs are taught all the same: the SVM then keeps up as well as it can.
 *
 * The comparator asks `owns` of each frame that is neither malformed nor harmless, while there is such a rule. The flow's row has the
 * answer. Fragments are exempt one by one if the rule names no port; where it names one, those of a datagram are held until it is
 * complete, and then leave together (`advance`). Nothing is known of an exempt flow: each commit forgets it.
 */
import { FLOW_KEY_WORDS, writeOutputKey } from '../../flow/key.ts';
import type { FlowId, FrameId, Instant, SlabId } from '../../units.ts';
import { PACKET, type PacketView } from '../../wire/packet.ts';
import { TCP_SYN } from '../../wire/tcp.ts';
import { COMPARE_AS, compareAs, RULE, ruleOf } from '../classes.ts';
import { NEXT_FRAGMENT } from '../fragments.ts';
import { HeldFlow } from '../held-flow.ts';
import { type ArrivalList, LENGTH, NO_FLOW, NO_FRAME } from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import { LESSON } from '../lesson.ts';
import { NO_OPERATOR_RULE, type OperatorRules } from '../operator-rules.ts';
import type { Rule } from '../rule.ts';

export class ExemptRule implements Rule {
  private readonly holding: Holding;
  private readonly flow: HeldFlow;
  private readonly key = new Int32Array(FLOW_KEY_WORDS);
  /** the number of the rule that exempts the frame of which `owns` was asked last */
  private number = NO_OPERATOR_RULE;

  constructor(holding: Holding) {
    this.holding = holding;
    this.flow = new HeldFlow(holding.flowWords);
  }

  /** Whether a frame of a VM, parsed in `packet`, is exempt by `rules`. `likely` as in `Holding.flowOf`. */
  owns(rules: OperatorRules, packet: PacketView, slab: SlabId, likely: ArrivalList, nowMs: Instant): boolean {
    this.number = this.ruleFor(rules, packet, slab, likely, nowMs);
    return this.number !== NO_OPERATOR_RULE;
  }

  begin(): void {}

  end(): void {}

  /** Right after `owns`. */
  primaryFrame(packet: PacketView, slab: SlabId, at: number, length: number): void {
    const { holding } = this;
    if (packet.kind === PACKET.tcp && (packet.tcpFlags & TCP_SYN) !== 0)
      holding.sink.teach(LESSON.tcpSyn, slab, at, length);
    holding.operatorRules?.noteExempted(this.number, length);
    holding.releaseExempt(slab, at, length);
  }

  secondaryFrame(_packet: PacketView, _slab: SlabId, _at: number, _length: number, index: number): void {
    this.holding.sink.confirm(index);
  }

  /** A datagram in fragments is complete. */
  advance(id: FlowId): void {
    const { holding } = this;
    const { frames } = holding;
    const { primary, secondary, operatorRule } = this.flow.moveTo(id);
    while (primary.head !== NO_FRAME)
      for (let frame = frames.dequeue(primary); frame !== NO_FRAME; ) {
        const next = frames.words[frame + NEXT_FRAGMENT] as FrameId;
        holding.operatorRules?.noteExempted(operatorRule, frames.words[frame + LENGTH]);
        holding.releaseExemptHeld(frame);
        frame = next;
      }
    while (secondary.head !== NO_FRAME)
      for (let frame = frames.dequeue(secondary); frame !== NO_FRAME; ) {
        const next = frames.words[frame + NEXT_FRAGMENT] as FrameId;
        holding.confirmHeld(frame);
        frame = next;
      }
  }

  noteAlone(): void {}

  noteCommitted(): void {}

  noteCopied(): boolean {
    return true;
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

  /** Nothing of it is compared. */
  equal(): boolean {
    return false;
  }

  private ruleFor(
    rules: OperatorRules,
    packet: PacketView,
    slab: SlabId,
    likely: ArrivalList,
    nowMs: Instant,
  ): number {
    // What is harmless stays so: ARP, NDP and the like keep the addresses of all flows alive.
    if (packet.ipVersion === 0 || packet.kind === PACKET.malformed) return NO_OPERATOR_RULE;
    if (compareAs(packet) === COMPARE_AS.harmless) return NO_OPERATOR_RULE;
    const { holding, key } = this;
    if (packet.fragment) {
      writeOutputKey(holding.slabs.buffer(slab), packet, key);
      return rules.exemptOf(key);
    }
    const id = holding.flowOf(packet, slab, ruleOf(packet), likely, nowMs);
    if (id === NO_FLOW) return NO_OPERATOR_RULE;
    const flow = this.flow.moveTo(id);
    return flow.rule === RULE.exempt ? flow.operatorRule : NO_OPERATOR_RULE;
  }
}
