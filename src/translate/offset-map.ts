/**
 * Maps the numbers, timestamps and ports of the VM that survived a failover to those that its clients know, for as long as the
 * connections live (mapping.ts).
 *
 * Connections that need no translation are not in the map: an empty map costs one comparison per frame, a frame of a
 * connection that is not in it one look-up.
 *
 * Ports: if the VM opens a connection on a port that stands for another connection with the client, the new connection gets an
 * entry of its own (connection-names.ts), so that its name does not change when the other one ends.
 *
 * Timestamps: a client drops a segment whose TSval is before the latest that it has received (PAWS, RFC 7323 section 5). The
 * client's echo shows what it has received. If the clock of the VM lags, it is moved ahead to the latest echo for good
 * (`tsDelta` grows). Until the client echoes the new times, its echoes are mapped by the old difference. The VM never
 * receives an echo of a time that it has not sent, because a stack may reset a handshake over that.
 *
 *   event                                                action
 *   `add`, on promotion or from the other node           a connection with its offsets
 *   SYN of the VM, the connection's own ISN              none: a repetition; a failover may come in the middle of a handshake
 *   SYN of the VM, another ISN                           forget the connection. If the name then stands for another connection,
 *                                                        the new one gets an entry without offsets
 *   RST of the VM                                        translate it and forget the connection. A RST that replies to a late
 *                                                        segment returns the client's own numbers and needs no translation
 *   FIN of both sides, or RST of the client              closed: `sweep` forgets it CLOSED_S after its last segment
 *   `add` without room                                   forget closed connections or, if there are none, those without a segment
 *                                                        for IDLE_S
 *   commit on a secondary, drop-in's checkpoint          `clear`
 *
 * `values` has what clients were told by an earlier VM of a field of which this one has another value (unified-values.ts), in the
 * clients' numbers. It lives and is handed on like the offsets; a connection may have one of the two, or both.
 *
 * Limits: LIMITS.translationsMax names, twice LIMITS.unifiedValuesMax values. Failure: `add` returns false if no connection can be
 * forgotten for a new one; the caller must report that connection as lost.
 */

import { LESSON, type Lesson } from '../compare/lesson.ts';
import { invariant } from '../error.ts';
import { localPort, setLocalPort } from '../flow/key.ts';
import { seqAdd, seqBefore } from '../flow/sequence.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { type Instant, NONE } from '../units.ts';
import { readI32 } from '../wire/bytes.ts';
import { TCP_ACK, TCP_FIN, TCP_RST, TCP_SYN, TCP_TIMESTAMPS } from '../wire/tcp.ts';
import type { ConnectionNames } from './connection-names.ts';
import { Mapping } from './mapping.ts';
import { SENDER } from './segment.ts';
import { type UnifiedValue, UnifiedValues } from './unified-values.ts';

/** What tells the VM's numbers of one connection from the client's. All but the port are int32. */
export type Offset = {
  /** the VM's own initial sequence number */
  vmIsn: number;
  /** what to add to the VM's numbers to get the client's */
  seqDelta: number;
  tsDelta: number;
  /** the VM's port as the client knows it */
  clientPort: number;
};

/** One connection of the map; `key` is the flow key by which the VM knows it. */
export type Translation = Offset & { key: number[] };

/* What is known of a connection, as bits. */
const VM_FIN = 1;
const CLIENT_FIN = 2;
const CLIENT_RST = 4;
/** `vmTs` is the latest TSval that this VM has sent */
const VM_STAMPED = 8;
/** `clientTs` is the latest TSval that the client has certainly received */
const CLIENT_STAMPED = 16;
/** the clock was moved ahead: `olderTsDelta` maps echoes from before `movedAt` */
const MOVED = 32;

/** Segments of a closed connection may still arrive for twice the maximum segment lifetime (RFC 9293 section 3.4.2). */
const CLOSED_S = 240;
/** How long a NAT must remember a silent connection: two hours and four minutes (RFC 5382, REQ-5). */
const IDLE_S = 7440;
const SWEEP_MS = 10_000;
/** An echo that is ahead by more (a quarter of an hour, if the clock counts milliseconds) is forged or broken, not a lag. */
const LAG_MAX = 1 << 20;
/** A connection takes one name, and a second one if the client knows it by another port. */
const NAMES_PER_CONNECTION_MAX = 2;

