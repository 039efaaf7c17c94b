/** IP fragments put together in a plain way: makes the datagram one frame, for `read` in output-commit.ts. */
import { PACKET, PacketView, parsePacket } from '../../src/wire/packet.ts';
import { read, type Said } from './output-commit.ts';

type Piece = {
  datagram: string;
  offset: number;
  more: boolean;
  bytes: Buffer;
  frame: Buffer;
  view: PacketView;
};

/** A complete datagram: what it carries, and the numbers of its frames. */
export type Whole = { said: Said; numbers: number[] };

/** One VM's fragments since the last checkpoint. */
export class Pieces {
  private readonly begun = new Map<string, { piece: Piece; number: number }[]>();

  /** Returns the datagram that this fragment completes; null if one is missing or two contradict each other. */
  add(frame: Buffer, number: number): Whole | null {
    const piece = readPiece(frame);
    if (piece === null) return null;
    const all = [...(this.begun.get(piece.datagram) ?? []), { piece, number }];
    this.begun.set(piece.datagram, all);
    const sorted = all.map((one) => one.piece).sort((a, b) => a.offset - b.offset);
    let at = 0;
    for (const { offset, bytes } of sorted) {
      if (offset !== at) return null;
      at += bytes.length;
    }
    const ends = sorted.filter(({ more }) => !more);
    if (ends.length !== 1 || ends[0] !== sorted.at(-1)) return null;
    this.begun.delete(piece.datagram);
    return { said: together(sorted), numbers: all.map((one) => one.number) };
  }

  clear(): void {
    this.begun.clear();
  }
}

export function isPiece(frame: Buffer): boolean {
  return readPiece(frame) !== null;
}

function readPiece(frame: Buffer): Piece | null {
  const view = new PacketView();
  if (parsePacket(frame, 0, frame.length, view) === PACKET.malformed || !view.fragment) return null;
  const addresses = frame.subarray(view.sourceAt, view.sourceAt + (view.ipVersion === 4 ? 8 : 32));
  return {
    datagram: [view.vlan, view.protocol, addresses.toString('hex'), view.fragmentId].join(),
    offset: view.fragmentOffset,
    more: view.moreFragments,
    bytes: frame.subarray(view.payload, view.end),
    frame,
    view,
  };
}

function together(pieces: Piece[]): Said {
  const { frame, view, datagram } = pieces[0];
  const body = Buffer.concat(pieces.map(({ bytes }) => bytes));
  const header = Buffer.from(frame.subarray(0, view.ipVersion === 4 ? view.l4 : view.l3 + 40));
  if (view.ipVersion === 4) {
    header.writeUInt16BE(view.l4 - view.l3 + body.length, view.l3 + 2);
    header.writeUInt16BE(0, view.l3 + 6);
  } else {
    header.writeUInt16BE(body.length, view.l3 + 4);
    header[view.l3 + 6] = view.protocol;
  }
  const said = read(Buffer.concat([header, body]));
  if (said !== null && said.tcp === null) return { ...said, harmless: false };
  // TCP in fragments is compared whole, and so is what makes no sense.
  const flow = `pieces ${datagram.slice(0, datagram.lastIndexOf(','))}`;
  return { flow, harmless: false, bytes: body.toString('latin1'), tcp: null };
}
