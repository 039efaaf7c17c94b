/**
 * A capture file on the disk, read once in pieces, since captures are larger than memory. Compressed ones (gzip, as Wireshark
 * and tcpdump -w - | gzip write them) are unpacked.
 */
import { closeSync, createReadStream, fstatSync, openSync, type ReadStream, readSync } from 'node:fs';
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
  private readonly raw: ReadStream;
  private readonly reader: CaptureReader;
  private readonly chunks: AsyncIterator<Uint8Array>;
  private ended = false;

  constructor(path: string) {
    this.path = path;
    const { bytes, gzip } = probe(path);
    this.bytesTotal = bytes;
    this.raw = createReadStream(path, { highWaterMark: READ_BYTES });
    let stream: Readable = this.raw;
    if (gzip) {
      // A capture that was killed has no gzip trailer; Z_SYNC_FLUSH reads it to its end all the same.
      const gunzip = createGunzip({ chunkSize: READ_BYTES, finishFlush: constants.Z_SYNC_FLUSH });
      this.raw.on('error', (error) => gunzip.destroy(error));
      stream = this.raw.pipe(gunzip);
    }
    this.chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
    this.reader = new CaptureReader(path);
  }

  /** Bytes read from the disk so far. */
  get bytesRead(): number {
    return this.raw.bytesRead;
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
    const { value, done } = await this.chunks.next().catch((error: NodeJS.ErrnoException) => {
      const known = unreadable(this.path, error);
      if (known.code !== 'COLO_PCAP_GARBLED') throw known;
      this.reader.noteDamage(known);
      return { value: new Uint8Array(0), done: true };
    });
    if (done === true) {
      this.ended = true;
      this.reader.end();
    } else this.reader.push(value);
    return true;
  }

  close(): void {
    this.raw.destroy();
  }
}

function probe(path: string): { bytes: number; gzip: boolean } {
  let fd: number | null = null;
  try {
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
