/** Which flow an input frame belongs to, if it gives the VM something to do: what portions (portions.ts) are made of. */
import { FrameParser } from '../compare/frame-parser.ts';
import { FLOW_KEY_WORDS, localPort, protocolOf, writeInputKey } from '../flow/key.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { SlabId } from '../units.ts';
import { PACKET, PacketView } from '../wire/packet.ts';
import { TCP_RST } from '../wire/tcp.ts';

/** Of a frame that no process in the guest takes: a bare ACK, ARP, a broken frame. */
export const NO_WORK = 0;

/** Returns what the flows of one service share: protocol and VM's port. Takes the key of a flow. */
export function serviceOf(key: ArrayLike<number>): number {
  return (protocolOf(key) << 16) | localPort(key);
}

/** What a frame is to its TCP flow. */
export const SEGMENT = { none: 0, bareAck: 1, work: 2 } as const;
export type Segment = (typeof SEGMENT)[keyof typeof SEGMENT];

export class InputFlow {
  /** of the frame that `of` was asked about last: the service that it is for */
  service = 0;
  /** of the frame that this was asked about last, unless it is no packet: the key of its flow */
  readonly key = new Int32Array(FLOW_KEY_WORDS);
  private readonly slabs: SlabPool;
  private readonly parser: FrameParser;
  private readonly view = new PacketView();

  constructor(slabs: SlabPool) {
    this.slabs = slabs;
    this.parser = new FrameParser(slabs, 'plain');
  }

  /**
   * Returns a number that frames of one flow share, or NO_WORK. Two flows may share it: they then pass for one, which costs
   * exactness of the order between them, and nothing else.
   */
  of(slab: SlabId, at: number, length: number): number {
    const { view, key } = this;
    const kind = this.parser.parse(slab, at, length, view);
    this.service = 0;
    if (kind === PACKET.malformed || kind === PACKET.nonIp) return NO_WORK;
    writeInputKey(this.slabs.buffer(slab), view, key);
    this.service = serviceOf(key);
    if (kind === PACKET.tcp && this.segment() === SEGMENT.bareAck) return NO_WORK;
    let hash = 0x811c9dc5;
    for (let word = 0; word < FLOW_KEY_WORDS; word++) hash = Math.imul(hash ^ key[word], 0x01000193);
    return (hash ^ (hash >>> 15)) | 1;
  }

  /** Returns what a frame is to its TCP flow: `none` if it has none. */
  segmentOf(slab: SlabId, at: number, length: number): Segment {
    if (this.parser.parse(slab, at, length, this.view) !== PACKET.tcp) return SEGMENT.none;
    writeInputKey(this.slabs.buffer(slab), this.view, this.key);
    return this.segment();
  }

  private segment(): Segment {
    const { seqLength, tcpFlags } = this.view;
    return seqLength === 0 && (tcpFlags & TCP_RST) === 0 ? SEGMENT.bareAck : SEGMENT.work;
  }
}
