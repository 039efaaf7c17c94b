/**
 * Rule 1, seen from outside: a protected primary releases only what its partner's VM has sent too, or what the primary's
 * VM had sent before the state was copied that the partner now has. A node that is alone releases only what its own VM
 * has sent, after a promotion as well.
 *
 * This is a plain model that shares nothing with src/compare. It notes what each VM sends as it leaves the guest: for a
 * TCP connection the end of its stream, counted from the VM's own initial sequence number, and the highest ACK; for a
 * datagram a hash. When a VM's state is copied, its notes go with it, and they are the other VM's from RECEIVED on. A
 * stream's place as clients know it is counted from the first number that was released. All numbers that are compared
 * are therefore distances, and translation does not change them.
 *
 * A reset has no place: its partner's VM must have sent one on the same ports.
 *
 * Not judged: connections that the guest opens (each VM chooses its own port; the guest's peers judge them), and frames other
 * than TCP, UDP and echo replies (idempotent, or judged by their client). Nor connections that the world's rules exempt
 * (ruled.ts), whichever of them it has: those of one service with one host, and no others.
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
import { WEB_PORT } from '../guest/web.ts';
import { EXEMPT_HOST, RULED_PORT } from '../ruled.ts';
import { ToldOnce } from './told-once.ts';

const FIN = 1;
const SYN = 2;
const RST = 4;
const ACK = 16;

/** `content`: the bytes since the last commit, which begin at `from`. The other VM may have sent different ones. */
type Stream = {
  isn: number;
  end: number;
  ack: number;
  /** The right edge of the window that the VM has promised. */
  edge: number;
  from: number;
  content: Uint8Array;
  length: number;
};

/** The fields of the frame that was read last. */
const fields = {
  kind: 'nothing' as 'nothing' | 'tcp' | 'datagram',
  flow: 0,
  port: 0,
  flags: 0,
  seq: 0,
  bytes: 0,
  payloadAt: 0,
  payloadEnd: 0,
  ack: 0,
  window: 0,
  hash: 0,
};

/** Reads a frame of the guest, which lies between `at` and `end`, into `fields`. */
function read(bytes: Uint8Array, at: number, end: number): void {
  fields.kind = 'nothing';
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
    if (peer === EXEMPT_HOST && get16(bytes, transport) === RULED_PORT) return;
    const header = (bytes[transport + 12] >> 4) * 4;
    fields.kind = 'tcp';
    fields.port = get16(bytes, transport);
    fields.flow = (peer * 65_536 + get16(bytes, transport)) * 65_536 + get16(bytes, transport + 2);
    fields.flags = bytes[transport + 13];
    fields.seq = get32(bytes, transport + 4);
    fields.ack = get32(bytes, transport + 8);
    fields.window = get16(bytes, transport + 14);
    const ends = (fields.flags & SYN ? 1 : 0) + (fields.flags & FIN ? 1 : 0);
    fields.payloadAt = transport + header;
    fields.payloadEnd = last;
    fields.bytes = last - transport - header + ends;
    return;
  }
  let from = transport;
  if (protocol === PROTOCOL_UDP) from += 8;
  else if (protocol === PROTOCOL_ICMP && bytes[transport] === 0) from += 4;
  else if (protocol === PROTOCOL_ICMPV6 && bytes[transport] === 129) from += 4;
  else return;
  fields.kind = 'datagram';
  let hash = Math.imul(peer + 1, 0x9e3779b1) ^ protocol;
  if (protocol === PROTOCOL_UDP) hash = Math.imul(hash ^ get32(bytes, transport), 0x01000193);
  for (; from < last; from++) hash = Math.imul(hash ^ bytes[from], 0x01000193);
  fields.hash = hash;
}

type Snapshot = {
  streams: Map<number, Stream>;
  resets: Set<number>;
  datagrams: Map<number, number>;
  count: number;
};

/** How far a VM has come with a connection. */
export type Place = {
  readonly isn: number;
  readonly end: number;
  readonly ack: number;
  readonly edge: number;
};