export class OffsetMap {
  readonly values: UnifiedValues;
  private readonly mapping: Mapping;
  private readonly names: ConnectionNames;
  private readonly namesMax: number;
  /* By the VM's name of a connection. */
  private readonly vmIsn: Int32Array;
  private readonly olderTsDelta: Int32Array;
  private readonly movedAt: Int32Array;
  private readonly vmTs: Int32Array;
  private readonly clientTs: Int32Array;
  private readonly state: Uint8Array;
  /** time of the last segment, seconds since the first sweep */
  private readonly usedS: Int32Array;
  private changes = 0;
  private firstSweepMs = -1;
  private sweptMs = 0;
  private nowS = 0;
  /** the last search for connections to evict found none, and none has been closed since */
  private nothingToEvict = false;

  constructor(hashSeed: number, limits: Limits = LIMITS) {
    const max = limits.translationsMax;
    invariant(
      max >= NAMES_PER_CONNECTION_MAX,
      `translationsMax is ${max}, and one connection may take two names`,
    );
    this.mapping = new Mapping(max, hashSeed);
    this.names = this.mapping.names;
    this.namesMax = max;
    this.vmIsn = new Int32Array(max);
    this.olderTsDelta = new Int32Array(max);
    this.movedAt = new Int32Array(max);
    this.vmTs = new Int32Array(max);
    this.clientTs = new Int32Array(max);
    this.state = new Uint8Array(max);
    this.usedS = new Int32Array(max);
    this.values = new UnifiedValues(2 * limits.unifiedValuesMax, hashSeed);
  }

  /** How many connections are in the map. */
  get size(): number {
    return this.mapping.names.connections;
  }

  /** Grows with every change: shows whether the other node's copy is still the same. */
  get version(): number {
    return this.changes;
  }

  /** Adds a connection; if it is in the map, adds to its deltas. Returns false if there is no room. `key` is the VM's. */
  add(key: Int32Array, offset: Offset): boolean {
    const { names, seqDelta, tsDelta } = this.mapping;
    let vm = names.find(key);
    if (vm === NONE || names.clientName[vm] === NONE) vm = this.enter(key, offset.clientPort);
    if (vm === NONE) return false;
    this.vmIsn[vm] = offset.vmIsn;
    seqDelta[vm] = (seqDelta[vm] + offset.seqDelta) | 0;
    tsDelta[vm] = (tsDelta[vm] + offset.tsDelta) | 0;
    this.changes++;
    return true;
  }

  /** Removes a connection, to be added under another name. Returns null if it is not in the map. `key` is the VM's. */
  take(key: Int32Array): Translation | null {
    const { names } = this.mapping;
    const vm = names.find(key);
    if (vm === NONE || names.clientName[vm] === NONE) return null;
    const taken = this.entry(vm);
    this.forget(vm);
    return taken;
  }

  /** The client has echoed this TSval, in its own numbers, and so has received it. `key` is the VM's. */
  noteEcho(key: Int32Array, tsVal: number): void {
    const { names } = this.mapping;
    const vm = names.find(key);
    if (vm !== NONE && names.clientName[vm] !== NONE) this.noteReceived(vm, tsVal);
  }

  /** Forgets the connections, not the values. */
  clear(): void {
    this.changes++;
    this.mapping.clear();
    this.nothingToEvict = false;
  }

  /** Adds a value that is in the VM's numbers. Returns false if there is no room. */
  addValue({ key, seq, ...bytes }: UnifiedValue): boolean {
    const { names, seqDelta } = this.mapping;
    const clients = Int32Array.from(key);
    const vm = names.find(key);
    if (vm === NONE || names.clientName[vm] === NONE) return this.values.add({ key: clients, seq, ...bytes });
    setLocalPort(clients, names.port[names.clientName[vm]]);
    return this.values.add({ key: clients, seq: seqAdd(seq, seqDelta[vm]), ...bytes });
  }

  /** Translates a frame that the VM sent, in place. */
  output(bytes: Uint8Array, at: number, length: number): void {
    if (this.names.size !== 0) this.translateOutput(bytes, at, length);
    if (this.values.size !== 0) this.values.output(bytes, at, length);
  }

  /** Translates a frame for the VM, in place. */
  input(bytes: Uint8Array, at: number, length: number): void {
    if (this.values.size !== 0) this.values.input(bytes, at, length);
    if (this.names.size !== 0) this.translateInput(bytes, at, length);
  }

