/**
 * Maps the SVM's sequence numbers, timestamps and ports to the PVM's, for connections that began since the last commit.
 *
 * Both VMs choose their own initial sequence number (ISN) for one connection, whoever opened it, and their own port for
 * one that they open. The client only knows the PVM's. So the SVM's output gets `PVM ISN - SVM ISN` added, and its input
 * has it taken away; the same for timestamps, with the difference of the two SYNs' TSval; and the PVM's port takes the
 * place of the SVM's. Translated are TCP, the first fragment of a segment, and the segments that ICMP errors quote.
 *
 * What is learnt, and from what:
 * - the SVM's ISN from its own SYN or SYN-ACK on the way out;
 * - the PVM's from the PVM's SYN or SYN-ACK, which the primary sends over the link. It releases it only when the SVM's
 *   has come back in the PVM's number (`Comparator.taught`), so no client answers a number that is not known here.
 *   Where nobody tells of it (drop-in, recordings), from the first ACK of the client, which acknowledges exactly
 *   PVM ISN + 1 and echoes the PVM's TSval. When the guest opened the connection, that is the client's SYN-ACK.
 * A SYN that is repeated has a later TSval; the first one of each VM counts, for those were sent at the same point.
 *
 * Which SYN of the PVM belongs to which of the SVM? That of the same ports. If there is none, and the guest opened the
 * connection: of those to the same place (VLAN, both addresses, the other side's port) the first one of the PVM that
 * has no counterpart belongs to the first one of the SVM that has none. Two threads of the guest that connect to one
 * place may be crossed by that; the comparator then sees other bytes, and a checkpoint heals it. A port that the PVM uses and
 * where the SVM has another connection of its own is no obstacle: names are exchanged (connection-names.ts).
 *
 * A connection that the guest opened before the last commit is none of these: both VMs have it under one port and number.
 * Its SYN may be repeated by either, and the client's SYN-ACK may come late. So the PVM's latest SYNs are remembered past
 * a commit (TOLD_MAX), and what speaks of one of them is left alone.
 *
 * A connection whose SYN is signed (TCP MD5 or TCP-AO) is left alone and reported: whatever is changed breaks the
 * signature. It is its own again after a commit.
 *
 * A commit makes both VMs equal: everything is forgotten (rule 6). A promotion turns what is known into an OffsetMap
 * (`carryOver`), with the latest time that each client has echoed: the SVM may have answered a SYN later than the PVM
 * did, and then its clock, set equal at the SYNs, lags by as much. OffsetMap moves it ahead.
 *
 * Limits: LIMITS.translationsMax names between two commits. A connection beyond it is not translated: the
 * comparator sees it differ and a checkpoint heals it.
 */