const NO_CONTENT = new Uint8Array(0);

function newStream({ isn, end, ack, edge }: Place): Stream {
  return { isn, end, ack, edge, from: end, content: NO_CONTENT, length: 0 };
}

/** Adds the new bytes of the frame that was just read. */
function addContent(stream: Stream, frame: Uint8Array): void {
  const at = fields.payloadAt + ((stream.end - fields.seq) | 0);
  if (at < fields.payloadAt || at > fields.payloadEnd) return;
  const more = frame.subarray(at, fields.payloadEnd);
  if (stream.length + more.length > stream.content.length) {
    const content = new Uint8Array(2 * (stream.length + more.length));
    content.set(stream.content);
    stream.content = content;
  }
  stream.content.set(more, stream.length);
  stream.length += more.length;
}

/** What comes before the one place in which two VMs' replies may differ, if a rule says so (guest/web.ts). */
const DATE_AFTER = 'HTTP/1.1 200 OK\r\nDate: ';
const DATE_BYTES = 29;

/** Whether a rule lets the stream differ at this place of its content. */
function mayDiffer({ content }: Stream, at: number): boolean {
  if (fields.port !== WEB_PORT) return false;
  for (let from = Math.max(DATE_AFTER.length, at - DATE_BYTES + 1); from <= at; from++) {
    let i = 0;
    while (i < DATE_AFTER.length && content[from - DATE_AFTER.length + i] === DATE_AFTER.charCodeAt(i)) i++;
    if (i === DATE_AFTER.length) return true;
  }
  return false;
}

/** Returns true if the frame that was just read has the stream's bytes, as far as both have any. `place`: of its first. */
function hasSameBytes(stream: Stream, bytes: Uint8Array, place: number): boolean {
  const ahead = ((stream.from - stream.isn) | 0) - place;
  for (let i = Math.max(0, ahead); i < fields.payloadEnd - fields.payloadAt; i++) {
    const at = i - ahead;
    if (at >= stream.length) break;
    if (stream.content[at] !== bytes[fields.payloadAt + i] && !mayDiffer(stream, at)) return false;
  }
  return true;
}

/** The primary's VM may have sent the last bytes of its partner within a longer segment, which leaves whole. */
const SEGMENT_BYTES_MAX = 1460;

/** No two places of one connection are further apart. */
const NEAR_BYTES = 1 << 20;

export type Sent = { ends: { flow: number; isn: number; place: number }[]; datagrams: number[] };

/** The output of one VM, and the output that came with the state it loaded. */
export class SentOutput {
  private streams = new Map<number, Stream>();
  /** Flows in which it has sent an RST. */
  private resets = new Set<number>();
  /** By hash: how many datagrams were sent before it. */
  private datagrams = new Map<number, number>();
  private count = 0;
  /** Flows that have said something new; the rule that looks at them empties it. */
  readonly moved = new Set<number>();
  private given: Snapshot | null = null;
  /** Nobody compares with what a primary sends. */
  private notesContent = false;

  add(frame: Uint8Array): void {
    read(frame, 0, frame.length);
    if (fields.kind === 'datagram') {
      if (!this.datagrams.has(fields.hash)) this.datagrams.set(fields.hash, this.count);
      this.count++;
    }
    if (fields.kind !== 'tcp') return;
    const { flow, flags, seq, ack } = fields;
    if ((flags & RST) !== 0) {
      this.resets.add(flow);
      return;
    }
    const end = (seq + fields.bytes) | 0;
    const edge = (ack + fields.window) | 0;
    const stream = this.streams.get(flow);
    if ((flags & SYN) !== 0 && stream?.isn !== seq) {
      this.streams.set(flow, newStream({ isn: seq, end, ack, edge }));
      return;
    }
    if (stream === undefined) return;
    if (((end - stream.end) | 0) > 0) {
      if (this.notesContent) addContent(stream, frame);
      stream.end = end;
      this.moved.add(flow);
    }
    if ((flags & ACK) === 0) return;
    if (((edge - stream.edge) | 0) > 0) stream.edge = edge;
    if (((ack - stream.ack) | 0) <= 0) return;
    stream.ack = ack;
    this.moved.add(flow);
  }

