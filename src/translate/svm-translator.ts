/**
 * Maps the SVM's sequence numbers, timestamps and ports to the PVM's, for connections that began since the last commit.
 *
 * Both VMs choose their own initial sequence number (ISN) for one connection, whoever opened it, and their own port for a
 * connection that they open. The client only knows the PVM's. The SVM's output therefore gets `PVM ISN - SVM ISN` added and
 * the PVM's port, the SVM's input the reverse (mapping.ts). Timestamps get the difference of the two SYNs' TSval.
 *
 * Sources of knowledge ("SYN" means a SYN or a SYN-ACK):
 * - The SVM's SYN, when it leaves the SVM.
 * - The PVM's SYN, as a lesson of the primary (`teach`). The primary releases that SYN only when the SVM's SYN has come back
 *   with the PVM's number (`Comparator.taught`), so no client replies to a number that is not known here.
 * - Without lessons (drop-in, recordings), the client's first ACK, which acknowledges exactly PVM ISN + 1 and echoes the PVM's
 *   TSval. If the guest opened the connection, that is the client's SYN-ACK, or the RST by which it refuses; or it is an ICMP
 *   error that quotes the SYN.
 * A repeated SYN has a later TSval. The first SYN of each VM counts, because both VMs sent it at the same point.
 *
 * Pairing SYNs: SYNs of the same ports pair. Otherwise, for connections that the guest opened, the oldest unpaired SYN of the
 * PVM to a destination (VLAN, both addresses, the client's port) pairs with the oldest unpaired SYN of the SVM to it. Two
 * threads of the guest that connect to one destination may be crossed by that: the comparator then finds different bytes, and
 * a checkpoint heals it. The PVM's port may be one where the SVM has another connection: the names are exchanged
 * (connection-names.ts).
 *
 * States of a name. Each VM has its own state by a name, because the name may belong to one connection of the PVM and to
 * another of the SVM. For each VM: `unknown` (no SYN), `unpaired` (a SYN without counterpart), `paired` (both are known, and the
 * names are linked). Both VMs are never unpaired by one name: the later of the two SYNs pairs them.
 *
 *   event                                      this VM's state    action
 *   SYN with the ISN that is known             unpaired, paired   none: a repetition
 *   opening SYN from before the commit, and
 *     nothing is known of the name             unknown            none: both VMs have that connection
 *   SYN with another ISN                       paired             unlink, the other VM's state becomes unknown; go on as unknown
 *                                              unpaired           go on as unknown
 *   SYN, other VM unpaired by this name        unknown            pair with it
 *   opening SYN, other VM has unpaired SYNs
 *     to the destination                       unknown            pair with the first of them
 *   any other SYN                              unknown            unpaired
 *   client's first ACK, reply to a SYN         SVM unpaired,      record the PVM's ISN (ack - 1), pair with this name
 *                                              PVM unknown
 *   reply to a SYN, SVM has unpaired SYNs      PVM unknown        without lessons: record the PVM's ISN, pair with the first of
 *     to the destination                                          them
 *   commit (`clear`)                           any                forget every name
 *
 * A reply to a SYN is a SYN-ACK; an RST with ACK and the number 0, which no other segment gets (RFC 9293 section 3.5.2); or an
 * error about it, from which the ISN is taken.
 *
 * A lesson that pairs a SYN which the SVM has already sent under its own number or port reports `syn-moved`: the primary would
 * not recognise that SYN as the counterpart, so the caller corrects it (`correctSyn`) and sends it again.
 *
 * A connection that the guest opened before the last commit has one port and number in both VMs. Either VM may still repeat its
 * SYN, and the client's SYN-ACK may come late. The PVM's latest opening SYNs are therefore remembered past a commit
 * (syn-history.ts), and segments that belong to one of them are left alone.
 *
 * A connection whose SYN is signed (TCP MD5, TCP-AO) is reported and not translated: any change breaks the signature. After
 * a commit both VMs have the same numbers, and the connection needs no translation.
 *
 * Of a field in which the VMs may differ, the SVM's own value is replaced by the PVM's as well (unified-values.ts).
 *
 * End: a commit makes both VMs equal, so everything is forgotten (rule 6). A promotion moves what is known into an OffsetMap
 * (`carryOver`), with the latest time that each client has echoed: if the SVM sent its SYN later than the PVM, its clock, set
 * equal at the SYNs, lags by the difference. OffsetMap moves that clock ahead.
 *
 * Limits: LIMITS.translationsMax names between two commits. A connection beyond them is not translated: the comparator sees
 * it diverge, and a checkpoint heals it.
 */

