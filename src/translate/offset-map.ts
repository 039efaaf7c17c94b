/**
 * Per connection: what to add to the VM's numbers to get the client's, and the VM's port if the client knows another.
 *
 * Connections that need nothing are not in the map, so an empty map costs one comparison per frame, and any other one
 * look-up. What is translated: TCP, the first fragment of a segment, and the segments that ICMP errors quote.
 *
 * Ports: a connection has a name that the VM uses and one that the client uses (connection-names.ts). A connection that
 * the VM opens on a port which stands for another one with the client gets its own entry, so that it keeps its name
 * when that other one ends.
 *
 * Timestamps: a client drops a segment that is older than what it has seen (RFC 7323 section 5, PAWS). What it has seen
 * shows in what it echoes. A VM that took over and whose clock lags is moved ahead to the latest echo, for good
 * (`tsDelta` grows); until the client echoes the VM's new numbers its echoes are mapped by the old difference. The VM
 * never hears an echo of a time that it has not sent: a stack may reset a handshake over that.
 *
 * How an entry ends:
 * - The VM's reset, at once. What resets follow say the client's own numbers back to it.
 * - A SYN of the VM on the same ports, unless it is the repetition of the SYN that began this very connection: a
 *   failover may come in the middle of a handshake. The VM's initial sequence number tells the two apart.
 * - FINs both ways, or the client's reset: `sweep` removes it when it has been silent for TIME-WAIT, four minutes.
 *
 * Limits: LIMITS.translationsMax names. When all are in use, closed connections go, then those that were silent for as
 * long as a NAT must keep them (RFC 5382: two hours and four minutes). If there is none of those either, `add` answers
 * false, and the caller has to say so loudly.
 */

