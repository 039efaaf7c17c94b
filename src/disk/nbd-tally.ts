/**
 * Counts the requests of an NBD connection that have no reply yet: a connection is stalled only if somebody waits for it.
 *
 * It follows the framing of both directions and looks at nothing else: NBD's fixed newstyle negotiation, requests and replies in both
 * forms, compact and extended, with structured replies (the protocol's document, doc/proto.md of the NBD project; QEMU's client uses
 * no other). During the negotiation an option counts as a request until the server has acknowledged or refused it.
 *
 * Failure: bytes that are no such message return a text that says what they are; the connection is of no use then.
 */

/** What an NBD server sends first: two magic numbers and its flags. */
export const NBD_GREETING_BYTES = 18;
const GREETING = Buffer.from('NBDMAGICIHAVEOPT');
const CLIENT_FLAGS_BYTES = 4;

/** The first four bytes of each message. */
const MAGIC = {
  option: 0x49484156,
  request: 0x25609513,
  extendedRequest: 0x21e41c71,
  optionReply: 0x0003e889,
  simpleReply: 0x67446698,
  structuredReply: 0x668e33ef,
  extendedReply: 0x6e8a278c,
} as const;
const HEADER_BYTES_MAX = 32;
const COMMAND = { write: 1, disconnect: 2 } as const;
const FLAG_PAYLOAD = 1 << 5;
const REPLY_DONE = 1;
const OPTION_EXPORT_NAME = 1;
const OPTION_ACK = 1;
const OPTION_ERROR = 0x8000_0000;

/** What a header means: how many bytes follow it, and by how much the number of open requests changes. */
type Meaning = { readonly payload: number; readonly change: -1 | 0 | 1 };

/** Cuts one direction into messages. */
class Cutter {
  private readonly header = Buffer.alloc(HEADER_BYTES_MAX);
  private have = 0;
  private skip = 0;
  private isFirst = true;
  private readonly firstBytes: number;
  private readonly first: (header: Buffer) => string | null;
  private readonly headerBytes: (magic: number) => number | null;
  private readonly meaning: (header: Buffer, magic: number) => Meaning | string;
  private readonly change: (by: number) => void;

  constructor(options: {
    firstBytes: number;
    first: (header: Buffer) => string | null;
    headerBytes: (magic: number) => number | null;
    meaning: (header: Buffer, magic: number) => Meaning | string;
    change: (by: number) => void;
  }) {
    this.firstBytes = options.firstBytes;
    this.first = options.first;
    this.headerBytes = options.headerBytes;
    this.meaning = options.meaning;
    this.change = options.change;
  }

  /** Returns what is wrong with the bytes, or null. */
  take(bytes: Uint8Array): string | null {
    for (let at = 0; at < bytes.length; ) {
      if (this.skip > 0) {
        const skipped = Math.min(this.skip, bytes.length - at);
        this.skip -= skipped;
        at += skipped;
        continue;
      }
      const wanted = this.wantedBytes();
      if (wanted === null) return `a message that begins with ${this.header.toString('hex', 0, 4)}`;
      const taken = Math.min(wanted - this.have, bytes.length - at);
      this.header.set(bytes.subarray(at, at + taken), this.have);
      this.have += taken;
      at += taken;
      const problem = this.have === this.wantedBytes() ? this.whole() : null;
      if (problem !== null) return problem;
    }
    return null;
  }

  /** Null: no message begins like that. */
  private wantedBytes(): number | null {
    if (this.isFirst) return this.firstBytes;
    return this.have < 4 ? 4 : this.headerBytes(this.header.readUInt32BE(0));
  }

  private whole(): string | null {
    this.have = 0;
    if (this.isFirst) {
      this.isFirst = false;
      return this.first(this.header);
    }
    const meaning = this.meaning(this.header, this.header.readUInt32BE(0));
    if (typeof meaning === 'string') return meaning;
    if (!Number.isSafeInteger(meaning.payload)) return `a payload of ${meaning.payload} bytes`;
    this.skip = meaning.payload;
    this.change(meaning.change);
    return null;
  }
}

export class NbdTally {
  private waiting = 0;
  private readonly client: Cutter;
  private readonly server: Cutter;

  constructor() {
    const change = (by: number): void => {
      this.waiting += by;
    };
    this.client = new Cutter({
      firstBytes: CLIENT_FLAGS_BYTES,
      first: () => null,
      headerBytes: clientHeaderBytes,
      meaning: clientMeaning,
      change,
    });
    this.server = new Cutter({
      firstBytes: NBD_GREETING_BYTES,
      first: (header) =>
        header.subarray(0, GREETING.length).equals(GREETING) ? null : 'no greeting of an NBD server',
      headerBytes: serverHeaderBytes,
      meaning: serverMeaning,
      change,
    });
  }

  /** Requests, and options of the negotiation, that have no reply yet. */
  get outstanding(): number {
    return this.waiting;
  }

  /** Takes bytes that the client has sent; returns what is wrong with them, or null. */
  fromClient(bytes: Uint8Array): string | null {
    return this.client.take(bytes);
  }

  /** Takes bytes that the server has sent; returns what is wrong with them, or null. */
  fromServer(bytes: Uint8Array): string | null {
    const problem = this.server.take(bytes);
    return problem ?? (this.waiting < 0 ? 'a reply to no request' : null);
  }
}

function clientHeaderBytes(magic: number): number | null {
  if (magic === MAGIC.option) return 16;
  if (magic === MAGIC.request) return 28;
  return magic === MAGIC.extendedRequest ? 32 : null;
}

function clientMeaning(header: Buffer, magic: number): Meaning | string {
  if (magic === MAGIC.option) {
    // Its reply has no header, and no client has needed it for years.
    if (header.readUInt32BE(8) === OPTION_EXPORT_NAME) return 'the option EXPORT_NAME';
    return { payload: header.readUInt32BE(12), change: 1 };
  }
  const isExtended = magic === MAGIC.extendedRequest;
  const flags = header.readUInt16BE(4);
  const command = header.readUInt16BE(6);
  const length = isExtended ? uint64(header, 24) : header.readUInt32BE(24);
  // QEMU's client leaves the flag out of a write, which always has a payload.
  const hasPayload = command === COMMAND.write || (isExtended && (flags & FLAG_PAYLOAD) !== 0);
  // A client that takes leave gets no reply.
  return { payload: hasPayload ? length : 0, change: command === COMMAND.disconnect ? 0 : 1 };
}

function serverHeaderBytes(magic: number): number | null {
  if (magic === MAGIC.simpleReply) return 16;
  if (magic === MAGIC.optionReply || magic === MAGIC.structuredReply) return 20;
  return magic === MAGIC.extendedReply ? 32 : null;
}

function serverMeaning(header: Buffer, magic: number): Meaning {
  if (magic === MAGIC.simpleReply) return { payload: 0, change: -1 };
  if (magic === MAGIC.optionReply) {
    const type = header.readUInt32BE(12);
    const isLast = type === OPTION_ACK || type >= OPTION_ERROR;
    return { payload: header.readUInt32BE(16), change: isLast ? -1 : 0 };
  }
  const isLast = (header.readUInt16BE(4) & REPLY_DONE) !== 0;
  const payload = magic === MAGIC.extendedReply ? uint64(header, 24) : header.readUInt32BE(16);
  return { payload, change: isLast ? -1 : 0 };
}

function uint64(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at) * 2 ** 32 + bytes.readUInt32BE(at + 4);
}