import { LESSON, type Lesson } from '../compare/lesson.ts';
import { invariant } from '../error.ts';
import { PORTS_WORD } from '../flow/key.ts';
import { seqBefore } from '../flow/sequence.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { NONE, type Seq } from '../units.ts';
import { readI32 } from '../wire/bytes.ts';
import type { PacketView } from '../wire/packet.ts';
import { isSigned, opensConnection, TCP, TCP_ACK, TCP_RST, TCP_SYN, TCP_TIMESTAMPS } from '../wire/tcp.ts';
import type { ConnectionNames } from './connection-names.ts';
import { Mapping } from './mapping.ts';
import type { OffsetMap, Translation } from './offset-map.ts';
import { SENDER } from './segment.ts';
import { SynHistory } from './syn-history.ts';
import { UnifiedValues } from './unified-values.ts';
import { UnpairedSyns } from './unpaired-syns.ts';
import { SYN, VmSyns } from './vm-syns.ts';

/** What a lesson changes for a frame that the SVM has already sent: nothing, or its SYN needs `correctSyn`. */
export type LessonEffect = 'nothing' | 'syn-moved';

export class SvmTranslator {
  /**
   * Who names the PVM's port of a connection that the guest opened. `clients`: a SYN-ACK to an unknown port replies to the
   * PVM's counterpart of the SVM's oldest unpaired SYN. `lessons`: the primary sends every SYN of the PVM before a client can
   * reply to it, so such a SYN-ACK belongs to an older connection.
   */
  portsFrom: 'clients' | 'lessons' = 'clients';
  /** Called once for each signed connection until the next commit. `key` is the VM's, and reused after the call. */
  onSigned: (key: Int32Array) => void = () => {};
  readonly counters = { signed: 0 };
  /** what the primary has taught of fields that may differ, in the PVM's numbers */
  readonly values: UnifiedValues;
  private readonly mapping: Mapping;
  private readonly names: ConnectionNames;
  private readonly svm: VmSyns;
  private readonly pvm: VmSyns;
  private readonly unpaired: UnpairedSyns;
  private readonly history = new SynHistory();
  /* By the SVM's name. */
  /** 1 if the SVM opened the connection; otherwise `clientIsn` is the client's ISN, which its first ACK follows */
  private readonly opened: Uint8Array;
  private readonly clientIsn: Int32Array;
  /** 1 if `echoed` is the latest TSval of the PVM that the client has certainly received */
  private readonly hasEcho: Uint8Array;
  private readonly echoed: Int32Array;

  constructor(hashSeed: number, limits: Limits = LIMITS) {
    const max = limits.translationsMax;
    this.mapping = new Mapping(max, hashSeed);
    this.names = this.mapping.names;
    this.svm = new VmSyns(this.mapping.names.clientName);
    this.pvm = new VmSyns(this.mapping.names.vmName);
    this.unpaired = new UnpairedSyns(max, hashSeed);
    this.opened = new Uint8Array(max);
    this.clientIsn = new Int32Array(max);
    this.hasEcho = new Uint8Array(max);
    this.echoed = new Int32Array(max);
    this.values = new UnifiedValues(limits.unifiedValuesMax, hashSeed);
  }

  /** Names that are known, of either VM: two for a connection whose ports differ. */
  get size(): number {
    return this.mapping.names.size;
  }