  private translateOutput(bytes: Uint8Array, at: number, length: number): void {
    const { mapping } = this;
    if (!mapping.segment.parse(bytes, at, length, SENDER.vm)) {
      mapping.quoteToClient(bytes);
      return;
    }
    const { tcpFlags } = mapping.segment.view;
    let vm = mapping.find(bytes);
    if ((tcpFlags & TCP_SYN) !== 0) vm = this.learnSyn(vm);
    if (vm === NONE) return;
    if (mapping.names.clientName[vm] === NONE) {
      mapping.toClient(bytes, vm);
      return;
    }
    this.usedS[vm] = this.nowS;
    this.noteVmTime(bytes, vm);
    mapping.toClient(bytes, vm);
    if ((tcpFlags & TCP_FIN) !== 0) this.noteEnd(vm, VM_FIN);
    if ((tcpFlags & TCP_RST) !== 0) this.forget(vm);
  }

  private translateInput(bytes: Uint8Array, at: number, length: number): void {
    const { mapping } = this;
    if (!mapping.segment.parse(bytes, at, length, SENDER.client)) {
      mapping.quoteToVm(bytes);
      return;
    }
    const name = mapping.find(bytes);
    if (name === NONE) return;
    const vm = mapping.names.vmName[name];
    if (vm === NONE) {
      mapping.toVm(bytes, name, 0);
      return;
    }
    const { tcpFlags } = mapping.segment.view;
    this.usedS[vm] = this.nowS;
    mapping.toVm(bytes, name, (tcpFlags & TCP_ACK) === 0 ? 0 : this.echoDelta(bytes, vm));
    if ((tcpFlags & TCP_FIN) !== 0) this.noteEnd(vm, CLIENT_FIN);
    if ((tcpFlags & TCP_RST) !== 0) this.noteEnd(vm, CLIENT_RST);
  }

  /** Learns what the primary teaches; the frame is only read. A SYN ends and begins here what it would in `output`. */
  teach(lesson: Lesson, bytes: Uint8Array, at: number, length: number): void {
    const { mapping } = this;
    invariant(lesson === LESSON.tcpSyn, `the primary teaches ${lesson}, which the offset map cannot map`);
    if (this.names.size === 0) return;
    if (!mapping.segment.parse(bytes, at, length, SENDER.vm)) return;
    if ((mapping.segment.view.tcpFlags & TCP_SYN) !== 0) this.learnSyn(mapping.find(bytes));
  }

  /** Forgets connections that are over. Does nothing if the last sweep is less than SWEEP_MS ago. */
  sweep(nowMs: Instant): void {
    invariant(nowMs >= this.sweptMs, 'the clock of the offset map ran backwards');
    if (this.firstSweepMs < 0) this.firstSweepMs = nowMs;
    else if (nowMs - this.sweptMs < SWEEP_MS) return;
    this.sweptMs = nowMs;
    this.nowS = Math.floor((nowMs - this.firstSweepMs) / 1000);
    this.nothingToEvict = false;
    this.forgetAll((vm) => this.isClosed(vm) && this.nowS - this.usedS[vm] >= CLOSED_S);
  }

  /** Returns every connection, for the next secondary: it gets this map with the VM's state. */
  export(): Translation[] {
    const all: Translation[] = [];
    this.mapping.names.forEach((vm) => {
      all.push(this.entry(vm));
    });
    return all;
  }

  /** Adds another node's map, or a part of it. */
  import(all: Translation[]): void {
    for (const { key, ...offset } of all) this.add(Int32Array.from(key), offset);
  }

  private entry(vm: number): Translation {
    const { names, key, seqDelta, tsDelta } = this.mapping;
    names.readKey(vm, key);
    return {
      key: [...key],
      vmIsn: this.vmIsn[vm],
      seqDelta: seqDelta[vm],
      tsDelta: tsDelta[vm],
      clientPort: names.port[names.clientName[vm]],
    };
  }

  /**
   * Takes in a SYN of the VM by `found`, which may be NONE: ends a connection that it does not repeat. If the name stands for
   * another connection, the new one gets an entry by the name that is free. Returns what the name is now, or NONE.
   */
  private learnSyn(found: number): number {
    const { names, segment, key } = this.mapping;
    const { view } = segment;
    let name = found;
    if (name === NONE) return NONE;
    if (names.clientName[name] !== NONE) {
      if (view.seq === this.vmIsn[name]) return name;
      this.forget(name);
      name = names.find(key);
      if (name === NONE) return NONE;
    }
    this.begin(name, names.freeClientName(name));
    this.vmIsn[name] = view.seq;
    this.changes++;
    return name;
  }

  private begin(vm: number, client: number): void {
    this.mapping.link(vm, client, 0, 0);
    this.state[vm] = 0;
    this.usedS[vm] = this.nowS;
  }

