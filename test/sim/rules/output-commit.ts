/**
 * Rule 1, seen from outside: whatever a protected primary writes to its uplink, its partner's VM has said, or holds in
 * the state that it was given. A node that is alone has to have it from its own VM: a promotion sends nothing else.
 *
 * A plain model that shares nothing with src/compare. What each VM says is noted as it leaves the guest: of a TCP
 * connection how far its stream has got, counted from the VM's own first number, and the highest ACK; of a datagram a
 * hash. When a VM's state is taken, what it has said so far goes with it, and is the other VM's own as soon as that one
 * has the whole state (RECEIVED). A stream's place in the client's view is counted from the first number that clients
 * were shown. So all numbers compared are distances, whatever was translated in between.
 *
 * Not judged here: connections that the guest opens (both VMs choose a port of their own: their clients judge them),
 * resets, and what is not TCP, UDP or an echo reply (idempotent, or judged by its client).
 */
import {
  ETHER_IPV4,
  ETHER_IPV6,
  get16,
  get32,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from '../guest/packets.ts';

const FIN = 1;
const SYN = 2;
const RST = 4;
const ACK = 16;

/** `content` is what was said since the last commit, from `from` on: no byte of it has to be the other VM's. */
type Stream = { isn: number; end: number; ack: number; from: number; content: Uint8Array; length: number };

/** What one frame says, read into one object. */
const said = {
  kind: 'nothing' as 'nothing' | 'tcp' | 'datagram',
  flow: 0,
  flags: 0,
  seq: 0,
  bytes: 0,
  payloadAt: 0,
  payloadEnd: 0,
  ack: 0,
  hash: 0,
};

/** Of a frame from the guest; `end` is where it ends in `bytes`. */
function read(bytes: Uint8Array, at: number, end: number): void {
  said.kind = 'nothing';
  const type = get16(bytes, at + 12);
  let transport = at + 34;
  let protocol = 0;
  let last = end;
  let peer = 0;
  if (type === ETHER_IPV4) {
    protocol = bytes[at + 23];
    peer = bytes[at + 33];
    last = Math.min(end, at + 14 + get16(bytes, at + 16));
  } else if (type === ETHER_IPV6) {
    transport = at + 54;
    protocol = bytes[at + 20];
    peer = 256 + bytes[at + 53];
    last = Math.min(end, transport + get16(bytes, at + 18));
  } else return;
  if (protocol === PROTOCOL_TCP) {
    const header = (bytes[transport + 12] >> 4) * 4;
    said.kind = 'tcp';
    said.flow = (peer * 65_536 + get16(bytes, transport)) * 65_536 + get16(bytes, transport + 2);
    said.flags = bytes[transport + 13];
    said.seq = get32(bytes, transport + 4);
    said.ack = get32(bytes, transport + 8);
    const ends = (said.flags & SYN ? 1 : 0) + (said.flags & FIN ? 1 : 0);
    said.payloadAt = transport + header;
    said.payloadEnd = last;
    said.bytes = last - transport - header + ends;
    return;
  }
  let from = transport;
  if (protocol === PROTOCOL_UDP) from += 8;
  else if (protocol === PROTOCOL_ICMP && bytes[transport] === 0) from += 4;
  else if (protocol === PROTOCOL_ICMPV6 && bytes[transport] === 129) from += 4;
  else return;
  said.kind = 'datagram';
  let hash = Math.imul(peer + 1, 0x9e3779b1) ^ protocol;
  if (protocol === PROTOCOL_UDP) hash = Math.imul(hash ^ get32(bytes, transport), 0x01000193);
  for (; from < last; from++) hash = Math.imul(hash ^ bytes[from], 0x01000193);
  said.hash = hash;
}

type Snapshot = { streams: Map<number, Stream>; datagrams: Map<number, number>; count: number };

const NO_CONTENT = new Uint8Array(0);

function newStream(isn: number, end: number, ack: number): Stream {
  return { isn, end, ack, from: end, content: NO_CONTENT, length: 0 };
}

/** Adds what is new in the frame that was just read. */
function keep(stream: Stream, frame: Uint8Array): void {
  const at = said.payloadAt + ((stream.end - said.seq) | 0);
  if (at < said.payloadAt || at > said.payloadEnd) return;
  const more = frame.subarray(at, said.payloadEnd);
  if (stream.length + more.length > stream.content.length) {
    const content = new Uint8Array(2 * (stream.length + more.length));
    content.set(stream.content);
    stream.content = content;
  }
  stream.content.set(more, stream.length);
  stream.length += more.length;
}

/** Does the frame that was just read say the same bytes, as far as both have them? `place` is that of its first one. */
function saysTheSame(stream: Stream, bytes: Uint8Array, place: number): boolean {
  const ahead = ((stream.from - stream.isn) | 0) - place;
  for (let i = Math.max(0, ahead); i < said.payloadEnd - said.payloadAt; i++) {
    const at = i - ahead;
    if (at >= stream.length) break;
    if (stream.content[at] !== bytes[said.payloadAt + i]) return false;
  }
  return true;
}

export type Said = { ends: { flow: number; isn: number; place: number }[]; datagrams: number[] };

/** What one VM has said, and what it was given as said. */
export class SaidOutput {
  private streams = new Map<number, Stream>();
  /** by hash: how many were said before it */
  private datagrams = new Map<number, number>();
  private count = 0;
  private given: Snapshot | null = null;
  /** Nobody compares with what a primary said. */
  private keepsContent = false;

  say(frame: Uint8Array): void {
    read(frame, 0, frame.length);
    if (said.kind === 'datagram') {
      if (!this.datagrams.has(said.hash)) this.datagrams.set(said.hash, this.count);
      this.count++;
    }
    if (said.kind !== 'tcp' || (said.flags & RST) !== 0) return;
    const { flow, flags, seq, ack } = said;
    const end = (seq + said.bytes) | 0;
    const stream = this.streams.get(flow);
    if ((flags & SYN) !== 0 && stream?.isn !== seq) this.streams.set(flow, newStream(seq, end, ack));
    else if (stream !== undefined) {
      if (((end - stream.end) | 0) > 0) {
        if (this.keepsContent) keep(stream, frame);
        stream.end = end;
      }
      if ((flags & ACK) !== 0 && ((ack - stream.ack) | 0) > 0) stream.ack = ack;
    }
  }

  /** Its state is taken now. */
  snapshot(): Snapshot {
    this.keepsContent = false;
    const streams = new Map<number, Stream>();
    for (const [flow, { isn, end, ack }] of this.streams) streams.set(flow, newStream(isn, end, ack));
    return { streams, datagrams: this.datagrams, count: this.count };
  }

  /** It has another VM's whole state: what it said itself before is void. */
  become(state: Snapshot): void {
    this.streams = new Map();
    for (const [flow, { isn, end, ack }] of state.streams) this.streams.set(flow, newStream(isn, end, ack));
    this.keepsContent = true;
    this.datagrams = new Map();
    this.count = 0;
    this.given = state;
  }

  /** What it has said since it became a copy. */
  sinceCommit(): Said {
    const ends: Said['ends'] = [];
    for (const [flow, { isn, end, from }] of this.streams)
      if (((end - from) | 0) > 0) ends.push({ flow, isn, place: (end - isn) | 0 });
    return { ends, datagrams: [...this.datagrams.keys()] };
  }

  stream(flow: number): Stream | undefined {
    return this.streams.get(flow);
  }

  hasDatagram(hash: number): boolean {
    if (this.datagrams.has(hash)) return true;
    const index = this.given?.datagrams.get(hash);
    return index !== undefined && index < (this.given as Snapshot).count;
  }
}

/** The streams as clients were shown them; judges what is released. */
export class OutputCommit {
  /** the first number of each; null if the guest opened it */
  private readonly shown = new Map<number, number | null>();
  private readonly shownTo = new Map<number, number>();
  private readonly datagrams = new Set<number>();

  /** Every frame that is written to an uplink. `partner` is what the VM has said that has to have said it. */
  released(bytes: Uint8Array, at: number, end: number, partner: SaidOutput | null): string | null {
    read(bytes, at, end);
    if (said.kind === 'nothing') return null;
    if (said.kind === 'datagram') {
      this.datagrams.add(said.hash);
      if (partner === null || partner.hasDatagram(said.hash)) return null;
      return 'a datagram was released that the VM behind it has not said';
    }
    const { flow, flags, seq, ack } = said;
    if ((flags & RST) !== 0) return null;
    if ((flags & SYN) !== 0) {
      const first = (flags & ACK) !== 0 ? seq : null;
      if (this.shown.get(flow) !== first) this.shownTo.set(flow, 0);
      this.shown.set(flow, first);
    }
    const isn = this.shown.get(flow);
    if (isn === null || isn === undefined) return null;
    this.shownTo.set(flow, Math.max(this.shownTo.get(flow) ?? 0, (seq + said.bytes - isn) | 0));
    if (partner === null) return null;
    const stream = partner.stream(flow);
    if (stream === undefined)
      return 'a segment was released of a connection that the VM behind it does not know';
    const place = (seq + said.bytes - isn) | 0;
    const has = (stream.end - stream.isn) | 0;
    if (place > has) return `a stream was released up to ${place}, the VM behind it has said ${has}`;
    if ((flags & SYN) === 0 && !saysTheSame(stream, bytes, (seq - isn) | 0))
      return 'a stream was released with other bytes than the VM behind it has said';
    const ahead = (ack - stream.ack) | 0;
    if ((flags & ACK) !== 0 && ahead > 0)
      return `an ACK was released that is ${ahead} ahead of the VM behind it`;
    return null;
  }

  /**
   * Of what a promoted VM had said, clients have to be shown all. Where the VM has begun another connection on the same
   * ports by `now`, the client was done with the one before, and what was shown is the new one's.
   */
  missing({ ends, datagrams }: Said, now: SaidOutput): string | null {
    for (const hash of datagrams)
      if (!this.datagrams.has(hash)) return 'a datagram that the promoted VM had said was never released';
    for (const { flow, isn, place } of ends) {
      if (now.stream(flow)?.isn !== isn) continue;
      const to = this.shownTo.get(flow);
      // Where nothing was shown, the guest has opened it, or it is over.
      if (to !== undefined && this.shown.get(flow) !== null && to < place)
        return `the promoted VM had said a stream up to ${place}, clients were shown ${to}`;
    }
    return null;
  }
}
