/**
 * Writes the frames at a node, and its verdicts, as a pcapng file for Wireshark: one interface for each point in the data
 * path, the verdict as a comment on each frame. Format: draft-ietf-opsawg-pcapng, little-endian throughout.
 *
 * A frame is copied into one of two buffers; while one is written to the disk the other is filled. If both are full, the
 * disk is too slow: the frame is not captured, and the next frame that is has the number of missing ones (epb_dropcount).
 * The traffic itself never waits.
 */
import { ColoError, invariant } from '../error.ts';
import { type AppendFile, fileErrorText, openAppendFile } from './append-file.ts';

/** The interfaces of every capture, by the index that `write` takes. */
export const CAPTURE_INTERFACES = ['primary-vm', 'secondary-vm', 'uplink-in', 'released'] as const;

export type CaptureEnd = {
  path: string;
  /** frames in the file, and frames for which the disk was too slow */
  frames: number;
  lost: number;
  bytes: number;
  reason: 'requested' | 'limit' | 'error';
  error: ColoError | null;
};

export type PcapngWriterOptions = {
  path: string;
  /** The file is never larger than this. */
  bytesMax: number;
  /** Called once, when the file has been closed. */
  onEnd: (end: CaptureEnd) => void;
  /** For tests. */
  open?: (path: string) => AppendFile;
};

/** About 650 full-size frames, or 2.6 ms of four interfaces at 1 Gbit/s: longer than a write to the page cache takes. */
const BUFFER_BYTES = 1 << 20;
/** Enough for a verdict with its reason and flow; a longer comment is cut. */
const COMMENT_BYTES_MAX = 512;
/** QEMU's largest frame (NET_BUFSIZE, net/net.h) plus the fixed fields and options of a block. */
const FRAME_BYTES_MAX = 69_632;
const BLOCK_OVERHEAD_MAX = 32 + 12 + 4 + COMMENT_BYTES_MAX + 8;

const BLOCK_SECTION = 0x0a0d0d0a;
const BLOCK_INTERFACE = 1;
const BLOCK_PACKET = 6;
const OPTION_END = 0;
const OPTION_COMMENT = 1;
const OPTION_IF_NAME = 2;
const OPTION_PACKET_DROPCOUNT = 4;
const OPTION_USERAPPL = 4;
const OPTION_IF_TSRESOL = 9;
const LINKTYPE_ETHERNET = 1;
/** if_tsresol: the negative power of ten, here microseconds. */
const MICROSECONDS = 6;

const TWO_POW_32 = 2 ** 32;

export class PcapngWriter {
  /** Frames that were accepted so far; at the end, frames in the file. */
  frames = 0;
  readonly path: string;

  private readonly file: AppendFile;
  private readonly bytesMax: number;
  private readonly onEnd: (end: CaptureEnd) => void;
  private readonly ended = Promise.withResolvers<void>();
  private filling: Buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  private spare: Buffer = Buffer.allocUnsafe(BUFFER_BYTES);
  private fill = 0;
  private fillFrames = 0;
  private flushScheduled = false;
  private flushing = false;
  private fileBytes = 0;
  private fileFrames = 0;
  private acceptedBytes = 0;
  private lost = 0;
  private lostSinceBlock = 0;
  private endReason: CaptureEnd['reason'] | null = null;
  private error: ColoError | null = null;

  constructor({ path, bytesMax, onEnd, open }: PcapngWriterOptions) {
    this.path = path;
    this.bytesMax = bytesMax;
    this.onEnd = onEnd;
    this.writeHeader();
    if (!Number.isSafeInteger(bytesMax) || bytesMax < this.fill) {
      throw new ColoError(
        'COLO_CAPTURE_LIMIT',
        `a capture of ${bytesMax} bytes holds no frame; allow 10000 or more`,
      );
    }
    this.acceptedBytes = this.fill;
    try {
      this.file = (open ?? ((name) => openAppendFile(name, 'wx')))(path);
    } catch (error) {
      const advice = 'choose another path, with a directory that the user of the node may write to';
      throw new ColoError(
        'COLO_CAPTURE_OPEN',
        `cannot capture to ${path}: ${fileErrorText(error)}; ${advice}`,
        { cause: error },
      );
    }
    this.scheduleFlush();
  }

  /** Copies a frame. `atMicros` is Unix time. Does nothing after the end, and counts the frame if the disk is too slow. */
  write(
    interfaceIndex: number,
    atMicros: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
    comment: string,
  ): void {
    if (this.endReason !== null) return;
    invariant(
      interfaceIndex >= 0 && interfaceIndex < CAPTURE_INTERFACES.length,
      'a frame was captured at an interface that does not exist',
    );
    invariant(length >= 0 && length <= FRAME_BYTES_MAX, 'a captured frame is larger than any frame can be');
    if (this.fill + length + 3 + BLOCK_OVERHEAD_MAX > BUFFER_BYTES && !this.swap()) {
      this.lost++;
      this.lostSinceBlock++;
      return;
    }
    const start = this.fill;
    const buffer = this.filling;
    buffer.writeUInt32LE(BLOCK_PACKET, start);
    buffer.writeUInt32LE(interfaceIndex, start + 8);
    buffer.writeUInt32LE(Math.floor(atMicros / TWO_POW_32) >>> 0, start + 12);
    buffer.writeUInt32LE(atMicros >>> 0, start + 16);
    buffer.writeUInt32LE(length, start + 20);
    buffer.writeUInt32LE(length, start + 24);
    let at = start + 28;
    buffer.set(offset === 0 && length === bytes.length ? bytes : bytes.subarray(offset, offset + length), at);
    at = pad(buffer, at + length);
    if (comment !== '') at = textOption(buffer, at, OPTION_COMMENT, comment);
    if (this.lostSinceBlock > 0) {
      buffer.writeUInt16LE(OPTION_PACKET_DROPCOUNT, at);
      buffer.writeUInt16LE(8, at + 2);
      buffer.writeUInt32LE(this.lostSinceBlock, at + 4);
      buffer.writeUInt32LE(0, at + 8);
      at += 12;
    }
    at = closeBlock(buffer, start, endOfOptions(buffer, at));
    // A block that does not fit is not begun, so the file ends with a complete one.
    if (this.acceptedBytes + at - start > this.bytesMax) {
      this.finish('limit');
      return;
    }
    this.acceptedBytes += at - start;
    this.lostSinceBlock = 0;
    this.fill = at;
    this.fillFrames++;
    this.frames++;
    this.scheduleFlush();
  }