  /** Its state is copied now. */
  snapshot(): Snapshot {
    this.notesContent = false;
    const streams = new Map<number, Stream>();
    for (const [flow, stream] of this.streams) streams.set(flow, newStream(stream));
    return { streams, resets: new Set(this.resets), datagrams: this.datagrams, count: this.count };
  }

  /** It has another VM's whole state, which replaces its own output. */
  become(state: Snapshot): void {
    this.streams = new Map();
    for (const [flow, stream] of state.streams) this.streams.set(flow, newStream(stream));
    this.notesContent = true;
    this.resets = new Set(state.resets);
    this.datagrams = new Map();
    this.count = 0;
    this.given = state;
  }

  /** Returns the same output, which grows no more: a new connection on the ports of an old one would take its place. */
  copy(): SentOutput {
    const copy = new SentOutput();
    for (const [flow, stream] of this.streams) copy.streams.set(flow, { ...stream });
    copy.resets = new Set(this.resets);
    copy.datagrams = new Map(this.datagrams);
    copy.count = this.count;
    copy.given = this.given;
    return copy;
  }

  /** Returns its output since it became a copy. */
  sinceCommit(): Sent {
    const ends: Sent['ends'] = [];
    for (const [flow, { isn, end, from }] of this.streams)
      if (((end - from) | 0) > 0) ends.push({ flow, isn, place: (end - isn) | 0 });
    return { ends, datagrams: [...this.datagrams.keys()] };
  }

  stream(flow: number): Stream | undefined {
    return this.streams.get(flow);
  }

  hasReset(flow: number): boolean {
    return this.resets.has(flow);
  }

  hasDatagram(hash: number): boolean {
    if (this.datagrams.has(hash)) return true;
    const index = this.given?.datagrams.get(hash);
    return index !== undefined && index < (this.given as Snapshot).count;
  }
}

/** The streams as they were released to clients; judges each released frame. */
export class OutputCommit {
  /** The initial sequence number of each; null if the guest opened it. */
  private readonly isns = new Map<number, number | null>();
  private readonly releasedTo = new Map<number, number>();
  private readonly releasedAck = new Map<number, number>();
  private readonly datagrams = new Set<number>();
  readonly told = new ToldOnce();

  /** Judges a frame that is written to an uplink. `partner`: the output of the VM that must have sent it; null if none. */
  released(bytes: Uint8Array, at: number, end: number, partner: SentOutput | null): string | null {
    read(bytes, at, end);
    if (fields.kind === 'nothing') return null;
    if (fields.kind === 'datagram') {
      this.datagrams.add(fields.hash);
      if (partner === null || partner.hasDatagram(fields.hash)) return null;
      return 'a datagram was released that its VM has not sent';
    }
    const { flow, flags, seq, ack } = fields;
    if ((flags & RST) !== 0) {
      const isOfGuest = (this.isns.get(flow) ?? null) === null;
      if (isOfGuest || partner === null || partner.hasReset(flow)) return null;
      return 'a reset was released that its VM has not sent';
    }
    if ((flags & SYN) !== 0) {
      const first = (flags & ACK) !== 0 ? seq : null;
      if (this.isns.get(flow) !== first) {
        this.releasedTo.set(flow, 0);
        this.releasedAck.set(flow, ack);
      }
      this.isns.set(flow, first);
    }
    const isn = this.isns.get(flow);
    if (isn === null || isn === undefined) return null;
    this.releasedTo.set(flow, Math.max(this.releasedTo.get(flow) ?? 0, (seq + fields.bytes - isn) | 0));
    if ((flags & ACK) !== 0 && ((ack - (this.releasedAck.get(flow) ?? ack)) | 0) >= 0)
      this.releasedAck.set(flow, ack);
    const { payloadAt, payloadEnd } = fields;
    if (fields.port === WEB_PORT && (flags & SYN) === 0) {
      const text = this.told.released(flow, isn, (seq - isn) | 0, bytes, payloadAt, payloadEnd);
      if (text !== null) return text;
    }
    if (partner === null) return null;
    const stream = partner.stream(flow);
    if (stream === undefined) return 'a segment was released of a connection that its VM does not know';
    const place = (seq + fields.bytes - isn) | 0;
    const has = (stream.end - stream.isn) | 0;
    if (place > has) return `a stream was released up to ${place}, its VM has sent ${has}`;
    if ((flags & SYN) === 0 && !hasSameBytes(stream, bytes, (seq - isn) | 0))
      return 'a stream was released with other bytes than its VM has sent';
    const ahead = (ack - stream.ack) | 0;
    if ((flags & ACK) === 0) return null;
    if (ahead > 0) return `an ACK was released that is ${ahead} ahead of its VM`;
    const beyond = (ack + fields.window - stream.edge) | 0;
    return beyond > 0 ? `a window was released that ends ${beyond} beyond its VM's` : null;
  }

