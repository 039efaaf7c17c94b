/**
 * Maps the SVM's sequence numbers and timestamps to the PVM's, for connections that began since the last commit.
 *
 * Both VMs choose their own initial sequence number (ISN) for one connection, whoever opened it. The client only
 * knows the PVM's. So the SVM's output gets `PVM ISN - SVM ISN` added, and its input has it taken away; the same
 * for timestamps, with the difference of the two SYNs' TSval.
 *
 * What is learnt, and from what:
 * - the SVM's ISN from its own SYN or SYN-ACK on the way out;
 * - the PVM's from the PVM's SYN or SYN-ACK, which the primary sends over the link before it may release it, and so
 *   before the client can answer. Should it be missing (the primary died in between, and the client's answer comes in
 *   through this host's uplink), from the first ACK of the client, which acknowledges exactly PVM ISN + 1 and echoes
 *   the PVM's TSval. When the guest opened the connection, that is the client's SYN-ACK.
 * A SYN that is repeated has a later TSval; the first one of each VM counts, for those were sent at the same point.
 *
 * A commit makes both VMs equal: everything is forgotten (rule 6). A promotion turns what is known into an OffsetMap
 * (`carryOver`). Timestamps then go on from the SVM's clock, which starts with the PVM's at every commit, and earlier
 * by the time that the PVM's resume takes longer: they do not run backwards for a client.
 *
 * Limits: LIMITS.translationsMax connections between two commits. A connection beyond it is not translated: the
 * comparator sees it differ and a checkpoint heals it.
 */