  /** A commit: the SVM's numbers are the PVM's now. */
  clear(): void {
    this.mapping.clear();
    this.unpaired.clear();
    this.values.clear();
  }

  /** Translates a frame that the SVM sent, in place. */
  output(bytes: Uint8Array, at: number, length: number): void {
    this.translateOutput(bytes, at, length);
    if (this.values.size !== 0) this.values.output(bytes, at, length);
  }

  /** Translates a frame for the SVM, in place. */
  input(bytes: Uint8Array, at: number, length: number): void {
    if (this.values.size !== 0) this.values.input(bytes, at, length);
    if (this.names.size !== 0) this.translateInput(bytes, at, length);
  }

  private translateOutput(bytes: Uint8Array, at: number, length: number): void {
    const { mapping } = this;
    if (!mapping.segment.parse(bytes, at, length, SENDER.vm)) {
      if (this.names.size !== 0) mapping.quoteToClient(bytes);
      return;
    }
    const isSyn = (mapping.segment.view.tcpFlags & TCP_SYN) !== 0;
    if (this.names.size === 0 && !isSyn) return;
    let name = mapping.find(bytes);
    if (isSyn) name = this.learnSvmSyn(bytes, name);
    if (name !== NONE) mapping.toClient(bytes, name);
  }

  private translateInput(bytes: Uint8Array, at: number, length: number): void {
    const { mapping } = this;
    if (!mapping.segment.parse(bytes, at, length, SENDER.client)) {
      if (this.portsFrom === 'clients') this.learnFromQuote(bytes);
      mapping.quoteToVm(bytes);
      return;
    }
    let name = mapping.find(bytes);
    const isKnown = name !== NONE && this.names.vmName[name] !== NONE;
    const isAck = (mapping.segment.view.tcpFlags & TCP_ACK) !== 0;
    if (isAck && !isKnown) name = this.learnFromAck(bytes, name);
    if (name === NONE) return;
    const vm = this.names.vmName[name];
    if (isAck && vm !== NONE) this.noteEcho(bytes, vm);
    mapping.toVm(bytes, name, vm === NONE ? 0 : mapping.tsDelta[vm]);
  }

  /**
   * Learns what the primary teaches; the frame is only read. `age` is `past` if an epoch has been committed since the PVM sent
   * the frame: the SVM then has the connection already, and must not pair the next one to its destination with it.
   */
  teach(
    lesson: Lesson,
    age: 'current' | 'past',
    bytes: Uint8Array,
    at: number,
    length: number,
  ): LessonEffect {
    invariant(lesson === LESSON.tcpSyn, `the primary teaches ${lesson}, which the translator cannot map`);
    const { mapping } = this;
    if (!mapping.segment.parse(bytes, at, length, SENDER.vm)) return 'nothing';
    const name = mapping.find(bytes);
    if (age === 'current') return this.learnPvmSyn(bytes, name);
    this.rememberOpening();
    return 'nothing';
  }

  /**
   * Gives a SYN that left the SVM before the PVM's was known, and was retained, the PVM's number and port. Returns true if it
   * did, false if the frame is right or is not such a SYN.
   */
  correctSyn(bytes: Uint8Array, at: number, length: number): boolean {
    const name = this.nameOfRetained(bytes, at, length);
    if (name === NONE || (this.mapping.segment.view.tcpFlags & TCP_SYN) === 0) return false;
    return this.correct(bytes, name);
  }

  /** Raises the TSval of a retained frame, which is in the PVM's numbers, to the latest time that the client has echoed. */
  correctTime(bytes: Uint8Array, at: number, length: number): void {
    const { segment, names } = this.mapping;
    const name = this.nameOfRetained(bytes, at, length);
    const vm = name === NONE ? NONE : names.vmName[name];
    if (vm === NONE || this.hasEcho[vm] === 0) return;
    const option = segment.timestamps(bytes);
    if (option === NONE) return;
    const ts = readI32(bytes, option + TCP_TIMESTAMPS.value);
    const lag = (this.echoed[vm] - ts) | 0;
    if (lag > 0) segment.rewrite(bytes, 0, lag, NONE);
  }