  /** Links a new connection. Returns the VM's name, or NONE if there is no room. */
  private enter(key: Int32Array, clientPort: number): number {
    const { names } = this.mapping;
    // A name that is there without a connection of its own may be removed with the connection that it stands for.
    if (names.size + NAMES_PER_CONNECTION_MAX > this.namesMax && !this.hasRoom(key, clientPort)) this.evict();
    if (!this.hasRoom(key, clientPort)) return NONE;
    const client = names.withPort(key, clientPort);
    invariant(client !== NONE, 'the offset map has room for a connection, and no name for it');
    // If two connections have one name with the client, the client can only mean the later one.
    if (names.vmName[client] !== NONE) {
      this.forget(names.vmName[client]);
      return this.enter(key, clientPort);
    }
    const vm = names.withPort(key, localPort(key));
    this.begin(vm, client);
    return vm;
  }

  private hasRoom(key: Int32Array, clientPort: number): boolean {
    const { names } = this.mapping;
    const known = names.find(key) === NONE ? 0 : 1;
    const wanted = (localPort(key) === clientPort ? 1 : NAMES_PER_CONNECTION_MAX) - known;
    return names.size + wanted <= this.namesMax;
  }

  /** Makes room: forgets the closed connections or, if there are none, the silent ones. */
  private evict(): void {
    if (this.nothingToEvict) return;
    const { names } = this.mapping;
    const before = names.size;
    this.forgetAll((vm) => this.isClosed(vm));
    if (names.size === before) this.forgetAll((vm) => this.nowS - this.usedS[vm] >= IDLE_S);
    this.nothingToEvict = names.size === before;
  }

  private forgetAll(isOver: (vm: number) => boolean): void {
    const over: number[] = [];
    this.mapping.names.forEach((vm) => {
      if (isOver(vm)) over.push(vm);
    });
    for (const vm of over) this.forget(vm);
  }

  private forget(vm: number): void {
    const { names } = this.mapping;
    const client = names.clientName[vm];
    names.unlink(vm);
    names.dropUnlinked(vm);
    if (client !== vm) names.dropUnlinked(client);
    this.nothingToEvict = false;
    this.changes++;
  }

  private noteEnd(vm: number, how: number): void {
    this.state[vm] |= how;
    this.nothingToEvict = false;
  }

  private isClosed(vm: number): boolean {
    const state = this.state[vm];
    return (state & CLIENT_RST) !== 0 || (state & (VM_FIN | CLIENT_FIN)) === (VM_FIN | CLIENT_FIN);
  }

  private noteReceived(vm: number, clientTs: number): void {
    const known = (this.state[vm] & CLIENT_STAMPED) !== 0;
    if (!known || seqBefore(this.clientTs[vm], clientTs)) this.clientTs[vm] = clientTs;
    this.state[vm] |= CLIENT_STAMPED;
  }

  /** Records the TSval of the VM's segment. Moves the VM's clock ahead if the client has received a later time. */
  private noteVmTime(bytes: Uint8Array, vm: number): void {
    const { segment, tsDelta } = this.mapping;
    const option = segment.timestamps(bytes);
    if (option === NONE) return;
    const vmTs = readI32(bytes, option + TCP_TIMESTAMPS.value);
    if ((this.state[vm] & VM_STAMPED) === 0 || seqBefore(this.vmTs[vm], vmTs)) this.vmTs[vm] = vmTs;
    this.state[vm] |= VM_STAMPED;
    if ((this.state[vm] & CLIENT_STAMPED) === 0) return;
    const lag = (this.clientTs[vm] - (vmTs + tsDelta[vm])) | 0;
    if (lag <= 0) return;
    this.olderTsDelta[vm] = tsDelta[vm];
    this.movedAt[vm] = this.clientTs[vm];
    tsDelta[vm] = (tsDelta[vm] + lag) | 0;
    this.state[vm] |= MOVED;
    this.changes++;
  }

  /** Returns what to subtract from the TSecr of the client's segment to get a time that the VM has sent. */
  private echoDelta(bytes: Uint8Array, vm: number): number {
    const { segment, tsDelta } = this.mapping;
    const option = segment.timestamps(bytes);
    if (option === NONE) return 0;
    const echo = readI32(bytes, option + TCP_TIMESTAMPS.echo);
    const state = this.state[vm];
    let delta = tsDelta[vm];
    if ((state & MOVED) !== 0 && seqBefore(echo, this.movedAt[vm])) delta = this.olderTsDelta[vm];
    if ((state & VM_STAMPED) === 0) return delta;
    const ahead = (echo - delta - this.vmTs[vm]) | 0;
    if (ahead <= 0) return delta;
    if (ahead < LAG_MAX) this.noteReceived(vm, echo);
    return (delta + ahead) | 0;
  }
}
