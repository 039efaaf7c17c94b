/**
 * What may leave: rule 1 of docs/architecture.md, in a plain and slow form, byte by byte. It checks the comparator and shares
 * nothing with src/compare.
 *
 * A PVM frame may leave before a checkpoint if the SVM has sent as much since the last one:
 * - a datagram (whatever is compared whole): the same bytes in the same flow, at least as often; in fragments it counts
 *   when all fragments are there (pieces.ts);
 * - an ICMP error: one that reports the same about the same packet (quoted.ts), at least as often;
 * - a byte of a TCP stream: the same byte at the same place, or the client was sent that place before;
 * - an acknowledgement: the same or a higher one in the same flow, or the client was sent such a one before. (Another
 *   connection may have begun in between. Its numbers are unrelated, so no number of one is higher than one of the other.)
 * - SYN, FIN, RST: the same flag, at the same place where it has one.
 */
import { COMPARE_AS, compareAs } from '../../src/compare/classes.ts';
import { FLOW_KEY_WORDS, writeOutputKey } from '../../src/flow/key.ts';
import { PACKET, PacketView, parseGsoPacket, parsePacket } from '../../src/wire/packet.ts';
import { ACK, FIN, RST, SYN } from '../frames.ts';
import { saidOfQuoted } from './quoted.ts';

export type Said = { flow: string; harmless: boolean; bytes: string; tcp: Tcp | null };
type Tcp = { flags: number; seq: number; ack: number; payload: Buffer };

/** Returns what a frame carries, or null if its lengths contradict each other. `gso`: it is still to be cut into segments. */
export function read(frame: Buffer, gso = false): Said | null {
  const view = new PacketView();
  const parse = gso ? parseGsoPacket : parsePacket;
  if (parse(frame, 0, frame.length, view) === PACKET.malformed) return null;
  const key = new Int32Array(FLOW_KEY_WORDS);
  writeOutputKey(frame, view, key);
  const payload = frame.subarray(view.payload, view.payload + view.payloadBytes);
  const { kind, tcpFlags: flags, seq, ack } = view;
  return {
    flow: key.join(),
    harmless: compareAs(view) === COMPARE_AS.harmless,
    bytes: isIcmpError(view) ? saidOfQuoted(payload) : payload.toString('latin1'),
    tcp: kind === PACKET.tcp ? { flags, seq, ack, payload } : null,
  };
}

function isIcmpError({ kind, icmpType }: PacketView): boolean {
  if (kind === PACKET.icmpv6) return icmpType < 128;
  return kind === PACKET.icmp && [3, 4, 5, 11, 12].includes(icmpType);
}

class Flow {
  /** what the SVM has sent since the last checkpoint */
  readonly datagrams = new Map<string, number>();
  readonly bytes = new Set<string>();
  readonly fins = new Set<number>();
  readonly syns = new Set<boolean>();
  readonly acks = new Set<number>();
  resets = 0;
  svmAck: number | null = null;
  /** up to where the client was sent bytes, and acknowledgements */
  sent: number | null = null;
  told: number | null = null;
  readonly sentSyns = new Set<number>();
}

export class OutputCommit {
  private readonly flows = new Map<string, Flow>();

  svmSaid(said: Said): void {
    const flow = this.flow(said.flow);
    const { tcp } = said;
    if (tcp === null) {
      flow.datagrams.set(said.bytes, (flow.datagrams.get(said.bytes) ?? 0) + 1);
      return;
    }
    tcp.payload.forEach((byte, i) => {
      flow.bytes.add(`${(first(tcp) + i) >>> 0} ${byte}`);
    });
    // A SYN may have a number of its own VM: the place of its data is counted from it.
    if ((tcp.flags & SYN) !== 0) {
      tcp.payload.forEach((byte, place) => {
        flow.bytes.add(`SYN ${place} ${byte}`);
      });
      if ((tcp.flags & FIN) !== 0) flow.bytes.add(`SYN ${tcp.payload.length} FIN`);
    }
    if ((tcp.flags & FIN) !== 0) flow.fins.add(last(tcp));
    if ((tcp.flags & SYN) !== 0) flow.syns.add((tcp.flags & ACK) !== 0);
    if ((tcp.flags & RST) !== 0) flow.resets++;
    else if ((tcp.flags & ACK) !== 0) {
      flow.acks.add(tcp.ack);
      flow.svmAck = later(flow.svmAck, tcp.ack);
    }
  }