import { FLOW_KEY_WORDS, PORTS_WORD, writeInputKey, writeOutputKey } from '../flow/key.ts';
import { seqBefore } from '../flow/sequence.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { readI32 } from '../wire/bytes.ts';
import { viewFirstFragment } from '../wire/first-fragment.ts';
import { viewQuote } from '../wire/icmp-quote.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';
import { isSigned, TCP, TCP_ACK, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { ConnectionNames, NONE } from './connection-names.ts';
import type { OffsetMap, Translation } from './offset-map.ts';
import { replaceQuotedPort, translateQuotedInput, translateQuotedOutput } from './quote-fields.ts';
import {
  hasTimestamps,
  opensConnection,
  readTsEcr,
  readTsVal,
  replacePort,
  replaceTsVal,
  timestamps,
  translateInput,
  translateOutput,
} from './tcp-fields.ts';
import { UnpairedSyns } from './unpaired-syns.ts';

/* What is known of a name: as the SVM's, and as the PVM's. */
const KNOWS_SVM = 1;
const KNOWS_PVM = 2;
const SVM_STAMPED = 4;
const PVM_STAMPED = 8;
/** the SVM opened it */
const SVM_OPENED = 16;
/** `echoed` holds the latest TSval of the PVM that the client has seen for sure */
const ECHOED = 32;
const SIGNED = 64;
const OF_SVM = KNOWS_SVM | SVM_STAMPED | SVM_OPENED | ECHOED;
const OF_PVM = KNOWS_PVM | PVM_STAMPED;

/** SYNs of the PVM that are remembered past a commit. Of an older one a repetition is taken for a new connection. */
const TOLD_MAX = 1024;

export class SvmTranslator {
  /**
   * A SYN-ACK for a port that nobody is known to use tells the PVM's port of the SVM's first unpaired SYN. Not to be used
   * where every SYN of the PVM is told in time: there such an answer belongs to an older connection.
   */
  learnsPorts = true;
  /** A connection is signed and so not translated; once for each, until a commit. `key` is the VM's, and reused. */
  onSigned: (key: Int32Array) => void = () => {};
  readonly counters = { signed: 0 };
  private readonly names: ConnectionNames;
  private readonly unpaired: UnpairedSyns;
  private readonly knows: Uint8Array;
  /* By the SVM's name. */
  private readonly svmIsn: Int32Array;
  private readonly svmTs: Int32Array;
  /** of connections that the client opened: its first ACK comes right behind it */
  private readonly clientIsn: Int32Array;
  private readonly echoed: Int32Array;
  /* By the PVM's name. */
  private readonly pvmIsn: Int32Array;
  private readonly pvmTs: Int32Array;
  /* The SYNs by which the PVM opened connections, the latest in place of the oldest. */
  private readonly toldPorts = new Int32Array(TOLD_MAX);
  private readonly toldIsns = new Int32Array(TOLD_MAX);
  private toldCount = 0;
  private readonly view = new PacketView();
  private readonly quote = new PacketView();
  private readonly key = new Int32Array(FLOW_KEY_WORDS);

  constructor(hashSeed: number, limits: Limits = LIMITS) {
    const max = limits.translationsMax;
    this.names = new ConnectionNames(max, hashSeed);
    this.unpaired = new UnpairedSyns(max, hashSeed);
    this.knows = new Uint8Array(max);
    this.svmIsn = new Int32Array(max);
    this.svmTs = new Int32Array(max);
    this.clientIsn = new Int32Array(max);
    this.echoed = new Int32Array(max);
    this.pvmIsn = new Int32Array(max);
    this.pvmTs = new Int32Array(max);
  }

  /** Connections that are known, of either VM; one whose port differs counts twice, for it has two names. */
  get size(): number {
    return this.names.size;
  }

  /** A commit: the SVM's numbers are the PVM's now. */
  clear(): void {
    this.names.clear();
    this.unpaired.clear();
  }

  /** The SVM's output, in place. */
  output(bytes: Uint8Array, at: number, length: number): void {
    const { view, names } = this;
    if (!this.isTcp(bytes, at, length)) {
      if (names.size !== 0) this.quotedOutput(bytes);
      return;
    }
    const begins = (view.tcpFlags & TCP_SYN) !== 0;
    if (names.size === 0 && !begins) return;
    writeOutputKey(bytes, view, this.key);
    let name = names.find(this.key);
    if (begins) name = this.learnSvmSyn(bytes, name);
    if (name === NONE || (this.knows[name] & SIGNED) !== 0) return;
    let outside = names.outer[name];
    if (outside === NONE) outside = names.freeOuter(name);
    else translateOutput(bytes, view, this.seqDelta(name), this.tsDelta(name));
    if (outside !== name) replacePort(bytes, view, view.l4 + TCP.sourcePort, names.port[outside]);
  }

  /**
   * A SYN that left the SVM before the PVM's was known, and was kept, gets the PVM's number and port now. Answers whether
   * it did.
   */
  correctSyn(bytes: Uint8Array, at: number, length: number): boolean {
    const name = this.nameOfKept(bytes, at, length);
    return name !== NONE && (this.view.tcpFlags & TCP_SYN) !== 0 && this.correct(bytes, name);
  }

  /** A frame that was kept, in the PVM's numbers, gets no older time than the client has seen. */
  correctTime(bytes: Uint8Array, at: number, length: number): void {
    const { view, names } = this;
    const name = this.nameOfKept(bytes, at, length);
    const vm = name === NONE ? NONE : names.inner[name];
    if (vm === NONE || (this.knows[vm] & ECHOED) === 0) return;
    const option = timestamps(bytes, view);
    if (option >= 0 && seqBefore(readI32(bytes, option + 2), this.echoed[vm]))
      replaceTsVal(bytes, view, option, this.echoed[vm]);
  }

  /**
   * The PVM's SYN or SYN-ACK, as the primary passed it on. Answers whether a SYN of the SVM, which has left in its own
   * number or under its own port, now has another one: it has to be corrected, for nobody would see the counterpart in it.
   */
  pvmSyn(bytes: Uint8Array, at: number, length: number): boolean {
    const { view, names } = this;
    if (parsePacket(bytes, at, length, view) !== PACKET.tcp) return false;
    writeOutputKey(bytes, view, this.key);
    const found = names.find(this.key);
    if (opensConnection(view.tcpFlags)) {
      if (this.wasTold(view.seq)) {
        if (found === NONE) return false;
      } else this.noteTold();
    }
    const name = found === NONE ? this.enter() : found;
    if (name === NONE) return false;
    if ((this.knows[name] & KNOWS_PVM) !== 0 && this.pvmIsn[name] === view.seq) return false;
    const old = names.inner[name];
    if (old !== NONE) {
      names.unlink(old);
      this.knows[old] &= ~OF_SVM;
    }
    this.unpaired.remove(name);
    this.pvmIsn[name] = view.seq;
    this.pvmTs[name] = readTsVal(bytes, view);
    this.knows[name] &= ~OF_PVM;
    this.knows[name] |= KNOWS_PVM | (hasTimestamps(bytes, view) ? PVM_STAMPED : 0);
    this.noteSigned(bytes, name);
    if (this.isUnpairedSvm(name)) {
      this.pair(name, name);
      return this.seqDelta(name) !== 0 && (this.knows[name] & SIGNED) === 0;
    }
    if (!opensConnection(view.tcpFlags) || (this.knows[name] & SIGNED) !== 0) return false;
    const vm = this.unpaired.first(this.key);
    if (this.isUnpairedSvm(vm)) {
      this.pair(vm, name);
      return true;
    }
    this.unpaired.add(this.key, name);
    return false;
  }

  /** The same of an epoch that is over: it comes late. */
  olderPvmSyn(bytes: Uint8Array, at: number, length: number): void {
    const { view } = this;
    if (parsePacket(bytes, at, length, view) !== PACKET.tcp || !opensConnection(view.tcpFlags)) return;
    writeOutputKey(bytes, view, this.key);
    if (!this.wasTold(view.seq)) this.noteTold();
  }

  /** The SVM's input, in place. */
  input(bytes: Uint8Array, at: number, length: number): void {
    const { view, names } = this;
    if (names.size === 0) return;
    if (!this.isTcp(bytes, at, length)) {
      this.quotedInput(bytes);
      return;
    }
    writeInputKey(bytes, view, this.key);
    let name = names.find(this.key);
    if ((view.tcpFlags & TCP_ACK) !== 0) name = this.learnFromClient(bytes, name);
    if (name === NONE || (this.knows[name] & SIGNED) !== 0) return;
    let inside = names.inner[name];
    if (inside === NONE) inside = names.freeInner(name);
    else {
      this.noteEcho(bytes, inside);
      translateInput(bytes, view, this.seqDelta(inside), this.tsDelta(inside));
    }
    if (inside !== name) replacePort(bytes, view, view.l4 + TCP.destinationPort, names.port[inside]);
  }

  /** On promotion: adds what differs to the connections' offsets. Answers how many could not be kept. */
  carryOver(offsets: OffsetMap): number {
    const { names } = this;
    const before: { vm: number; older: Translation | null }[] = [];
    let lost = 0;
    this.keepExchanged();
    names.forEach((vm) => {
      if ((this.knows[vm] & SIGNED) !== 0) {
        if (this.seqDelta(vm) !== 0 || names.outer[vm] !== vm) lost++;
      } else before.push({ vm, older: null });
    });
    // What the map says of the PVM's connections is to be said of the SVM's. First all is taken out, for names may change hands.
    for (const entry of before) {
      names.readKey(names.outer[entry.vm], this.key);
      entry.older = offsets.take(this.key);
    }
    for (const { vm, older } of before) {
      names.readKey(vm, this.key);
      const seqDelta = (this.seqDelta(vm) + (older?.seqDelta ?? 0)) | 0;
      const tsDelta = (this.tsDelta(vm) + (older?.tsDelta ?? 0)) | 0;
      const port = older?.clientPort ?? names.port[names.outer[vm]];
      if (seqDelta === 0 && tsDelta === 0 && port === names.port[vm]) continue;
      if (!offsets.add(this.key, this.svmIsn[vm], seqDelta, tsDelta, port)) lost++;
      else if ((this.knows[vm] & ECHOED) !== 0)
        offsets.clientSaw(this.key, (this.echoed[vm] + (older?.tsDelta ?? 0)) | 0);
    }
    return lost;
  }

  /** What the SVM began by a name that stands for another connection keeps the name that it went out by. */
  private keepExchanged(): void {
    const { names } = this;
    const exchanged: number[] = [];
    names.forEachName((name) => {
      if (this.isUnpairedSvm(name) && names.inner[name] !== NONE) exchanged.push(name);
    });
    for (const name of exchanged) {
      const outside = names.freeOuter(name);
      this.pvmIsn[outside] = this.svmIsn[name];
      this.knows[outside] &= ~OF_PVM;
      this.pair(name, outside);
    }
  }

  /** The PVM opened the connection of this key, with this number. */
  private wasTold(isn: number): boolean {
    const ports = this.key[PORTS_WORD];
    for (let i = Math.min(this.toldCount, TOLD_MAX) - 1; i >= 0; i--)
      if (this.toldIsns[i] === isn && this.toldPorts[i] === ports) return true;
    return false;
  }

  private noteTold(): void {
    const place = this.toldCount++ % TOLD_MAX;
    this.toldPorts[place] = this.key[PORTS_WORD];
    this.toldIsns[place] = this.view.seq;
  }

  private seqDelta(vm: number): number {
    return (this.pvmIsn[this.names.outer[vm]] - this.svmIsn[vm]) | 0;
  }

  private tsDelta(vm: number): number {
    const outside = this.names.outer[vm];
    const stamped = (this.knows[vm] & SVM_STAMPED) !== 0 && (this.knows[outside] & PVM_STAMPED) !== 0;
    return stamped ? (this.pvmTs[outside] - this.svmTs[vm]) | 0 : 0;
  }

  private learnSvmSyn(bytes: Uint8Array, found: number): number {
    const { view, names } = this;
    if (found === NONE && opensConnection(view.tcpFlags) && this.wasTold(view.seq)) return NONE;
    const name = found === NONE ? this.enter() : found;
    if (name === NONE) return NONE;
    if ((this.knows[name] & KNOWS_SVM) !== 0 && this.svmIsn[name] === view.seq) return name;
    const old = names.outer[name];
    if (old !== NONE) {
      names.unlink(name);
      this.knows[old] &= ~OF_PVM;
    }
    if ((this.knows[name] & KNOWS_SVM) !== 0) this.unpaired.remove(name);
    const opens = opensConnection(view.tcpFlags);
    this.svmIsn[name] = view.seq;
    this.svmTs[name] = readTsVal(bytes, view);
    this.clientIsn[name] = (view.ack - 1) | 0;
    this.knows[name] &= ~OF_SVM;
    this.knows[name] |= KNOWS_SVM | (hasTimestamps(bytes, view) ? SVM_STAMPED : 0) | (opens ? SVM_OPENED : 0);
    this.noteSigned(bytes, name);
    if ((this.knows[name] & KNOWS_PVM) !== 0 && names.inner[name] === NONE) {
      this.pair(name, name);
      return name;
    }
    if (!opens || (this.knows[name] & SIGNED) !== 0) return name;
    const outside = this.unpaired.first(this.key);
    if (outside !== NONE && (this.knows[outside] & KNOWS_PVM) !== 0 && names.inner[outside] === NONE)
      this.pair(name, outside);
    else this.unpaired.add(this.key, name);
    return name;
  }

  private pair(vm: number, outside: number): void {
    this.unpaired.remove(vm);
    this.unpaired.remove(outside);
    this.names.link(vm, outside);
  }

  /** The name that the client's segment is for, after what it tells of the PVM. */
  private learnFromClient(bytes: Uint8Array, name: number): number {
    const { view, names } = this;
    if ((view.tcpFlags & TCP_RST) !== 0) return name;
    const answers = (view.tcpFlags & TCP_SYN) !== 0;
    if (name !== NONE && (names.inner[name] !== NONE || (this.knows[name] & KNOWS_PVM) !== 0)) return name;
    if (this.isUnpairedSvm(name)) {
      // Only this one segment says what the ISN was: later ones acknowledge more.
      const opened = (this.knows[name] & SVM_OPENED) !== 0;
      const first = opened ? answers : !answers && ((view.seq - 1) | 0) === this.clientIsn[name];
      if (first) this.learnPvm(bytes, name, name);
      return name;
    }
    const vm = answers && this.learnsPorts ? this.unpaired.first(this.key) : NONE;
    if (!this.isUnpairedSvm(vm) || this.wasTold((view.ack - 1) | 0)) return name;
    const outside = name === NONE ? this.enter() : name;
    if (outside !== NONE) this.learnPvm(bytes, vm, outside);
    return outside;
  }

  /** The SVM began it, and what the PVM calls it is not known. */
  private isUnpairedSvm(name: number): boolean {
    return name !== NONE && (this.knows[name] & KNOWS_SVM) !== 0 && this.names.outer[name] === NONE;
  }

  private learnPvm(bytes: Uint8Array, vm: number, outside: number): void {
    const { view } = this;
    this.pvmIsn[outside] = (view.ack - 1) | 0;
    this.pvmTs[outside] = readTsEcr(bytes, view);
    this.knows[outside] |= KNOWS_PVM | (hasTimestamps(bytes, view) ? PVM_STAMPED : 0);
    this.pair(vm, outside);
  }

  private noteEcho(bytes: Uint8Array, vm: number): void {
    if ((this.view.tcpFlags & TCP_ACK) === 0) return;
    const option = timestamps(bytes, this.view);
    if (option < 0) return;
    const echo = readI32(bytes, option + 6);
    if ((this.knows[vm] & ECHOED) === 0 || seqBefore(this.echoed[vm], echo)) this.echoed[vm] = echo;
    this.knows[vm] |= ECHOED;
  }

  private noteSigned(bytes: Uint8Array, name: number): void {
    if (!isSigned(bytes, this.view.l4 + TCP.headerBytesMin, this.view.payload)) {
      this.knows[name] &= ~SIGNED;
      return;
    }
    if ((this.knows[name] & SIGNED) !== 0) return;
    this.knows[name] |= SIGNED;
    this.counters.signed++;
    this.onSigned(this.key);
  }

  /** `name` is what the SYN went by: its own, or the one that was free when it left. */
  private correct(bytes: Uint8Array, name: number): boolean {
    const { view, names } = this;
    let vm = name;
    while (!((this.knows[vm] & KNOWS_SVM) !== 0 && this.svmIsn[vm] === view.seq)) {
      vm = names.outer[vm];
      if (vm === NONE || vm === name) return false;
    }
    if (names.outer[vm] === NONE) return false;
    const outside = names.outer[vm];
    translateOutput(bytes, view, this.seqDelta(vm), this.tsDelta(vm));
    if (outside !== name) replacePort(bytes, view, view.l4 + TCP.sourcePort, names.port[outside]);
    return true;
  }

  private nameOfKept(bytes: Uint8Array, at: number, length: number): number {
    if (this.names.size === 0 || !this.isTcp(bytes, at, length)) return NONE;
    writeOutputKey(bytes, this.view, this.key);
    const name = this.names.find(this.key);
    return name !== NONE && (this.knows[name] & SIGNED) !== 0 ? NONE : name;
  }

  private enter(): number {
    const name = this.names.insert(this.key);
    if (name !== NONE) this.knows[name] = 0;
    return name;
  }

  /** An error on its way out quotes what the SVM heard. */
  private quotedOutput(bytes: Uint8Array): void {
    const { view, quote, names } = this;
    if (!viewQuote(bytes, view, quote)) return;
    writeInputKey(bytes, quote, this.key);
    const name = names.find(this.key);
    if (name === NONE || (this.knows[name] & SIGNED) !== 0) return;
    const known = names.outer[name] !== NONE;
    const outside = known ? names.outer[name] : names.freeOuter(name);
    if (known) translateQuotedInput(bytes, view, quote, this.seqDelta(name), this.tsDelta(name));
    if (outside !== name)
      replaceQuotedPort(bytes, view, quote, quote.l4 + TCP.destinationPort, names.port[outside]);
  }

  private quotedInput(bytes: Uint8Array): void {
    const { view, quote, names } = this;
    if (!viewQuote(bytes, view, quote)) return;
    writeOutputKey(bytes, quote, this.key);
    const name = names.find(this.key);
    if (name === NONE || (this.knows[name] & SIGNED) !== 0) return;
    const known = names.inner[name] !== NONE;
    const inside = known ? names.inner[name] : names.freeInner(name);
    if (known) translateQuotedOutput(bytes, view, quote, this.seqDelta(inside), this.tsDelta(inside));
    if (inside !== name) replaceQuotedPort(bytes, view, quote, quote.l4 + TCP.sourcePort, names.port[inside]);
  }

  /** Parses; true for a TCP segment, or the first fragment of one. */
  private isTcp(bytes: Uint8Array, at: number, length: number): boolean {
    const kind = parsePacket(bytes, at, length, this.view);
    return kind === PACKET.tcp || (kind === PACKET.otherIp && viewFirstFragment(bytes, this.view));
  }
}
