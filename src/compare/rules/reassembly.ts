/**
 * Fragments of both VMs: collected until their datagram is complete, then compared by the rule of the datagram.
 *
 * A complete datagram belongs to the flow that it would belong to in one frame, which may be exempt. TCP is the exception: a segment
 * in fragments has no ports, and is compared whole, by the rule of datagrams.
 *
 * Failure: PVM fragments that overlap are a divergence; SVM fragments that do are held until the next commit, and their PVM
 * counterpart waits. While there is no room for another incomplete datagram, fragments are held until the next commit.
 */
import { FLOW_KEY_WORDS, PORTS_WORD, writeOutputKey } from '../../flow/key.ts';
import type { Limits } from '../../limits.ts';
import type { FlowId, FrameId, Instant, SlabId } from '../../units.ts';
import { type PacketView, parseDatagram } from '../../wire/packet.ts';
import { RULE, ruleOf } from '../classes.ts';
import { DATAGRAM_BYTES, FRAGMENT, FROM, Fragments, IN_FRAGMENTS, NEXT_FRAGMENT, TO } from '../fragments.ts';
import { HeldFlow } from '../held-flow.ts';
import {
  type ArrivalList,
  FLAGS,
  FLOW,
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

export class Reassembly {
  /** There was no room for another incomplete datagram since the last commit. */
  isFull = false;
  private readonly holding: Holding;
  private readonly rules: readonly Rule[];
  private readonly flow: HeldFlow;
  private readonly primary: Fragments;
  private readonly secondary: Fragments;
  private readonly key = new Int32Array(FLOW_KEY_WORDS);

  constructor(holding: Holding, rules: readonly Rule[], hashSeed: number, limits: Limits) {
    this.holding = holding;
    this.rules = rules;
    this.flow = new HeldFlow(holding.flowWords);
    this.primary = new Fragments(holding.frames, hashSeed, limits);
    this.secondary = new Fragments(holding.frames, hashSeed, limits);
  }

  /** A PVM fragment, parsed in `packet`, which is void afterwards. */
  primaryFragment(packet: PacketView, slab: SlabId, at: number, length: number, nowMs: Instant): void {
    const { holding } = this;
    const id = holding.hold(slab, at, length, nowMs);
    this.describe(id, packet);
    const fate = this.primary.add(this.key, id, packet.moreFragments);
    if (fate === FRAGMENT.full) this.isFull = true;
    else if (fate === FRAGMENT.refused) {
      this.key[PORTS_WORD] = 0;
      holding.reportDivergence(this.key, 'diverged-fragments', id, NO_FRAME);
    } else if (fate === FRAGMENT.complete) {
      const head = this.primary.take(this.key);
      const flowId = this.flowOf(head, packet, slab, holding.secondary, nowMs);
      if (flowId === NO_FLOW) {
        holding.noteFlowless(holding.primary);
        return;
      }
      const flow = this.flow.moveTo(flowId);
      holding.frames.enqueue(flow.primary, head);
      holding.noteShare(flow.primary);
      this.rules[flow.rule].advance(flowId);
    }
  }

  /** An SVM fragment, parsed in `packet`, which is void afterwards. */
  secondaryFragment(
    packet: PacketView,
    slab: SlabId,
    at: number,
    length: number,
    index: number,
    nowMs: Instant,
  ): void {
    const { holding } = this;
    const id = holding.holdSecondary(null, slab, at, length, index, nowMs);
    if (id === NO_FRAME) return;
    this.describe(id, packet);
    const fate = this.secondary.add(this.key, id, packet.moreFragments);
    if (fate === FRAGMENT.full) this.isFull = true;
    if (fate !== FRAGMENT.complete) return;
    const head = this.secondary.take(this.key);
    const flowId = this.flowOf(head, packet, slab, holding.primary, nowMs);
    if (flowId === NO_FLOW) {
      // Its frames stay held until the commit that makes room for a flow.
      holding.noteFlowless(holding.secondary);
      return;
    }
    const flow = this.flow.moveTo(flowId);
    holding.frames.enqueue(flow.secondary, head);
    holding.noteShare(flow.secondary);
    if (flow.primary.head !== NO_FRAME || flow.rule === RULE.exempt) this.rules[flow.rule].advance(flowId);
  }

  /** A commit has released all fragments, or they were discarded: forgets them. */
  clear(): void {
    this.primary.clear();
    this.secondary.clear();
    this.isFull = false;
  }

  /** Writes what the packet says of a fragment into its columns, and its datagram's key into `key`. */
  private describe(id: FrameId, packet: PacketView): void {
    const { words } = this.holding.frames;
    words[id + PAYLOAD] = packet.payload;
    words[id + PAYLOAD_BYTES] = packet.payloadBytes;
    words[id + FLAGS] = 0;
    words[id + FROM] = packet.fragmentOffset;
    words[id + TO] = packet.fragmentOffset + packet.payloadBytes;
    words[id + WAITS] = WAITS_FOR.bytes;
    writeOutputKey(this.holding.slabs.buffer(words[id + SLAB] as SlabId), packet, this.key);
    this.key[PORTS_WORD] = packet.fragmentId;
  }

  /** Returns the flow of a complete datagram, which begins in the frame `head`; `packet`, in `slab`, completed it. */
  private flowOf(
    head: FrameId,
    packet: PacketView,
    slab: SlabId,
    likely: ArrivalList,
    nowMs: Instant,
  ): FlowId {
    const { holding } = this;
    const { words } = holding.frames;
    let total = 0;
    for (let id = head; id !== NO_FRAME; id = words[id + NEXT_FRAGMENT] as FrameId)
      total += words[id + PAYLOAD_BYTES];
    const bytes = holding.slabs.buffer(words[head + SLAB] as SlabId);
    const headerBytes = parseDatagram(
      bytes,
      words[head + PAYLOAD],
      words[head + PAYLOAD_BYTES],
      total,
      packet,
    );
    words[head + PAYLOAD] += headerBytes;
    words[head + PAYLOAD_BYTES] -= headerBytes;
    words[head + DATAGRAM_BYTES] = total - headerBytes;
    words[head + FLAGS] = IN_FRAGMENTS;
    const flowId = holding.flowOf(packet, slab, ruleOf(packet), likely, nowMs);
    for (let id = head; id !== NO_FRAME; id = words[id + NEXT_FRAGMENT] as FrameId) words[id + FLOW] = flowId;
    return flowId;
  }
}