  /** A frame has left without a checkpoint: returns why it should not have, or null. */
  leaves(said: Said): string | null {
    const flow = this.flow(said.flow);
    const why = said.tcp === null ? this.datagram(flow, said.bytes) : this.segment(flow, said.tcp);
    if (said.tcp !== null) this.heard(flow, said.tcp);
    return why;
  }

  /** A frame leaves because a checkpoint was taken after it. */
  committed(said: Said): void {
    if (said.tcp !== null) this.heard(this.flow(said.flow), said.tcp);
  }

  /** After the last frame of a commit: what only the SVM had sent is void. */
  checkpoint(): void {
    for (const [key, { sent, told, sentSyns }] of this.flows) {
      const fresh = new Flow();
      fresh.sent = sent;
      fresh.told = told;
      for (const syn of sentSyns) fresh.sentSyns.add(syn);
      this.flows.set(key, fresh);
    }
  }

  private datagram(flow: Flow, bytes: string): string | null {
    const times = flow.datagrams.get(bytes) ?? 0;
    flow.datagrams.set(bytes, times - 1);
    return times > 0 ? null : 'the SVM has not said this datagram';
  }

  private segment(flow: Flow, tcp: Tcp): string | null {
    const { flags, payload } = tcp;
    if ((flags & RST) !== 0) return flow.resets-- > 0 ? null : 'the SVM has not reset the connection';
    const acknowledged = flow.acks.has(tcp.ack) || reaches(later(flow.svmAck, flow.told), tcp.ack);
    if ((flags & ACK) !== 0 && !acknowledged) return 'the SVM has not acknowledged as much';
    if ((flags & SYN) !== 0 && !flow.syns.has((flags & ACK) !== 0) && !flow.sentSyns.has(tcp.seq))
      return 'the SVM has not begun this connection';
    const unsaid = payload.findIndex((byte, i) => {
      if ((flags & SYN) !== 0 && flow.bytes.has(`SYN ${i} ${byte}`)) return false;
      const place = (first(tcp) + i) | 0;
      return !flow.bytes.has(`${place >>> 0} ${byte}`) && !reaches(flow.sent, (place + 1) | 0);
    });
    if (unsaid >= 0) return `the SVM has not said byte ${unsaid} of the segment`;
    const sameFin = (flags & SYN) !== 0 && flow.bytes.has(`SYN ${payload.length} FIN`);
    if ((flags & FIN) !== 0 && !sameFin && !flow.fins.has(last(tcp)) && !reaches(flow.sent, last(tcp)))
      return 'the SVM has not ended the stream here';
    return null;
  }

  private heard(flow: Flow, tcp: Tcp): void {
    if ((tcp.flags & RST) !== 0) {
      flow.sent = null;
      flow.told = null;
      flow.sentSyns.clear();
      return;
    }
    if ((tcp.flags & SYN) !== 0) {
      if (!flow.sentSyns.has(tcp.seq)) {
        flow.sent = null;
        flow.told = null;
        flow.sentSyns.clear();
      }
      flow.sentSyns.add(tcp.seq);
    }
    flow.sent = later(flow.sent, last(tcp));
    if ((tcp.flags & ACK) !== 0) flow.told = later(flow.told, tcp.ack);
  }

  private flow(key: string): Flow {
    let flow = this.flows.get(key);
    if (flow === undefined) {
      flow = new Flow();
      this.flows.set(key, flow);
    }
    return flow;
  }
}

/** Returns the place of the first payload byte. */
function first({ flags, seq }: Tcp): number {
  return (seq + ((flags & SYN) !== 0 ? 1 : 0)) | 0;
}

/** Returns the first place after the segment, SYN and FIN included. */
function last(tcp: Tcp): number {
  return (first(tcp) + tcp.payload.length + ((tcp.flags & FIN) !== 0 ? 1 : 0)) | 0;
}

function later(known: number | null, place: number | null): number | null {
  if (known === null || place === null) return known ?? place;
  return ((place - known) | 0) > 0 ? place : known;
}

function reaches(known: number | null, place: number): boolean {
  return known !== null && ((place - known) | 0) <= 0;
}