  /**
   * On promotion: adds what differs to the connections' offsets, and the values to theirs. Returns how many connections cannot be
   * continued, because they are signed or `offsets` is full.
   */
  carryOver(offsets: OffsetMap): number {
    const { names, seqDelta, tsDelta, signed, key } = this.mapping;
    const all: { vm: number; older: Translation | null }[] = [];
    let lost = 0;
    // By the older offsets: the values are in the PVM's numbers.
    for (const value of this.values.all()) if (!offsets.addValue(value)) lost++;
    this.fixExchangedNames();
    names.forEach((vm) => {
      if (signed[vm] === 0) all.push({ vm, older: null });
      else if (seqDelta[vm] !== 0 || names.clientName[vm] !== vm) lost++;
    });
    // The offsets of the PVM's connections become those of the SVM's. All are taken out first, because names may be exchanged.
    for (const entry of all) {
      names.readKey(names.clientName[entry.vm], key);
      entry.older = offsets.take(key);
    }
    for (const { vm, older } of all) {
      names.readKey(vm, key);
      const port = names.port[vm];
      const offset = {
        vmIsn: this.svm.isn[vm],
        seqDelta: (seqDelta[vm] + (older?.seqDelta ?? 0)) | 0,
        tsDelta: (tsDelta[vm] + (older?.tsDelta ?? 0)) | 0,
        clientPort: older?.clientPort ?? names.port[names.clientName[vm]],
      };
      if (offset.seqDelta === 0 && offset.tsDelta === 0 && offset.clientPort === port) continue;
      if (!offsets.add(key, offset)) lost++;
      else if (this.hasEcho[vm] !== 0) offsets.noteEcho(key, (this.echoed[vm] + (older?.tsDelta ?? 0)) | 0);
    }
    return lost;
  }

  /** Links each unpaired connection whose name stands for another connection to the name by which its SYN left. */
  private fixExchangedNames(): void {
    const { names } = this.mapping;
    const exchanged: number[] = [];
    names.forEachName((name) => {
      if (this.svm.isUnpaired(name) && this.pvm.state(name) === SYN.paired) exchanged.push(name);
    });
    for (const name of exchanged) {
      const client = names.freeClientName(name);
      this.pvm.record(client, this.svm.isn[name] as Seq, null);
      this.pair(name, client);
    }
  }

  /** Records the SYN of a lesson, which is in the segment; `found` is the name of its key, or NONE. */
  private learnPvmSyn(bytes: Uint8Array, found: number): LessonEffect {
    const { segment, signed, seqDelta } = this.mapping;
    const repeats = this.rememberOpening() === 'repeated';
    if (repeats && found === NONE) return 'nothing';
    const name = found === NONE ? this.insert() : found;
    if (name === NONE || this.pvm.has(name, segment.view.seq)) return 'nothing';
    const vm = this.learnSyn(this.pvm, this.svm, bytes, name);
    if (vm === NONE || signed[name] !== 0) return 'nothing';
    return vm === name && seqDelta[vm] === 0 ? 'nothing' : 'syn-moved';
  }

  /** Records the SVM's SYN, which is in the segment; `found` is the name of its key, or NONE. Returns the name that it has now. */
  private learnSvmSyn(bytes: Uint8Array, found: number): number {
    const { segment, key } = this.mapping;
    const { view } = segment;
    if (found === NONE && opensConnection(view.tcpFlags) && this.history.has(key[PORTS_WORD], view.seq))
      return NONE;
    const name = found === NONE ? this.insert() : found;
    if (name === NONE || this.svm.has(name, view.seq)) return name;
    this.opened[name] = opensConnection(view.tcpFlags) ? 1 : 0;
    this.clientIsn[name] = (view.ack - 1) | 0;
    this.learnSyn(this.svm, this.pvm, bytes, name);
    return name;
  }

