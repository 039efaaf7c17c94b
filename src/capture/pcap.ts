/**
 * Reads pcap files (draft-ietf-opsawg-pcap): a header of 24 bytes, then records of 16 bytes and a frame each. The magic
 * number gives the byte order, and whether times are in micro- or nanoseconds.
 */
import type { ByteWindow } from './byte-window.ts';
import {
  type CapturedFrame,
  contradiction,
  FRAME_BYTES_MAX,
  type LeftOut,
  LINKTYPE_ETHERNET,
  notACapture,
  tooLong,
  wrongLinkType,
} from './captured-frame.ts';

const MAGIC_MICROSECONDS = 0xa1b2c3d4;
const MAGIC_NANOSECONDS = 0xa1b23c4d;
const FILE_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
const VERSION_MAJOR = 2;

export function isPcap(view: DataView, at: number): boolean {
  return isMagic(view.getUint32(at)) || isMagic(view.getUint32(at, true));
}

function isMagic(word: number): boolean {
  return word === MAGIC_MICROSECONDS || word === MAGIC_NANOSECONDS;
}

export class PcapReader {
  private readonly window: ByteWindow;
  private readonly file: string;
  private readonly leftOut: LeftOut;
  private started = false;
  private littleEndian = false;
  private fractionsPerMs = 1000;
  private frames = 0;

  constructor(window: ByteWindow, file: string, leftOut: LeftOut) {
    this.window = window;
    this.file = file;
    this.leftOut = leftOut;
  }

  next(frame: CapturedFrame): boolean {
    const { window } = this;
    if (!this.started && !this.start()) return false;
    for (;;) {
      if (window.left < RECORD_HEADER_BYTES) return false;
      const { at, view, offset } = window;
      const captured = view.getUint32(at + 8, this.littleEndian);
      const original = view.getUint32(at + 12, this.littleEndian);
      // Where the next record begins is not known.
      if (captured > FRAME_BYTES_MAX) throw tooLong(captured, this.file, offset);
      if (window.left < RECORD_HEADER_BYTES + captured) return false;
      this.frames++;
      const wrong = contradiction(captured, original, this.file, offset);
      if (wrong === null) {
        this.fill(frame, captured, original);
        return true;
      }
      this.leftOut.addRecord(wrong);
      window.skip(RECORD_HEADER_BYTES + captured);
    }
  }

  private fill(frame: CapturedFrame, captured: number, original: number): void {
    const { window } = this;
    const { at, view } = window;
    const seconds = view.getUint32(at, this.littleEndian);
    const fraction = view.getUint32(at + 4, this.littleEndian);
    frame.number = this.frames;
    frame.timeMs = seconds * 1000 + fraction / this.fractionsPerMs;
    frame.bytes = window.bytes;
    frame.at = at + RECORD_HEADER_BYTES;
    frame.length = captured;
    frame.originalLength = original;
    window.skip(RECORD_HEADER_BYTES + captured);
  }

  /** Offset of the next record, which may not be complete yet. */
  get offset(): number {
    return this.window.offset;
  }

  private start(): boolean {
    const { window, file } = this;
    if (window.left < FILE_HEADER_BYTES) {
      if (window.ended) throw notACapture(file, `ends within its header, after ${window.left} bytes`);
      return false;
    }
    const { at, view } = window;
    this.littleEndian = !isMagic(view.getUint32(at));
    const magic = view.getUint32(at, this.littleEndian);
    if (magic === MAGIC_NANOSECONDS) this.fractionsPerMs = 1_000_000;
    const version = view.getUint16(at + 4, this.littleEndian);
    if (version !== VERSION_MAJOR)
      throw notACapture(file, `is pcap of version ${version}, not ${VERSION_MAJOR}`);
    // The upper half describes frame check sequences (draft-ietf-opsawg-pcap, section 4).
    const linkType = view.getUint32(at + 20, this.littleEndian) & 0xffff;
    if (linkType !== LINKTYPE_ETHERNET) throw wrongLinkType(linkType, file);
    window.skip(FILE_HEADER_BYTES);
    this.started = true;
    return true;
  }
}
