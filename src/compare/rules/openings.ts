/**
 * Connections that the guest opens, each VM from a port of its own, where nobody tells the secondary the PVM's port (drop-in).
 *
 * Goal: a PVM SYN leaves when the SVM has opened its counterpart, without a checkpoint. The two SYNs are in different flows,
 * which are named by the VM's port. They pair by place, as in a node (translate/unpaired-syns.ts): the oldest SYN of the PVM to a
 * destination (VLAN, both addresses, the client's port) that has no counterpart with the oldest such SYN of the SVM. SYNs from
 * the same port pair first, in their own flow (tcp.ts).
 *
 * Once the PVM's SYN has left, the server replies to the PVM's port; `colo rewrite` sees that, pairs by place as well, and from
 * then on the SVM's segments come in the PVM's flow. The SVM's SYN is confirmed and dropped. Its flow remembers it as lent to
 * another flow, since the SVM may repeat it until the reply has come.
 *
 *   event                                    SYN of the other VM to that destination   action
 *   PVM SYN, none of the SVM in its flow     waits, settles the same                   release the PVM's with the lesser
 *                                                                                      window, drop the SVM's
 *                                            none, or settles something else           wait, as for any counterpart
 *   SVM SYN, none of the PVM in its flow     waits                                     judge the PVM's oldest anew
 *   SVM repeats a lent SYN                   any                                       confirm
 *   commit, discard                          any                                       none: a SYN that is not held is forgotten
 *                                                                                      when the next one is looked for
 *
 * Not paired, so that they wait for a checkpoint: SYNs with data, signed ones. If two threads connect to one destination at
 * once they may be crossed: the bytes then differ, and a checkpoint heals it.
 *
 * Limits: OPENINGS_MAX SYNs of each VM; one beyond them waits for a checkpoint.
 */
import { seqAdd } from '../../flow/sequence.ts';
import type { FlowId, FrameId, Seq } from '../../units.ts';
import { opensConnection, TCP_FIN } from '../../wire/tcp.ts';
import { FLAGS, FLOW, type FrameQueue, NO_FLOW, NO_FRAME } from '../held-frames.ts';
import type { Holding } from '../holding.ts';
import { type HeldTcpFlow, OPTIONS, SEQ, SEQ_END, SIGNED, WINDOW_SHIFT } from './tcp-flow.ts';
import type { TcpQueue } from './tcp-queue.ts';

const OPENINGS_MAX = 256;

/** One VM's opening SYNs without a counterpart, the oldest first: their flows, and their SEQ. */
type Side = { flows: FlowId[]; seqs: number[] };

export class Openings {
  private readonly holding: Holding;
  /** TCP's cursor, which comes back to the flow where it was */
  private readonly flow: HeldTcpFlow;
  private readonly queue: TcpQueue;
  /** of the SYN that `takeCounterpart` has dropped */
  window = 0;
  private readonly pvm: Side = { flows: [], seqs: [] };
  private readonly svm: Side = { flows: [], seqs: [] };

  constructor(holding: Holding, flow: HeldTcpFlow, queue: TcpQueue) {
    this.holding = holding;
    this.flow = flow;
    this.queue = queue;
  }

  /** A PVM SYN at the head of its flow has no counterpart there. Returns true if it has one elsewhere, which is dropped. */
  takeCounterpart(id: FrameId): boolean {
    if (!this.isPlainOpening(id)) return false;
    const { words } = this.holding.frames;
    const flowId = words[id + FLOW] as FlowId;
    const { flow, svm } = this;
    const at = this.oldestTo(svm, flowId, flow.secondary);
    const isSame = at >= 0 && words[flow.secondary.head + OPTIONS] === words[id + OPTIONS];
    if (isSame) {
      flow.lend(seqAdd(svm.seqs[at] as Seq, -1));
      this.window = words[flow.secondary.head + FLAGS] >>> WINDOW_SHIFT;
      this.queue.dropSyn();
      remove(svm, at);
    }
    flow.moveTo(flowId);
    if (!isSame) this.add(this.pvm, flowId, words[id + SEQ], flow.primary);
    return isSame;
  }

  /**
   * A SYN of the SVM was queued in the flow of the cursor, and has not matched there. Returns the flow of the oldest PVM SYN that
   * may be its counterpart, or NO_FLOW.
   */
  flowWaitingFor(flowId: FlowId): FlowId {
    const { flow, pvm } = this;
    const head = flow.secondary.head;
    if (head === NO_FRAME || !this.isPlainOpening(head)) return NO_FLOW;
    this.add(this.svm, flowId, this.holding.frames.words[head + SEQ], flow.secondary);
    const at = this.oldestTo(pvm, flowId, flow.primary);
    flow.moveTo(flowId);
    return at < 0 ? NO_FLOW : pvm.flows[at];
  }

  private isPlainOpening(id: FrameId): boolean {
    const { words } = this.holding.frames;
    const flags = words[id + FLAGS];
    if (!opensConnection(flags) || (flags & (TCP_FIN | SIGNED)) !== 0) return false;
    return words[id + SEQ] === words[id + SEQ_END];
  }

  /** Returns the place in `side` of its oldest SYN to the destination of a flow, where the cursor is then; or -1. */
  private oldestTo(side: Side, flowId: FlowId, queue: FrameQueue): number {
    for (let at = 0; at < side.flows.length; ) {
      if (!this.isWaiting(side, at, queue)) {
        remove(side, at);
        continue;
      }
      if (side.flows[at] !== flowId && this.holding.haveOneDestination(side.flows[at], flowId)) return at;
      at++;
    }
    return -1;
  }

  /** Returns true if the SYN is still at the head of its queue. Moves the cursor to its flow; `queue` is the cursor's. */
  private isWaiting(side: Side, at: number, queue: FrameQueue): boolean {
    this.flow.moveTo(side.flows[at]);
    if (!this.flow.isUsed || queue.head === NO_FRAME) return false;
    return this.isPlainOpening(queue.head) && this.holding.frames.words[queue.head + SEQ] === side.seqs[at];
  }

  private add(side: Side, flowId: FlowId, seq: number, queue: FrameQueue): void {
    const known = side.flows.indexOf(flowId);
    if (known >= 0) {
      // The flow's earlier SYN is gone.
      if (side.seqs[known] === seq) return;
      remove(side, known);
    }
    if (side.flows.length >= OPENINGS_MAX) {
      for (let at = side.flows.length - 1; at >= 0; at--)
        if (!this.isWaiting(side, at, queue)) remove(side, at);
      this.flow.moveTo(flowId);
      if (side.flows.length >= OPENINGS_MAX) return;
    }
    side.flows.push(flowId);
    side.seqs.push(seq);
  }
}

function remove(side: Side, at: number): void {
  side.flows.splice(at, 1);
  side.seqs.splice(at, 1);
}