import { FLOW_KEY_WORDS, localPort, writeInputKey, writeOutputKey } from '../flow/key.ts';
import { seqBefore } from '../flow/sequence.ts';
import { LIMITS, type Limits } from '../limits.ts';
import type { Instant } from '../units.ts';
import { readI32 } from '../wire/bytes.ts';
import { viewFirstFragment } from '../wire/first-fragment.ts';
import { viewQuote } from '../wire/icmp-quote.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';
import { TCP, TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { ConnectionNames, NONE } from './connection-names.ts';
import { replaceQuotedPort, translateQuotedInput, translateQuotedOutput } from './quote-fields.ts';
import { replacePort, replaceTsEcr, timestamps, translateInput, translateOutput } from './tcp-fields.ts';

/**
 * `key` is the VM's, and `clientPort` the port of the VM that the client knows. `vmIsn` is the VM's own initial
 * sequence number, int32 like the differences.
 */
export type Translation = {
  key: number[];
  vmIsn: number;
  seqDelta: number;
  tsDelta: number;
  clientPort: number;
};

const VM_FIN = 1;
const CLIENT_FIN = 2;
const CLIENT_RST = 4;
/** `vmTs` holds the latest TSval that this VM has sent */
const VM_STAMPED = 8;
/** `clientTs` holds what the client has seen at least */
const CLIENT_STAMPED = 16;
/** `olderTsDelta` is right for what the client echoes from before `movedAt` */
const MOVED = 32;

/** A connection that is over may still be spoken of for twice the longest life of a segment (RFC 9293 section 3.4.2). */
const CLOSED_S = 240;
/** RFC 5382, REQ-5. */
const IDLE_S = 7440;
const SWEEP_MS = 10_000;
/** An echo that is further ahead, a quarter of an hour of milliseconds, is no clock's lag but nonsense. */
const LAG_MAX = 1 << 20;

export class OffsetMap {
  private readonly names: ConnectionNames;
  private readonly namesMax: number;
  /* By the VM's name of a connection. */
  private readonly vmIsns: Int32Array;
  private readonly seqDeltas: Int32Array;
  private readonly tsDeltas: Int32Array;
  private readonly olderTsDeltas: Int32Array;
  private readonly movedAt: Int32Array;
  private readonly vmTs: Int32Array;
  private readonly clientTs: Int32Array;
  private readonly state: Uint8Array;
  private readonly usedS: Int32Array;
  private readonly view = new PacketView();
  private readonly quote = new PacketView();
  private readonly key = new Int32Array(FLOW_KEY_WORDS);
  private changes = 0;
  private firstSweepMs = -1;
  private sweptMs = 0;
  private nowS = 0;
  /** the last look for entries to evict found none, and none has been closed since */
  private nothingToEvict = false;

  constructor(hashSeed: number, limits: Limits = LIMITS) {
    const max = limits.translationsMax;
    this.namesMax = max;
    this.names = new ConnectionNames(max, hashSeed);
    this.vmIsns = new Int32Array(max);
    this.seqDeltas = new Int32Array(max);
    this.tsDeltas = new Int32Array(max);
    this.olderTsDeltas = new Int32Array(max);
    this.movedAt = new Int32Array(max);
    this.vmTs = new Int32Array(max);
    this.clientTs = new Int32Array(max);
    this.state = new Uint8Array(max);
    this.usedS = new Int32Array(max);
  }

  get size(): number {
    return this.names.connections;
  }

  /** Grows with every change: tells whether the other node's copy is still the same. */
  get version(): number {
    return this.changes;
  }

  /** Adds to what is known of a connection; false when there is no room for another. `key` is the VM's. */
  add(
    key: Int32Array,
    vmIsn: number,
    seqDelta: number,
    tsDelta: number,
    clientPort: number = localPort(key),
  ): boolean {
    let id = this.names.find(key);
    if (id === NONE || this.names.outer[id] === NONE) id = this.enter(key, clientPort);
    if (id === NONE) return false;
    this.vmIsns[id] = vmIsn;
    this.seqDeltas[id] = (this.seqDeltas[id] + seqDelta) | 0;
    this.tsDeltas[id] = (this.tsDeltas[id] + tsDelta) | 0;
    this.changes++;
    return true;
  }

  /** Takes a connection out, to be added under another name; null when nothing is known of it. `key` is the VM's. */
  take(key: Int32Array): Translation | null {
    const id = this.names.find(key);
    if (id === NONE || this.names.outer[id] === NONE) return null;
    const taken = this.entry(id);
    this.forget(id);
    return taken;
  }

  /** The client has seen this TSval, in its own numbers. `key` is the VM's. */
  clientSaw(key: Int32Array, tsVal: number): void {
    const id = this.names.find(key);
    if (id !== NONE && this.names.outer[id] !== NONE) this.noteSeen(id, tsVal);
  }

  clear(): void {
    this.changes++;
    this.names.clear();
    this.nothingToEvict = false;
  }

  /** The VM's output, in place. */
  output(bytes: Uint8Array, at: number, length: number): void {
    if (this.names.size === 0) return;
    const { view } = this;
    if (!this.isTcp(bytes, at, length)) {
      this.quotedOutput(bytes);
      return;
    }
    const id = this.ofOutput(bytes);
    if (id < 0) return;
    this.usedS[id] = this.nowS;
    this.noteVmTime(bytes, id);
    translateOutput(bytes, view, this.seqDeltas[id], this.tsDeltas[id]);
    const outside = this.names.outer[id];
    if (outside !== id) replacePort(bytes, view, view.l4 + TCP.sourcePort, this.names.port[outside]);
    if ((view.tcpFlags & TCP_FIN) !== 0) this.noteEnd(id, VM_FIN);
    if ((view.tcpFlags & TCP_RST) !== 0) this.forget(id);
  }

  /** The VM's input, in place. */
  input(bytes: Uint8Array, at: number, length: number): void {
    if (this.names.size === 0) return;
    const { view } = this;
    if (!this.isTcp(bytes, at, length)) {
      this.quotedInput(bytes);
      return;
    }
    writeInputKey(bytes, view, this.key);
    const name = this.names.find(this.key);
    if (name === NONE) return;
    const id = this.names.inner[name];
    if (id === NONE) {
      const inside = this.names.freeInner(name);
      replacePort(bytes, view, view.l4 + TCP.destinationPort, this.names.port[inside]);
      return;
    }
    this.usedS[id] = this.nowS;
    if (this.seqDeltas[id] !== 0) translateInput(bytes, view, this.seqDeltas[id], 0);
    if ((view.tcpFlags & TCP_ACK) !== 0) this.translateEcho(bytes, id);
    if (id !== name) replacePort(bytes, view, view.l4 + TCP.destinationPort, this.names.port[id]);
    if ((view.tcpFlags & TCP_FIN) !== 0) this.noteEnd(id, CLIENT_FIN);
    if ((view.tcpFlags & TCP_RST) !== 0) this.noteEnd(id, CLIENT_RST);
  }

  /** A SYN of the VM, read only: what it ends or begins here, as `output` would. */
  noteSyn(bytes: Uint8Array, at: number, length: number): void {
    if (this.names.size === 0) return;
    if (!this.isTcp(bytes, at, length) || (this.view.tcpFlags & TCP_SYN) === 0) return;
    writeOutputKey(bytes, this.view, this.key);
    this.startsAnew(this.names.find(this.key));
  }

  /** To be called now and then: forgets connections that are over. */
  sweep(nowMs: Instant): void {
    if (this.firstSweepMs < 0) this.firstSweepMs = nowMs;
    else if (nowMs - this.sweptMs < SWEEP_MS) return;
    this.sweptMs = nowMs;
    this.nowS = Math.floor((nowMs - this.firstSweepMs) / 1000);
    this.nothingToEvict = false;
    this.forgetAll((id) => this.isClosed(id) && this.nowS - this.usedS[id] >= CLOSED_S);
  }

  /** For the next secondary: it takes over this map with the VM's state. */
  export(): Translation[] {
    const all: Translation[] = [];
    this.names.forEach((id) => {
      all.push(this.entry(id));
    });
    return all;
  }

  /** Takes over another node's map, or one more part of it. */
  import(all: Translation[]): void {
    for (const { key, vmIsn, seqDelta, tsDelta, clientPort } of all) {
      this.add(Int32Array.from(key), vmIsn, seqDelta, tsDelta, clientPort);
    }
  }

  private entry(id: number): Translation {
    this.names.readKey(id, this.key);
    return {
      key: [...this.key],
      vmIsn: this.vmIsns[id],
      seqDelta: this.seqDeltas[id],
      tsDelta: this.tsDeltas[id],
      clientPort: this.names.port[this.names.outer[id]],
    };
  }

  /** The connection of the TCP frame in the view; NONE, and the frame done with, when there is none. */
  private ofOutput(bytes: Uint8Array): number {
    const { view, names } = this;
    writeOutputKey(bytes, view, this.key);
    let name = names.find(this.key);
    if (name === NONE) return NONE;
    if ((view.tcpFlags & TCP_SYN) !== 0) name = this.startsAnew(name);
    if (name === NONE || names.outer[name] !== NONE) return name;
    const outside = names.freeOuter(name);
    replacePort(bytes, view, view.l4 + TCP.sourcePort, names.port[outside]);
    return NONE;
  }

  /**
   * The VM's SYN by this name. A connection that it does not repeat is over. Where the name stands for another
   * connection, this one goes by the name that is free, for as long as it lives. Answers what the name is now.
   */
  private startsAnew(name: number): number {
    const { names, view } = this;
    if (name === NONE) return NONE;
    if (names.outer[name] !== NONE) {
      if (view.seq === this.vmIsns[name]) return name;
      this.forget(name);
      name = names.find(this.key);
      if (name === NONE) return NONE;
    }
    const outside = names.freeOuter(name);
    this.begin(name, outside);
    this.vmIsns[name] = view.seq;
    this.changes++;
    return name;
  }

  private begin(vm: number, outside: number): void {
    this.names.link(vm, outside);
    this.seqDeltas[vm] = 0;
    this.tsDeltas[vm] = 0;
    this.state[vm] = 0;
    this.usedS[vm] = this.nowS;
  }

  private enter(key: Int32Array, clientPort: number): number {
    const { names } = this;
    // A name may be there without a connection of its own, and go with the one that it stands for.
    if (names.size + 2 > this.namesMax && !this.hasRoom(key, clientPort)) this.evict();
    if (!this.hasRoom(key, clientPort)) return NONE;
    const outside = names.withPort(key, clientPort);
    // Of two connections by one name the client can only mean the later one.
    if (names.inner[outside] !== NONE) {
      this.forget(names.inner[outside]);
      return this.enter(key, clientPort);
    }
    const id = names.withPort(key, localPort(key));
    this.begin(id, outside);
    return id;
  }

  private hasRoom(key: Int32Array, clientPort: number): boolean {
    const { names } = this;
    const port = localPort(key);
    const known = names.find(key) === NONE ? 0 : 1;
    const wanted = (port === clientPort ? 1 : 2) - known;
    return names.size + wanted <= this.namesMax;
  }

  private evict(): void {
    if (this.nothingToEvict) return;
    const before = this.names.size;
    this.forgetAll((id) => this.isClosed(id));
    if (this.names.size === before) this.forgetAll((id) => this.nowS - this.usedS[id] >= IDLE_S);
    this.nothingToEvict = this.names.size === before;
  }

  private forgetAll(which: (id: number) => boolean): void {
    const over: number[] = [];
    this.names.forEach((id) => {
      if (which(id)) over.push(id);
    });
    for (const id of over) this.forget(id);
  }

  private forget(id: number): void {
    const { names } = this;
    const outside = names.outer[id];
    names.unlink(id);
    names.dropUnlinked(id);
    if (outside !== id) names.dropUnlinked(outside);
    this.nothingToEvict = false;
    this.changes++;
  }

  private noteEnd(id: number, how: number): void {
    this.state[id] |= how;
    this.nothingToEvict = false;
  }

  private isClosed(id: number): boolean {
    const state = this.state[id];
    return (state & CLIENT_RST) !== 0 || (state & (VM_FIN | CLIENT_FIN)) === (VM_FIN | CLIENT_FIN);
  }

  private noteSeen(id: number, clientTs: number): void {
    const known = (this.state[id] & CLIENT_STAMPED) !== 0;
    if (!known || seqBefore(this.clientTs[id], clientTs)) this.clientTs[id] = clientTs;
    this.state[id] |= CLIENT_STAMPED;
  }

  /** Moves the VM's clock ahead where the client has seen a later time than it would send now. */
  private noteVmTime(bytes: Uint8Array, id: number): void {
    const option = timestamps(bytes, this.view);
    if (option < 0) return;
    const vmTs = readI32(bytes, option + 2);
    if ((this.state[id] & VM_STAMPED) === 0 || seqBefore(this.vmTs[id], vmTs)) this.vmTs[id] = vmTs;
    this.state[id] |= VM_STAMPED;
    if ((this.state[id] & CLIENT_STAMPED) === 0) return;
    const lag = (this.clientTs[id] - (vmTs + this.tsDeltas[id])) | 0;
    if (lag <= 0) return;
    this.olderTsDeltas[id] = this.tsDeltas[id];
    this.movedAt[id] = this.clientTs[id];
    this.tsDeltas[id] = (this.tsDeltas[id] + lag) | 0;
    this.state[id] |= MOVED;
    this.changes++;
  }

  private translateEcho(bytes: Uint8Array, id: number): void {
    const option = timestamps(bytes, this.view);
    if (option < 0) return;
    const echo = readI32(bytes, option + 6);
    const older = (this.state[id] & MOVED) !== 0 && seqBefore(echo, this.movedAt[id]);
    let vmTs = (echo - (older ? this.olderTsDeltas[id] : this.tsDeltas[id])) | 0;
    if ((this.state[id] & VM_STAMPED) !== 0) {
      const ahead = (vmTs - this.vmTs[id]) | 0;
      if (ahead > 0) {
        if (ahead < LAG_MAX) this.noteSeen(id, echo);
        vmTs = this.vmTs[id];
      }
    }
    if (vmTs !== echo) replaceTsEcr(bytes, this.view, option, vmTs);
  }

  /** Frames that are no TCP: an error on its way out quotes what the VM heard. */
  private quotedOutput(bytes: Uint8Array): void {
    const { view, quote, names } = this;
    if (!viewQuote(bytes, view, quote)) return;
    writeInputKey(bytes, quote, this.key);
    const name = names.find(this.key);
    if (name === NONE) return;
    const known = names.outer[name] !== NONE;
    const outside = known ? names.outer[name] : names.freeOuter(name);
    if (known) translateQuotedInput(bytes, view, quote, this.seqDeltas[name], this.tsDeltas[name]);
    if (outside !== name)
      replaceQuotedPort(bytes, view, quote, quote.l4 + TCP.destinationPort, names.port[outside]);
  }

  private quotedInput(bytes: Uint8Array): void {
    const { view, quote, names } = this;
    if (!viewQuote(bytes, view, quote)) return;
    writeOutputKey(bytes, quote, this.key);
    const name = names.find(this.key);
    if (name === NONE) return;
    const known = names.inner[name] !== NONE;
    const inside = known ? names.inner[name] : names.freeInner(name);
    if (known) translateQuotedOutput(bytes, view, quote, this.seqDeltas[inside], this.tsDeltas[inside]);
    if (inside !== name) replaceQuotedPort(bytes, view, quote, quote.l4 + TCP.sourcePort, names.port[inside]);
  }

  /** Parses; true for a TCP segment, or the first fragment of one. */
  private isTcp(bytes: Uint8Array, at: number, length: number): boolean {
    const kind = parsePacket(bytes, at, length, this.view);
    return kind === PACKET.tcp || (kind === PACKET.otherIp && viewFirstFragment(bytes, this.view));
  }
}
