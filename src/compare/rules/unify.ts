/**
 * The rule `unify`: two replies that differ in nothing but the value of `Date` (unify/http-date.ts) need no checkpoint.
 *
 * Goal: the client gets the PVM's value, and the secondary would say the same. Nothing else is compared less strictly, and what leaves
 * has been compared byte by byte, as ever:
 *
 *   1. A held PVM segment and the SVM's counterpart differ, and only in that value: the primary teaches the secondary the PVM's
 *      segment, and drops the SVM's. The PVM's stays held.
 *   2. The secondary puts the PVM's value in the place of the SVM's own, in what it retains and in what its VM repeats
 *      (translate/unified-values.ts), and sends the segment again.
 *   3. That one is the same as the PVM's, which leaves.
 *
 * So a lesson that is lost, late, or means something else to the secondary costs a wait and then a checkpoint, and never a wrong
 * release: what came back proves that the secondary knows the value (rule 1), as with a SYN's number.
 *
 * Only plain segments (`isPlainData`) with the same place and length, of which nothing was compared before. An SVM segment that
 * repeats its own value is taught once more.
 */
import type { Framing } from '../../frames/frame-reader.ts';
import { unifiedPlace } from '../../unify/http-date.ts';
import { type FlowId, type FrameId, NONE, type SlabId } from '../../units.ts';
import { PACKET, PacketView } from '../../wire/packet.ts';
import { FrameParser } from '../frame-parser.ts';
import { AT, FLOW, LENGTH, NO_FRAME, PAYLOAD_BYTES, SLAB } from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import { LESSON } from '../lesson.ts';
import { isPlainData } from './lockstep.ts';
import { type HeldTcpFlow, SEQ } from './tcp-flow.ts';

export class Unify {
  /** How many SVM segments gave way to a lesson. */
  taught = 0;
  private readonly holding: Holding;
  /** TCP's cursor: positioned by the caller */
  private readonly flow: HeldTcpFlow;
  private readonly parser: FrameParser;
  private readonly view = new PacketView();
  private readonly svmView = new PacketView();

  constructor(holding: Holding, flow: HeldTcpFlow, framing: Framing) {
    this.holding = holding;
    this.flow = flow;
    this.parser = new FrameParser(holding.slabs, framing);
  }

  /**
   * A PVM segment differs from the SVM's `other`, and no byte of either was compared before. Returns true if the secondary is taught
   * the PVM's value: `other` is then dropped, and another one will come.
   */
  teach(id: FrameId, other: FrameId): boolean {
    const { holding, flow, view, svmView } = this;
    const { words } = holding.frames;
    if (other !== flow.secondary.head || words[id + SEQ] !== words[other + SEQ]) return false;
    if (words[id + PAYLOAD_BYTES] !== words[other + PAYLOAD_BYTES]) return false;
    const key = holding.keyOf(words[id + FLOW] as FlowId);
    if (key === null || holding.operatorRules?.unifiesDate(key) !== true) return false;
    if (!this.parse(id, view) || !this.parse(other, svmView)) return false;
    const slab = words[id + SLAB] as SlabId;
    const bytes = holding.slabs.buffer(slab);
    const svmBytes = holding.slabs.buffer(words[other + SLAB] as SlabId);
    if (unifiedPlace(bytes, view.payload, svmBytes, svmView.payload, view.payloadBytes) === NONE)
      return false;
    holding.sink.teach(LESSON.httpDate, slab, words[id + AT], words[id + LENGTH]);
    this.taught++;
    // Not confirmed: the secondary retains it until the one that takes its place.
    if (flow.cursor === other) flow.cursor = NO_FRAME;
    holding.dropHead(flow.secondary);
    return true;
  }

  private parse(id: FrameId, view: PacketView): boolean {
    const { words } = this.holding.frames;
    const slab = words[id + SLAB] as SlabId;
    const kind = this.parser.parse(slab, words[id + AT], words[id + LENGTH], view);
    return kind === PACKET.tcp && isPlainData(view, this.holding.slabs.buffer(slab));
  }
}