  /** Writes every accepted frame and closes the file. Never rejects: errors go to `onEnd`. */
  end(): Promise<void> {
    this.finish('requested');
    return this.ended.promise;
  }

  private writeHeader(): void {
    const buffer = this.filling;
    buffer.writeUInt32LE(BLOCK_SECTION, 0);
    buffer.writeUInt32LE(0x1a2b3c4d, 8);
    buffer.writeUInt16LE(1, 12);
    buffer.writeUInt16LE(0, 14);
    // The length of the section is unknown: minus one.
    buffer.writeUInt32LE(0xffffffff, 16);
    buffer.writeUInt32LE(0xffffffff, 20);
    let at = closeBlock(
      buffer,
      0,
      endOfOptions(buffer, textOption(buffer, 24, OPTION_USERAPPL, 'colo-proxy')),
    );
    for (const name of CAPTURE_INTERFACES) {
      const start = at;
      buffer.writeUInt32LE(BLOCK_INTERFACE, start);
      buffer.writeUInt16LE(LINKTYPE_ETHERNET, start + 8);
      buffer.writeUInt16LE(0, start + 10);
      // No snapshot length: frames are captured whole.
      buffer.writeUInt32LE(0, start + 12);
      at = textOption(buffer, start + 16, OPTION_IF_NAME, name);
      buffer.writeUInt16LE(OPTION_IF_TSRESOL, at);
      buffer.writeUInt16LE(1, at + 2);
      buffer[at + 4] = MICROSECONDS;
      at = closeBlock(buffer, start, endOfOptions(buffer, pad(buffer, at + 5)));
    }
    this.fill = at;
  }

  /** Writes once per turn of the event loop while the disk keeps up, and more at a time when it does not. */
  private scheduleFlush(): void {
    if (this.flushScheduled || this.flushing) return;
    this.flushScheduled = true;
    setImmediate(() => {
      this.flushScheduled = false;
      this.swap();
    });
  }

  /** Writes the filling buffer and continues in the other one. Returns false if that is still being written. */
  private swap(): boolean {
    if (this.flushing) return false;
    if (this.fill === 0) {
      if (this.endReason !== null) this.close();
      return true;
    }
    const buffer = this.filling;
    const bytes = this.fill;
    const frames = this.fillFrames;
    this.filling = this.spare;
    this.spare = buffer;
    this.fill = 0;
    this.fillFrames = 0;
    this.flushing = true;
    this.file.append(buffer, bytes, (error) => {
      this.flushing = false;
      if (error !== null) {
        this.fail(error);
        return;
      }
      this.fileBytes += bytes;
      this.fileFrames += frames;
      if (this.fill > 0 || this.endReason !== null) this.swap();
    });
    return true;
  }

  private finish(reason: CaptureEnd['reason']): void {
    if (this.endReason !== null) return;
    this.endReason = reason;
    this.scheduleFlush();
  }

  private fail(error: Error): void {
    const advice = 'its content up to there is complete; make room and start another';
    const text = `the capture ${this.path} ended early: ${fileErrorText(error)}; ${advice}`;
    this.error = new ColoError('COLO_CAPTURE_WRITE', text, { cause: error });
    this.endReason = 'error';
    this.fill = 0;
    this.flushing = true;
    // Because of a partial block, readers would refuse the whole file.
    this.file.truncate(this.fileBytes, () => this.close());
  }

  private close(): void {
    invariant(this.fileBytes <= this.bytesMax, 'a capture is larger than its limit');
    this.flushing = true;
    this.frames = this.fileFrames;
    this.file.close(() => {
      this.onEnd({
        path: this.path,
        frames: this.fileFrames,
        lost: this.lost,
        bytes: this.fileBytes,
        reason: this.endReason ?? 'requested',
        error: this.error,
      });
      this.ended.resolve();
    });
  }
}

/** Writes zeros up to the next multiple of four; returns its place. Every block begins at one, so `at` may be absolute. */
function pad(buffer: Buffer, at: number): number {
  let end = at;
  while ((end & 3) !== 0) buffer[end++] = 0;
  return end;
}

function textOption(buffer: Buffer, at: number, code: number, text: string): number {
  // Node writes whole characters only, so a long text is cut between two characters.
  const bytes = buffer.write(text, at + 4, COMMENT_BYTES_MAX, 'utf8');
  buffer.writeUInt16LE(code, at);
  buffer.writeUInt16LE(bytes, at + 2);
  return pad(buffer, at + 4 + bytes);
}

function endOfOptions(buffer: Buffer, at: number): number {
  buffer.writeUInt16LE(OPTION_END, at);
  buffer.writeUInt16LE(0, at + 2);
  return at + 4;
}

/** Writes both lengths of the block that begins at `start` and whose content ends at `at`; returns its end. */
function closeBlock(buffer: Buffer, start: number, at: number): number {
  const length = at + 4 - start;
  buffer.writeUInt32LE(length, start + 4);
  buffer.writeUInt32LE(length, at);
  return at + 4;
}
