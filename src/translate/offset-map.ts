/**
 * Per connection: what to add to the VM's numbers to get the client's.
 *
 * Connections that need nothing are not in the map, so an empty map costs one comparison per frame.
 * A SYN of the VM ends a connection's entry, unless it is the repetition of the SYN that began this very connection: a
 * failover may come in the middle of a handshake. The VM's initial sequence number tells the two apart.
 * Limits: LIMITS.translationsMax. When full, `add` answers false; the caller has to say so loudly.
 */

import { FLOW_KEY_WORDS, writeFlowKey } from '../flow/key.ts';
import { FlowTable } from '../flow/table.ts';
import { LIMITS, type Limits } from '../limits.ts';
import { PACKET, PacketView, parsePacket } from '../wire/packet.ts';
import { TCP_ACK, TCP_RST, TCP_SYN } from '../wire/tcp.ts';
import { translateInput, translateOutput } from './tcp-fields.ts';

/** `vmIsn` is the VM's own initial sequence number, int32 like the differences. */
export type Translation = { key: number[]; vmIsn: number; seqDelta: number; tsDelta: number };

export class OffsetMap {
  private readonly table: FlowTable;
  private readonly vmIsns: Int32Array;
  private readonly seqDeltas: Int32Array;
  private readonly tsDeltas: Int32Array;
  private readonly view = new PacketView();
  private changes = 0;
  private readonly key = new Int32Array(FLOW_KEY_WORDS);

  constructor(hashSeed: number, limits: Limits = LIMITS) {
    this.table = new FlowTable(limits.translationsMax, hashSeed);
    this.vmIsns = new Int32Array(limits.translationsMax);
    this.seqDeltas = new Int32Array(limits.translationsMax);
    this.tsDeltas = new Int32Array(limits.translationsMax);
  }

  get size(): number {
    return this.table.size;
  }

  /** Adds to what is known of a connection; false when there is no room for another. */
  add(key: Int32Array, vmIsn: number, seqDelta: number, tsDelta: number): boolean {
    let id = this.table.find(key);
    if (id < 0) {
      id = this.table.insert(key);
      if (id < 0) return false;
      this.seqDeltas[id] = 0;
      this.tsDeltas[id] = 0;
    }
    this.vmIsns[id] = vmIsn;
    this.seqDeltas[id] = (this.seqDeltas[id] + seqDelta) | 0;
    this.tsDeltas[id] = (this.tsDeltas[id] + tsDelta) | 0;
    this.changes++;
    return true;
  }

  clear(): void {
    this.changes++;
    this.table.clear();
  }

  /** The VM's output, in place. A new SYN starts a connection anew, so what was known of the old one is void. */
  output(bytes: Uint8Array, at: number, length: number): void {
    if (this.table.size === 0) return;
    const id = this.lookUp(bytes, at, length, true);
    if (id < 0) return;
    if (this.startsAnew(id)) {
      this.forget(id);
      return;
    }
    translateOutput(bytes, this.view, this.seqDeltas[id], this.tsDeltas[id]);
    if ((this.view.tcpFlags & TCP_RST) !== 0) this.forget(id);
  }

  /** The VM's input, in place. */
  input(bytes: Uint8Array, at: number, length: number): void {
    if (this.table.size === 0) return;
    const id = this.lookUp(bytes, at, length, false);
    if (id < 0) return;
    translateInput(bytes, this.view, this.seqDeltas[id], this.tsDeltas[id]);
  }

  /** Grows with every change: tells whether the other node's copy is still the same. */
  get version(): number {
    return this.changes;
  }

  /** A new SYN of the VM that this map does not translate: the old connection on its ports is gone. */
  forgetOnSyn(bytes: Uint8Array, at: number, length: number): void {
    if (this.table.size === 0) return;
    const id = this.lookUp(bytes, at, length, true);
    if (id >= 0 && this.startsAnew(id)) this.forget(id);
  }

  /** For the next secondary: it takes over this map with the VM's state. */
  export(): Translation[] {
    const all: Translation[] = [];
    this.table.forEach((id) => {
      this.table.readKey(id, this.key);
      all.push({
        key: [...this.key],
        vmIsn: this.vmIsns[id],
        seqDelta: this.seqDeltas[id],
        tsDelta: this.tsDeltas[id],
      });
    });
    return all;
  }

  /** Takes over another node's map, or one more part of it. */
  import(all: Translation[]): void {
    for (const { key, vmIsn, seqDelta, tsDelta } of all) {
      this.add(Int32Array.from(key), vmIsn, seqDelta, tsDelta);
    }
  }

  private startsAnew(id: number): boolean {
    return (this.view.tcpFlags & TCP_SYN) !== 0 && this.view.seq !== this.vmIsns[id];
  }

  private forget(id: number): void {
    this.table.remove(id);
    this.changes++;
  }

  private lookUp(bytes: Uint8Array, at: number, length: number, fromVm: boolean): number {
    if (parsePacket(bytes, at, length, this.view) !== PACKET.tcp) return -1;
    writeFlowKey(bytes, this.view, fromVm, this.key);
    return this.table.find(this.key);
  }
}

/** A SYN without ACK from the client side means that the old connection on these ports is gone. */
export function opensConnection(flags: number): boolean {
  return (flags & (TCP_SYN | TCP_ACK)) === TCP_SYN;
}
