/**
 * The output of both VMs: endless matched TCP segments, as framed bytes for the primary's and the secondary's socket.
 * Buffers are reused: the caller gives a batch back when both sockets have taken it.
 *
 * Flows take turns, frame by frame. Each flow's sequence numbers continue from batch to batch.
 */

import type { Shape } from './shape.ts';
import { VNET_HEADER_BYTES } from './shape.ts';

export type Batch = {
  readonly primary: Buffer;
  readonly secondary: Buffer;
  /** Frames of the primary. */
  readonly pairs: number;
};

const ETHERNET_BYTES = 14;
const TCP_BYTES = 20;
const BATCH_BYTES = 128 * 1024;
const PORTS = 50_000;

export class Traffic {
  /** Bytes of one primary frame on the wire, its prefix included. */
  readonly wireBytes: number;
  /** Offset of a frame's sequence number, from the start of its prefix. */
  readonly seqAt: number;
  private readonly shape: Shape;
  private readonly l4At: number;
  private readonly batchPairsMax: number;
  private readonly free: { primary: Buffer; secondary: Buffer }[] = [];
  private readonly seqs: Int32Array;
  private flowsUsed: number;
  private turn = 0;

  constructor(shape: Shape, batches: number, batchPairsMax = Number.POSITIVE_INFINITY) {
    this.shape = shape;
    this.batchPairsMax = batchPairsMax;
    this.flowsUsed = shape.flows;
    this.seqs = new Int32Array(shape.flows).fill(1);
    const prefixBytes = shape.vnet ? 8 + VNET_HEADER_BYTES : 4;
    const ipBytes = shape.version === 4 ? 20 : 40;
    this.l4At = prefixBytes + ETHERNET_BYTES + ipBytes;
    this.seqAt = this.l4At + 4;
    this.wireBytes = this.l4At + TCP_BYTES + shape.payloadBytes;
    for (let i = 0; i < batches; i++) this.free.push(this.blank());
  }

  /** From now on only the first `flows` of the shape send. */
  useFlows(flows: number): void {
    this.flowsUsed = flows;
    this.turn = 0;
  }

  /** Frames per batch. */
  get batchPairs(): number {
    if (this.shape.secondaryBytes === undefined)
      return Math.max(1, Math.min(this.batchPairsMax, Math.floor(BATCH_BYTES / this.wireBytes)));
    // A whole number of segments on both sides.
    return this.shape.secondaryBytes / gcd(this.shape.payloadBytes, this.shape.secondaryBytes);
  }

  /** Returns the next batch, or null while all buffers are under way. */
  next(): Batch | null {
    const buffers = this.free.pop();
    if (buffers === undefined) return null;
    const { primary, secondary } = buffers;
    if (this.shape.secondaryBytes === undefined) this.number(primary);
    else this.numberCut(primary, secondary, this.shape.secondaryBytes);
    return { primary, secondary, pairs: this.batchPairs };
  }

  giveBack({ primary, secondary }: Batch): void {
    this.free.push({ primary, secondary });
  }

  private number(primary: Buffer): void {
    const { wireBytes, seqAt, seqs } = this;
    const { flowsUsed } = this;
    const { payloadBytes, flows } = this.shape;
    for (let at = 0; at < primary.length; at += wireBytes) {
      const flow = this.turn;
      this.turn = flow + 1 === flowsUsed ? 0 : flow + 1;
      if (flows > 1) this.name(primary, at, flow);
      writeSeq(primary, at + seqAt, seqs[flow]);
      seqs[flow] += payloadBytes;
    }
  }

  /** Makes a batch of one flow, which the sides cut into different segments. */
  private numberCut(primary: Buffer, secondary: Buffer, secondaryBytes: number): void {
    const flow = this.turn;
    this.turn = flow + 1 === this.flowsUsed ? 0 : flow + 1;
    const start = this.seqs[flow];
    for (const [buffer, bytes] of [
      [primary, this.shape.payloadBytes],
      [secondary, secondaryBytes],
    ] as const) {
      let seq = start;
      for (let at = 0; at < buffer.length; at += this.l4At + TCP_BYTES + bytes) {
        this.name(buffer, at, flow);
        writeSeq(buffer, at + this.seqAt, seq);
        seq += bytes;
      }
      this.seqs[flow] = seq;
    }
  }

  /** Sets the client's address and port. */
  private name(buffer: Buffer, at: number, flow: number): void {
    const address = at + this.l4At - 4;
    const high = Math.floor(flow / PORTS);
    buffer[address + 2] = high;
    const port = 1024 + (flow % PORTS);
    buffer[at + this.l4At + 2] = port >>> 8;
    buffer[at + this.l4At + 3] = port;
  }

  private blank(): { primary: Buffer; secondary: Buffer } {
    const { payloadBytes, secondaryBytes } = this.shape;
    const primary = this.frames(this.batchPairs, payloadBytes);
    if (secondaryBytes === undefined) return { primary, secondary: primary };
    return {
      primary,
      secondary: this.frames((this.batchPairs * payloadBytes) / secondaryBytes, secondaryBytes),
    };
  }

  private frames(count: number, payloadBytes: number): Buffer {
    const { vnet, version } = this.shape;
    const bytes = this.l4At + TCP_BYTES + payloadBytes;
    const one = Buffer.alloc(bytes, 0x61);
    const l3At = this.l4At - (version === 4 ? 20 : 40);
    one.fill(0, 0, this.l4At + TCP_BYTES);
    one.writeUInt32BE(bytes - (vnet ? 8 : 4), 0);
    if (vnet) {
      one.writeUInt32BE(VNET_HEADER_BYTES, 4);
      // NEEDS_CSUM, GSO of the family, header length, segment size: what a guest with offloads sends.
      one[8] = 1;
      one[9] = version === 4 ? 1 : 4;
      one.writeUInt16LE(this.l4At + TCP_BYTES - 8 - VNET_HEADER_BYTES, 10);
      one.writeUInt16LE(1448, 12);
    }
    const ethernet = l3At - ETHERNET_BYTES;
    one.set([0x52, 0x54, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 2], ethernet);
    one.writeUInt16BE(version === 4 ? 0x0800 : 0x86dd, ethernet + 12);
    if (version === 4) {
      one[l3At] = 0x45;
      one.writeUInt16BE(20 + TCP_BYTES + payloadBytes, l3At + 2);
      one[l3At + 8] = 64;
      one[l3At + 9] = 6;
      one.set([10, 0, 2, 15, 10, 1, 0, 1], l3At + 12);
    } else {
      one[l3At] = 0x60;
      one.writeUInt16BE(TCP_BYTES + payloadBytes, l3At + 4);
      one[l3At + 6] = 6;
      one[l3At + 7] = 64;
      one.set([0xfd, 0, 0, 1], l3At + 8);
      one.set([0xfd, 0, 0, 2], l3At + 24);
    }
    one.writeUInt16BE(80, this.l4At);
    one.writeUInt16BE(1024, this.l4At + 2);
    one.writeUInt32BE(1, this.l4At + 8);
    one[this.l4At + 12] = 5 << 4;
    one[this.l4At + 13] = 0x10;
    one.writeUInt16BE(0xffff, this.l4At + 14);
    return Buffer.concat(Array.from({ length: count }, () => one));
  }
}

function writeSeq(buffer: Buffer, at: number, seq: number): void {
  buffer[at] = seq >>> 24;
  buffer[at + 1] = seq >>> 16;
  buffer[at + 2] = seq >>> 8;
  buffer[at + 3] = seq;
}

function gcd(a: number, b: number): number {
  return b === 0 ? a : gcd(b, a % b);
}