  /**
   * Records a SYN of one VM (`mine`) that is not a repetition, and pairs it if it can. Returns the other VM's name of the
   * connection, or NONE if the SYN stays unpaired.
   */
  private learnSyn(mine: VmSyns, others: VmSyns, bytes: Uint8Array, name: number): number {
    const { segment, key, signed } = this.mapping;
    const { view } = segment;
    this.unlink(mine, others, name);
    this.unpaired.remove(name);
    const option = segment.timestamps(bytes);
    mine.record(name, view.seq, option === NONE ? null : readI32(bytes, option + TCP_TIMESTAMPS.value));
    this.noteSigned(bytes, name);
    let other = name;
    if (!others.isUnpaired(name)) {
      if (!opensConnection(view.tcpFlags) || signed[name] !== 0) return NONE;
      other = this.unpaired.first(key);
      if (!others.isUnpaired(other)) {
        invariant(other === NONE || mine.isUnpaired(other), 'a SYN waits for its counterpart and is paired');
        this.unpaired.add(key, name);
        return NONE;
      }
    }
    if (mine === this.svm) this.pair(name, other);
    else this.pair(other, name);
    return other;
  }

  /** Ends the pair that `name` is in, for a new connection of this VM by it: the other VM's SYN is void. */
  private unlink(mine: VmSyns, others: VmSyns, name: number): void {
    if (mine.state(name) !== SYN.paired) return;
    const other = mine.links[name];
    this.mapping.names.unlink(mine === this.svm ? name : other);
    others.forget(other);
  }

  /** `vm` is the SVM's name of a connection, and `client` the PVM's: both SYNs are recorded. */
  private pair(vm: number, client: number): void {
    const { svm, pvm } = this;
    invariant(svm.isUnpaired(vm) && pvm.isUnpaired(client), 'two SYNs were paired, and one is not unpaired');
    this.unpaired.remove(vm);
    this.unpaired.remove(client);
    const stamped = svm.isStamped(vm) && pvm.isStamped(client);
    const tsDelta = stamped ? (pvm.ts[client] - svm.ts[vm]) | 0 : 0;
    this.mapping.link(vm, client, (pvm.isn[client] - svm.isn[vm]) | 0, tsDelta);
    this.hasEcho[vm] = 0;
  }

  /** Learns from a client's segment with ACK, to the name `found` or NONE. Returns the name that the segment is to. */
  private learnFromAck(bytes: Uint8Array, found: number): number {
    if (found !== NONE && this.pvm.state(found) !== SYN.unknown) return found;
    const { view } = this.mapping.segment;
    const isn = ((view.ack - 1) | 0) as Seq;
    if (this.repliesToSyn(view)) return this.learnPvmOpening(found, isn, this.echoedTime(bytes));
    // Only the first segment gives the ISN: later ones acknowledge more.
    const isFirst = (view.tcpFlags & (TCP_SYN | TCP_RST)) === 0 && this.svm.isUnpaired(found);
    if (isFirst && this.opened[found] === 0 && ((view.seq - 1) | 0) === this.clientIsn[found])
      this.learnPvm(found, found, isn, this.echoedTime(bytes));
    return found;
  }

  /** Returns the VM's time (TSval) that a client's segment echoes, or null. */
  private echoedTime(bytes: Uint8Array): number | null {
    const option = this.mapping.segment.timestamps(bytes);
    return option === NONE ? null : readI32(bytes, option + TCP_TIMESTAMPS.echo);
  }

  /** Returns true for a client's SYN-ACK, and, without lessons, for the RST by which it refuses a connection. */
  private repliesToSyn({ tcpFlags, seq }: PacketView): boolean {
    if ((tcpFlags & TCP_RST) !== 0) return this.portsFrom === 'clients' && seq === 0;
    return (tcpFlags & TCP_SYN) !== 0;
  }

