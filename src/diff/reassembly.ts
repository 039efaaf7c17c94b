/**
 * The fragments of one recording, put together: a replay compares datagrams, however each VM cut them.
 *
 * A datagram is whole when its last fragment is there and no byte is missing. It then counts as one frame, with the number of
 * its first fragment that was captured and the time of the last. Fragments may come in any order, and twice. One that was cut when
 * captured makes its whole datagram one that was cut.
 *
 * Not put together: a datagram of which the recording lacks a fragment, and one whose fragments overlap, which a receiver may
 * read in several ways (RFC 5722). They are counted.
 *
 * Limits: DATAGRAMS_MAX incomplete datagrams, the oldest is given up; a fragment that comes OPEN_MS after the first one of its
 * datagram belongs to another, since VMs use identifications again.
 */
import { writeU16 } from '../wire/bytes.ts';
import { IP_LENGTH_MAX, IPV4 } from '../wire/ipv4.ts';
import { IPV6 } from '../wire/ipv6.ts';
import type { PacketView } from '../wire/packet.ts';
import { copied, type RecordedFrame } from './recorded-frame.ts';

const DATAGRAMS_MAX = 1024;
const OPEN_MS = 2000;

type Piece = { from: number; to: number; bytes: Uint8Array };

type Datagram = {
  readonly number: number;
  readonly sinceMs: number;
  readonly pieces: Piece[];
  /** Everything before the payload, from the fragment at 0: Ethernet, tags and the IP header. */
  head: Uint8Array | null;
  bytes: number;
  /** Payload bytes of the whole datagram, known from its last fragment. */
  total: number | null;
  cut: boolean;
  refused: boolean;
};

export class Reassembly {
  private readonly open = new Map<string, Datagram>();
  private givenUp = 0;

  /** Number of datagrams that were not put together. */
  get incomplete(): number {
    return this.givenUp + this.open.size;
  }

  /** Takes the fragment in the view. Returns the whole datagram if it was the last one that was missing, else null. */
  take(frame: RecordedFrame, view: PacketView): RecordedFrame | null {
    const key = keyOf(frame.bytes, view);
    const datagram = this.datagramOf(key, frame);
    const { fragmentOffset: from, payloadBytes } = view;
    const to = from + payloadBytes;
    if (datagram.pieces.some((piece) => piece.from === from && piece.to === to)) return null;
    if (datagram.pieces.some((piece) => piece.from < to && from < piece.to)) datagram.refused = true;
    if (!view.moreFragments) {
      if (datagram.total !== null) datagram.refused = true;
      datagram.total = to;
    }
    if (from === 0) datagram.head = headOf(frame, view);
    if (frame.length < frame.originalLength) datagram.cut = true;
    const end = Math.min(view.payload + payloadBytes, frame.at + frame.length);
    datagram.pieces.push({ from, to, bytes: copied(frame.bytes, view.payload, Math.max(view.payload, end)) });
    datagram.bytes += payloadBytes;
    if (datagram.refused || datagram.bytes !== datagram.total || datagram.head === null) return null;
    this.open.delete(key);
    const whole = wholeOf(datagram, datagram.head, frame, view);
    if (whole === null) this.givenUp++;
    return whole;
  }

  private datagramOf(key: string, { number, ms }: RecordedFrame): Datagram {
    const known = this.open.get(key);
    if (known !== undefined && ms - known.sinceMs <= OPEN_MS) return known;
    if (known !== undefined) this.giveUp(key);
    const datagram: Datagram = {
      number,
      sinceMs: ms,
      pieces: [],
      head: null,
      bytes: 0,
      total: null,
      cut: false,
      refused: false,
    };
    this.open.set(key, datagram);
    if (this.open.size > DATAGRAMS_MAX) {
      const [oldest] = this.open.keys();
      this.giveUp(oldest);
    }
    return datagram;
  }

  private giveUp(key: string): void {
    this.open.delete(key);
    this.givenUp++;
  }
}

function keyOf(bytes: Uint8Array, { vlan, ipVersion, protocol, fragmentId, sourceAt }: PacketView): string {
  // Both addresses, which follow each other.
  const addresses = bytes.subarray(sourceAt, sourceAt + (ipVersion === 4 ? 8 : 32));
  return `${vlan}/${protocol}/${fragmentId}/${addresses.join('.')}`;
}

/** Returns everything before the payload as it is in a datagram that is in one piece, but for the length. */
function headOf({ bytes, at }: RecordedFrame, view: PacketView): Uint8Array {
  const l3 = view.l3 - at;
  const length = view.ipVersion === 4 ? view.payload - at : l3 + IPV6.headerBytes;
  const head = copied(bytes, at, at + length);
  if (view.ipVersion === 4) writeU16(head, l3 + IPV4.fragment, 0);
  else head[l3 + IPV6.nextHeader] = view.protocol;
  return head;
}

/** Returns null if there is no such datagram: it would be too long. */
function wholeOf(
  { number, pieces, cut, total }: Datagram,
  head: Uint8Array,
  last: RecordedFrame,
  view: PacketView,
): RecordedFrame | null {
  const l3 = view.l3 - last.at;
  const length = head.length + (total ?? 0);
  const ipBytes = view.ipVersion === 4 ? length - l3 : length - l3 - IPV6.headerBytes;
  if (ipBytes > IP_LENGTH_MAX) return null;
  const bytes = new Uint8Array(length);
  bytes.set(head);
  writeU16(bytes, l3 + (view.ipVersion === 4 ? IPV4.totalLength : IPV6.payloadLength), ipBytes);
  for (const piece of pieces) bytes.set(piece.bytes, head.length + piece.from);
  const { fileMs, ms } = last;
  return { bytes, at: 0, length, originalLength: cut ? length + 1 : length, number, fileMs, ms };
}
