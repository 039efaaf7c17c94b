/**
 * Values of a field that may differ (unify/http-date.ts): clients have them from one VM, and another VM has its own in
 * their place.
 *
 * Goal: whatever a VM sends of such a field, clients get the bytes that were said first, however often and in whichever segments it
 * repeats them. A kernel keeps what it has sent until the client has acknowledged it; a client that had a part from each VM
 * would have a value that neither has said.
 *
 * Two objects of this class are there, as there are two mappings (mapping.ts). The secondary's has what the primary has taught since
 * the last commit, in the PVM's numbers. That of OffsetMap is kept since a failover, in the numbers of the clients.
 *
 * Known of each value: its flow, its place in the stream, the VM's own bytes, and those that clients have. Bytes are replaced at that
 * place, and only where the VM's own stand: whatever else is there stays. A SYN is of another connection unless the value may follow it.
 *
 *   event                                                  action
 *   `add`: a lesson; a promotion; from the other node      remember the value
 *   the VM sends bytes at its place                        replace those that are its own, and correct the checksum
 *   an ACK of the client for all of it                     forget the value: the VM repeats it no more, or the client drops that
 *   RST of either side; a SYN of another connection        forget the flow's
 *   commit (the secondary's), another map (OffsetMap's)    `clear`
 *
 * Limits: `valuesMax` values; `add` then returns false. A segment that the VM's kernel cuts into IP fragments is not changed.
 */
import { FLOW_KEY_WORDS, writeInputKey, writeOutputKey } from '../flow/key.ts';
import { SEQ_WINDOW_MAX, seqAdd, seqDiff } from '../flow/sequence.ts';
import { FlowTable } from '../flow/table.ts';
import { HTTP_DATE_BYTES } from '../unify/http-date.ts';
import { type FlowId, NONE, type Seq } from '../units.ts';
import { readU16, writeU16 } from '../wire/bytes.ts';
import { adjustChecksum, checksumChange32 } from '../wire/checksum.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';
import { TCP, TCP_ACK, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { SENDER, type Sender } from './segment.ts';

/** `own` and `told`: what the VM has in its place, and what clients have. HTTP_DATE_BYTES bytes each. */
export type Value = { seq: Seq; own: Uint8Array; told: Uint8Array };

/** A value with the key of its flow. */
export type UnifiedValue = Value & { key: Int32Array };

export class UnifiedValues {
  size = 0;
  readonly valuesMax: number;
  private readonly table: FlowTable<FlowId>;
  /** by flow, the oldest first */
  private readonly values: Value[][] = [];
  private readonly view = new PacketView();
  private readonly key = new Int32Array(FLOW_KEY_WORDS);

  constructor(valuesMax: number, hashSeed: number) {
    this.valuesMax = valuesMax;
    this.table = new FlowTable<FlowId>(valuesMax, hashSeed);
  }

  /**
   * Adds a value, or gives one that is known at its place the VM's bytes: clients have what they were told first. Returns false if
   * there is no room.
   */
  add({ key, seq, own, told }: UnifiedValue): boolean {
    let id = this.table.find(key);
    const known = id === NONE ? undefined : this.values[id].find((value) => value.seq === seq);
    if (known !== undefined) {
      known.own = own;
      return true;
    }
    if (this.size === this.valuesMax) return false;
    if (id === NONE) {
      id = this.table.insert(key);
      this.values[id] = [];
    }
    this.values[id].push({ seq, own, told });
    this.size++;
    return true;
  }

  /** A frame that the VM sends: replaces the VM's own bytes, in place. */
  output(bytes: Uint8Array, at: number, length: number): void {
    const id = this.find(bytes, at, length, SENDER.vm);
    if (id === NONE) return;
    const { seq, tcpFlags } = this.view;
    this.replaceIn(bytes, id);
    if ((tcpFlags & TCP_RST) !== 0) this.forget(id);
    else if ((tcpFlags & TCP_SYN) !== 0) this.keep(id, (value) => isWithinWindow(seqDiff(value.seq, seq)));
  }

  /** The same for a frame that was sent before. Returns true if it has changed. */
  correct(bytes: Uint8Array, at: number, length: number): boolean {
    const id = this.find(bytes, at, length, SENDER.vm);
    return id !== NONE && this.replaceIn(bytes, id);
  }

  /** A client's frame, which is only read: forgets what it has acknowledged. */
  input(bytes: Uint8Array, at: number, length: number): void {
    const id = this.find(bytes, at, length, SENDER.client);
    if (id === NONE) return;
    const { ack, tcpFlags } = this.view;
    if ((tcpFlags & TCP_RST) !== 0) this.forget(id);
    else if ((tcpFlags & TCP_ACK) !== 0)
      this.keep(id, ({ seq }) => !isWithinWindow(seqDiff(ack, seqAdd(seq, HTTP_DATE_BYTES))));
  }

  clear(): void {
    this.table.clear();
    this.values.length = 0;
    this.size = 0;
  }

  /** Returns all values, those of one flow the oldest first. */
  all(): UnifiedValue[] {
    const all: UnifiedValue[] = [];
    this.table.forEach((id) => {
      for (const value of this.values[id]) {
        const key = new Int32Array(FLOW_KEY_WORDS);
        this.table.readKey(id, key);
        all.push({ key, ...value });
      }
    });
    return all;
  }

  /** Parses a frame. Returns the id of its flow if there are values of it, or NONE. */
  private find(bytes: Uint8Array, at: number, length: number, sender: Sender): FlowId | typeof NONE {
    const { view, key } = this;
    if (this.size === 0 || parsePacket(bytes, at, length, view) !== PACKET.tcp) return NONE;
    if (sender === SENDER.vm) writeOutputKey(bytes, view, key);
    else writeInputKey(bytes, view, key);
    return this.table.find(key);
  }

  private replaceIn(bytes: Uint8Array, id: FlowId): boolean {
    let changed = false;
    for (const value of this.values[id]) if (this.replace(bytes, value)) changed = true;
    return changed;
  }

  /** Replaces a value in the segment at hand. Returns true if the VM's own bytes of it are there. */
  private replace(bytes: Uint8Array, { seq, own, told }: Value): boolean {
    const { l4, payload, payloadBytes, tcpFlags } = this.view;
    const first = seqAdd(this.view.seq, (tcpFlags & TCP_SYN) === 0 ? 0 : 1);
    const skip = seqDiff(seq, first);
    const from = Math.max(skip, 0);
    const to = Math.min(skip + HTTP_DATE_BYTES, payloadBytes);
    if (from >= to) return false;
    for (let i = from; i < to; i++) if (bytes[payload + i] !== own[i - skip]) return false;
    let change = 0;
    for (let i = from; i < to; i++) {
      const shift = ((payload + i - l4) & 1) === 0 ? 8 : 0;
      change += checksumChange32(own[i - skip] << shift, told[i - skip] << shift, 0);
      bytes[payload + i] = told[i - skip];
    }
    const checksumAt = l4 + TCP.checksum;
    writeU16(bytes, checksumAt, adjustChecksum(readU16(bytes, checksumAt), change));
    return true;
  }

  private forget(id: FlowId): void {
    this.keep(id, () => false);
  }

  private keep(id: FlowId, isKept: (value: Value) => boolean): void {
    const kept = this.values[id].filter(isKept);
    this.size -= this.values[id].length - kept.length;
    this.values[id] = kept;
    if (kept.length === 0) this.table.remove(id);
  }
}

function isWithinWindow(difference: number): boolean {
  return difference >= 0 && difference <= SEQ_WINDOW_MAX;
}