  /** Learns from an ICMP error about the PVM's opening SYN, which ends the connection of both VMs. */
  private learnFromQuote(bytes: Uint8Array): void {
    const quote = this.mapping.quotedSegment(bytes);
    if (quote === null) return;
    const { l4, end } = quote.view;
    if (l4 + TCP.flags >= end || !opensConnection(bytes[l4 + TCP.flags])) return;
    const found = this.mapping.find(bytes, quote);
    if (found !== NONE && this.pvm.state(found) !== SYN.unknown) return;
    this.learnPvmOpening(found, readI32(bytes, l4 + TCP.seq) as Seq, null);
  }

  /**
   * A client replies to the PVM's opening SYN with this number, of which nothing was known; `found` is the name of the key, or
   * NONE. Pairs it if the SVM has a counterpart. Returns the name that the reply is to.
   */
  private learnPvmOpening(found: number, isn: Seq, ts: number | null): number {
    const { key } = this.mapping;
    if (this.svm.isUnpaired(found)) {
      if (this.opened[found] !== 0) this.learnPvm(found, found, isn, ts);
      return found;
    }
    if (this.portsFrom === 'lessons') return found;
    const vm = this.unpaired.first(key);
    if (!this.svm.isUnpaired(vm) || this.history.has(key[PORTS_WORD], isn)) return found;
    const name = found === NONE ? this.insert() : found;
    if (name !== NONE) this.learnPvm(vm, name, isn, ts);
    return name;
  }

  /** Records the PVM's SYN by `client`, and pairs it with the SVM's by `vm`. */
  private learnPvm(vm: number, client: number, isn: Seq, ts: number | null): void {
    this.pvm.record(client, isn, ts);
    this.pair(vm, client);
  }

  /** Remembers the PVM's SYN, which is in the segment, past a commit if it opens a connection. */
  private rememberOpening(): 'new' | 'repeated' | 'no opening' {
    const { segment, key } = this.mapping;
    const { view } = segment;
    if (!opensConnection(view.tcpFlags)) return 'no opening';
    if (this.history.has(key[PORTS_WORD], view.seq)) return 'repeated';
    this.history.add(key[PORTS_WORD], view.seq);
    return 'new';
  }

  private noteEcho(bytes: Uint8Array, vm: number): void {
    const echo = this.echoedTime(bytes);
    if (echo === null) return;
    if (this.hasEcho[vm] === 0 || seqBefore(this.echoed[vm], echo)) this.echoed[vm] = echo;
    this.hasEcho[vm] = 1;
  }

  private noteSigned(bytes: Uint8Array, name: number): void {
    const { segment, signed, key } = this.mapping;
    const { view } = segment;
    const was = signed[name];
    signed[name] = isSigned(bytes, view.l4 + TCP.headerBytesMin, view.payload) ? 1 : 0;
    if (signed[name] === 0 || was !== 0) return;
    this.counters.signed++;
    this.onSigned(key);
  }

  /** Corrects the SYN in the segment, which left by `name`: the SVM's own name or, where that was taken, the one that was free. */
  private correct(bytes: Uint8Array, name: number): boolean {
    const { segment, names, seqDelta, tsDelta } = this.mapping;
    let vm = name;
    while (!this.svm.has(vm, segment.view.seq)) {
      vm = names.clientName[vm];
      if (vm === NONE || vm === name) return false;
    }
    const client = names.clientName[vm];
    if (client === NONE) return false;
    segment.rewrite(bytes, seqDelta[vm], tsDelta[vm], client === name ? NONE : names.port[client]);
    return true;
  }

  /** Returns the name by which a retained frame left, or NONE if nothing may be changed in it. */
  private nameOfRetained(bytes: Uint8Array, at: number, length: number): number {
    const { mapping } = this;
    if (mapping.names.size === 0 || !mapping.segment.parse(bytes, at, length, SENDER.vm)) return NONE;
    const name = mapping.find(bytes);
    return name !== NONE && mapping.signed[name] !== 0 ? NONE : name;
  }

  private insert(): number {
    const name = this.mapping.insert(this.mapping.key);
    if (name === NONE) return NONE;
    this.svm.forget(name);
    this.pvm.forget(name);
    return name;
  }
}