  /**
   * Both VMs have come that far with a connection. Returns what of it clients were not sent. The numbers of two connections on
   * the same ports are far apart.
   */
  unsaid(flow: number, primary: Place, secondary: Place): string | null {
    const isn = this.isns.get(flow);
    const releasedAck = this.releasedAck.get(flow);
    if (isn === null || isn === undefined || releasedAck === undefined) return null;
    const ack = ((primary.ack - secondary.ack) | 0) < 0 ? primary.ack : secondary.ack;
    const unacknowledged = (ack - releasedAck) | 0;
    if (Math.abs((primary.ack - secondary.ack) | 0) > NEAR_BYTES || Math.abs(unacknowledged) > NEAR_BYTES)
      return null;
    const place = Math.min((primary.end - primary.isn) | 0, (secondary.end - secondary.isn) | 0);
    const isBehind = ((secondary.end - secondary.isn) | 0) < ((primary.end - primary.isn) | 0);
    const unsent = place - (this.releasedTo.get(flow) ?? 0) - (isBehind ? SEGMENT_BYTES_MAX : 0);
    if (unsent > 0) return `both VMs have sent ${unsent} bytes that clients were not sent`;
    if (unacknowledged <= 0) return null;
    return `both VMs have acknowledged ${unacknowledged} bytes of which clients were not told`;
  }

  /** Returns what is wrong with holding a frame of a VM: that clients were sent all its bytes before. `sent`: of that VM. */
  repetition(frame: Uint8Array, at: number, end: number, sent: SentOutput): string | null {
    read(frame, at, end);
    if (fields.kind !== 'tcp' || (fields.flags & (SYN | RST)) !== 0 || fields.bytes === 0) return null;
    const { flow } = fields;
    const stream = sent.stream(flow);
    const isn = this.isns.get(flow);
    if (isn === null || isn === undefined || stream === undefined) return null;
    if (Math.abs((fields.ack - (this.releasedAck.get(flow) ?? 0)) | 0) > NEAR_BYTES) return null;
    const place = (fields.seq + fields.bytes - stream.isn) | 0;
    if (place > (this.releasedTo.get(flow) ?? 0)) return null;
    return `a retransmission of bytes up to ${place}, which clients were sent before, is held`;
  }

  /**
   * All that a promoted VM had sent must have been released. If the VM has begun another connection on the same ports by
   * `now`, the client was done with the one before, and what was released is the new one's.
   */
  missing({ ends, datagrams }: Sent, now: SentOutput): string | null {
    for (const hash of datagrams)
      if (!this.datagrams.has(hash)) return 'a datagram that the promoted VM had sent was never released';
    for (const { flow, isn, place } of ends) {
      if (now.stream(flow)?.isn !== isn) continue;
      const to = this.releasedTo.get(flow);
      // A stream of which nothing was released was opened by the guest, or has ended.
      if (to !== undefined && this.isns.get(flow) !== null && to < place)
        return `the promoted VM had sent a stream up to ${place}, ${to} were released`;
    }
    return null;
  }
}
