/**
 * A capture file on the disk, read once in pieces, since captures are larger than memory. Compressed ones (gzip, as Wireshark
 * and tcpdump -w - | gzip write them) are unpacked.
 *
 * A plain file is read into one buffer: buffers of a stream, one for each read, would wait for the garbage collector by the
 * hundred, and double the memory of `colo diff`.
 */
import { closeSync, createReadStream, fstatSync, openSync, readSync, statSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { constants, createGunzip } from 'node:zlib';
import { ColoError } from '../error.ts';
import { CaptureReader } from './capture-reader.ts';
import type { CapturedFrame, LeftOut } from './captured-frame.ts';

const READ_BYTES = 256 * 1024;
const GZIP_MAGIC = 0x1f8b;

export class CaptureFile {
  readonly path: string;
  /** of the file on the disk, compressed or not */
  readonly bytesTotal: number;
  private readonly source: Source;
  private readonly reader: CaptureReader;
  private ended = false;

  constructor(path: string) {
    this.path = path;
    const { bytes, gzip } = probe(path);
    this.bytesTotal = bytes;
    this.source = gzip ? unpacked(path) : plain(path);
    this.reader = new CaptureReader(path);
  }

  /** Bytes read from the disk so far. */
  get bytesRead(): number {
    return this.source.bytesRead();
  }

  get timeless(): number {
    return this.reader.timeless;
  }

  get cutAt(): number | null {
    return this.reader.cutAt;
  }

  get leftOut(): LeftOut {
    return this.reader.leftOut;
  }

  get damage(): ColoError | null {
    return this.reader.damage;
  }

  /** Reads the next frame. Returns false if `more` has to be called first. */
  next(frame: CapturedFrame): boolean {
    return this.reader.next(frame);
  }

  /** Reads more of the file. Resolves with false once the end has been reached; `next` may still have frames then. */
  async more(): Promise<boolean> {
    if (this.ended || this.damage !== null) return false;
    let chunk: Uint8Array | null = null;
    try {
      chunk = await this.source.next();
    } catch (error) {
      const known = unreadable(this.path, error as NodeJS.ErrnoException);
      if (known.code !== 'COLO_PCAP_GARBLED') throw known;
      this.reader.noteDamage(known);
    }
    if (chunk === null) {
      this.ended = true;
      this.reader.end();
    } else this.reader.push(chunk);
    return true;
  }

  close(): void {
    this.source.close();
  }
}

/** Where the bytes come from; `next` resolves with null at the end, and what it gave before is void then. */
type Source = { next(): Promise<Uint8Array | null>; bytesRead(): number; close(): void };

function plain(path: string): Source {
  let fd: number | null = openSync(path, 'r');
  const buffer = new Uint8Array(READ_BYTES);
  let bytesRead = 0;
  return {
    async next() {
      const read = fd === null ? 0 : readSync(fd, buffer, 0, READ_BYTES, null);
      bytesRead += read;
      return read === 0 ? null : buffer.subarray(0, read);
    },
    bytesRead: () => bytesRead,
    close() {
      if (fd !== null) closeSync(fd);
      fd = null;
    },
  };
}

function unpacked(path: string): Source {
  const raw = createReadStream(path, { highWaterMark: READ_BYTES });
  // A capture that was killed has no gzip trailer; Z_SYNC_FLUSH reads it to its end all the same.
  const gunzip = createGunzip({ chunkSize: READ_BYTES, finishFlush: constants.Z_SYNC_FLUSH });
  raw.on('error', (error) => gunzip.destroy(error));
  const stream: Readable = raw.pipe(gunzip);
  const chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  return {
    async next() {
      const { value, done } = await chunks.next();
      return done === true ? null : value;
    },
    bytesRead: () => raw.bytesRead,
    close: () => raw.destroy(),
  };
}

function probe(path: string): { bytes: number; gzip: boolean } {
  let fd: number | null = null;
  try {
    // To open a named pipe would wait for who writes to it.
    if (statSync(path).isFIFO()) throw Object.assign(new Error('a pipe'), { code: 'ESPIPE' });
    fd = openSync(path, 'r');
    const head = Buffer.alloc(2);
    const read = readSync(fd, head, 0, 2, 0);
    return { bytes: fstatSync(fd).size, gzip: read === 2 && head.readUInt16BE() === GZIP_MAGIC };
  } catch (error) {
    throw unreadable(path, error as NodeJS.ErrnoException);
  } finally {
    if (fd !== null) closeSync(fd);
  }
}

function unreadable(path: string, error: NodeJS.ErrnoException): ColoError {
  const code = error.code ?? '';
  if (code.startsWith('Z_'))
    return new ColoError(
      'COLO_PCAP_GARBLED',
      `${path} cannot be unpacked (${error.message}); the gzip file is damaged`,
    );
  const known: Record<string, string> = {
    ENOENT: 'there is no such file',
    EACCES: 'this user may not read it',
    EISDIR: 'it is a directory',
    ESPIPE: 'it is not a file, and it has to be read twice',
  };
  return new ColoError('COLO_PCAP_READ', `cannot read ${path}: ${known[code] ?? error.message}`, {
    cause: error,
  });
}