import { FLOW_KEY_WORDS, writeFlowKey } from '../flow/key.ts';
import { FlowTable } from '../flow/table.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';
import { TCP_ACK, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { type OffsetMap, opensConnection } from './offset-map.ts';
import { hasTimestamps, readTsEcr, readTsVal, translateInput, translateOutput } from './tcp-fields.ts';

const KNOWS_SVM = 1;
const KNOWS_PVM = 2;
const KNOWS_BOTH = KNOWS_SVM | KNOWS_PVM;
/** the connection has timestamps on both sides */
const SVM_STAMPED = 4;
const PVM_STAMPED = 8;
const STAMPED = SVM_STAMPED | PVM_STAMPED;

export class SvmTranslator {
  private readonly table: FlowTable;
  private readonly knows: Uint8Array;
  private readonly svmIsn: Int32Array;
  private readonly pvmIsn: Int32Array;
  private readonly svmTs: Int32Array;
  private readonly pvmTs: Int32Array;
  /** of connections that the client opened: tells its SYN's repetition from a new connection */
  private readonly clientIsn: Int32Array;
  private readonly view = new PacketView();
  private readonly key = new Int32Array(FLOW_KEY_WORDS);

  constructor(hashSeed: number, limits: Limits = LIMITS) {
    const max = limits.translationsMax;
    this.table = new FlowTable(max, hashSeed);
    this.knows = new Uint8Array(max);
    this.svmIsn = new Int32Array(max);
    this.pvmIsn = new Int32Array(max);
    this.svmTs = new Int32Array(max);
    this.pvmTs = new Int32Array(max);
    this.clientIsn = new Int32Array(max);
  }

  get size(): number {
    return this.table.size;
  }

  /** A commit: the SVM's numbers are the PVM's now. */
  clear(): void {
    this.table.clear();
  }

  /** The SVM's output, in place. */
  output(bytes: Uint8Array, at: number, length: number): void {
    const { view } = this;
    if (parsePacket(bytes, at, length, view) !== PACKET.tcp) return;
    writeFlowKey(bytes, view, true, this.key);
    let id = this.table.find(this.key);
    if ((view.tcpFlags & TCP_SYN) !== 0) id = this.learnSvmSyn(bytes, id);
    if (id < 0 || (this.knows[id] & KNOWS_BOTH) !== KNOWS_BOTH) return;
    translateOutput(bytes, view, this.seqDelta(id), this.tsDelta(id));
  }

  /** A SYN that left the SVM before the PVM's was known, and was kept: it gets the PVM's number now. */
  correctSyn(bytes: Uint8Array, at: number, length: number): void {
    const { view } = this;
    if (parsePacket(bytes, at, length, view) !== PACKET.tcp || (view.tcpFlags & TCP_SYN) === 0) return;
    writeFlowKey(bytes, view, true, this.key);
    const id = this.table.find(this.key);
    if (id < 0 || (this.knows[id] & KNOWS_BOTH) !== KNOWS_BOTH || view.seq !== this.svmIsn[id]) return;
    translateOutput(bytes, view, this.seqDelta(id), this.tsDelta(id));
  }

  /** The PVM's SYN or SYN-ACK, as the primary passed it on. */
  pvmSyn(bytes: Uint8Array, at: number, length: number): void {
    const { view } = this;
    if (parsePacket(bytes, at, length, view) !== PACKET.tcp) return;
    writeFlowKey(bytes, view, true, this.key);
    const id = this.entry(this.table.find(this.key));
    if (id < 0) return;
    if ((this.knows[id] & KNOWS_PVM) !== 0 && this.pvmIsn[id] === view.seq) return;
    if ((this.knows[id] & KNOWS_BOTH) === KNOWS_BOTH) this.knows[id] = 0;
    this.pvmIsn[id] = view.seq;
    this.pvmTs[id] = readTsVal(bytes, view);
    this.knows[id] &= ~PVM_STAMPED;
    this.knows[id] |= KNOWS_PVM | (hasTimestamps(bytes, view) ? PVM_STAMPED : 0);
  }

  /** The SVM's input, in place. */
  input(bytes: Uint8Array, at: number, length: number): void {
    if (this.table.size === 0) return;
    const { view } = this;
    if (parsePacket(bytes, at, length, view) !== PACKET.tcp) return;
    writeFlowKey(bytes, view, false, this.key);
    const id = this.table.find(this.key);
    if (id < 0) return;
    if (opensConnection(view.tcpFlags)) {
      this.forgetIfReused(id);
      return;
    }
    if (this.knows[id] === KNOWS_SVM || this.knows[id] === (KNOWS_SVM | SVM_STAMPED))
      this.learnFromClient(bytes, id);
    if ((this.knows[id] & KNOWS_BOTH) !== KNOWS_BOTH) return;
    translateInput(bytes, view, this.seqDelta(id), this.tsDelta(id));
  }

  /** On promotion: adds what differs to the connections' offsets. Answers how many found no room there. */
  carryOver(offsets: OffsetMap): number {
    let lost = 0;
    this.table.forEach((id) => {
      if ((this.knows[id] & KNOWS_BOTH) !== KNOWS_BOTH) return;
      this.table.readKey(id, this.key);
      const seqDelta = this.seqDelta(id);
      const tsDelta = this.tsDelta(id);
      if (seqDelta === 0 && tsDelta === 0) return;
      if (!offsets.add(this.key, this.svmIsn[id], seqDelta, tsDelta)) lost++;
    });
    return lost;
  }

  private seqDelta(id: number): number {
    return (this.pvmIsn[id] - this.svmIsn[id]) | 0;
  }

  private tsDelta(id: number): number {
    return (this.knows[id] & STAMPED) === STAMPED ? (this.pvmTs[id] - this.svmTs[id]) | 0 : 0;
  }

  private learnSvmSyn(bytes: Uint8Array, found: number): number {
    const { view } = this;
    const id = this.entry(found);
    if (id < 0) return id;
    if ((this.knows[id] & KNOWS_SVM) !== 0 && this.svmIsn[id] === view.seq) return id;
    if ((this.knows[id] & KNOWS_BOTH) === KNOWS_BOTH) this.knows[id] = 0;
    this.svmIsn[id] = view.seq;
    this.svmTs[id] = readTsVal(bytes, view);
    this.clientIsn[id] = (view.ack - 1) | 0;
    this.knows[id] &= ~SVM_STAMPED;
    this.knows[id] |= KNOWS_SVM | (hasTimestamps(bytes, view) ? SVM_STAMPED : 0);
    return id;
  }

  /** A client's new SYN on ports whose connection is complete starts from nothing; a repeated SYN changes nothing. */
  private forgetIfReused(id: number): void {
    const complete = (this.knows[id] & KNOWS_BOTH) === KNOWS_BOTH;
    if (complete && this.view.seq !== this.clientIsn[id]) this.table.remove(id);
  }

  private learnFromClient(bytes: Uint8Array, id: number): void {
    const { view } = this;
    if ((view.tcpFlags & (TCP_ACK | TCP_RST)) !== TCP_ACK) return;
    this.pvmIsn[id] = (view.ack - 1) | 0;
    this.pvmTs[id] = readTsEcr(bytes, view);
    this.knows[id] |= KNOWS_PVM | (hasTimestamps(bytes, view) ? PVM_STAMPED : 0);
  }

  private entry(found: number): number {
    if (found >= 0) return found;
    const id = this.table.insert(this.key);
    if (id >= 0) this.knows[id] = 0;
    return id;
  }
}
