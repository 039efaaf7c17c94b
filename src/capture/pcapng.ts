/**
 * Reads pcapng files (draft-ietf-opsawg-pcapng): blocks, each with its length at both ends. A section header sets the byte
 * order and begins a new list of interfaces; an interface sets the unit of its frames' times.
 *
 * Frames are in enhanced, simple and obsolete packet blocks. Other blocks are skipped without being stored, but their
 * lengths are checked. A frame that is not Ethernet, or that contradicts its block, is left out and counted; what is wrong
 * with the lengths of the blocks themselves is an error, since the next block cannot be found.
 *
 * Limits: a block that is read has at most BLOCK_BYTES_MAX; a section has at most INTERFACES_MAX interfaces.
 */
import type { ColoError } from '../error.ts';
import type { ByteWindow } from './byte-window.ts';
import {
  type CapturedFrame,
  contradiction,
  FRAME_BYTES_MAX,
  garbled,
  type LeftOut,
  LINKTYPE_ETHERNET,
  notACapture,
  tooLong,
} from './captured-frame.ts';

/** The same in both byte orders. */
export const BLOCK_SECTION = 0x0a0d0d0a;
const BLOCK_INTERFACE = 1;
const BLOCK_OBSOLETE_PACKET = 2;
const BLOCK_SIMPLE_PACKET = 3;
const BLOCK_ENHANCED_PACKET = 6;

const BYTE_ORDER_MAGIC = 0x1a2b3c4d;
const VERSION_MAJOR = 1;
/** Type, length, and the length again. */
const BLOCK_FRAME_BYTES = 12;
/** The longest frame with a few of the longest options (64 KiB). */
const BLOCK_BYTES_MAX = 1 << 20;
const INTERFACES_MAX = 65_536;

/** The end of each block's fixed fields, before options and data. */
const FIXED_BYTES: Record<number, number> = {
  [BLOCK_SECTION]: 24,
  [BLOCK_INTERFACE]: 16,
  [BLOCK_OBSOLETE_PACKET]: 28,
  [BLOCK_SIMPLE_PACKET]: 12,
  [BLOCK_ENHANCED_PACKET]: 28,
};

const OPTION_END = 0;
const OPTION_IF_NAME = 2;
const OPTION_IF_TSRESOL = 9;
const OPTION_IF_TSOFFSET = 14;

const TWO_POW_32 = 2 ** 32;

type Interface = { name: string; linkType: number; snapLength: number; unitsPerMs: number; offsetMs: number };

export class PcapngReader {
  /** Number of frames in simple packet blocks: these have no time, and get that of the frame before. */
  timeless = 0;
  private readonly window: ByteWindow;
  private readonly file: string;
  private readonly leftOut: LeftOut;
  private littleEndian = false;
  private interfaces: Interface[] = [];
  private frames = 0;
  private lastMs = 0;
  /** length of the block that is being skipped, 0 for none, and its offset in the file */
  private skipped = 0;
  private skippedAt = 0;
  private inSection = false;

  constructor(window: ByteWindow, file: string, leftOut: LeftOut) {
    this.window = window;
    this.file = file;
    this.leftOut = leftOut;
  }

  next(frame: CapturedFrame): boolean {
    const { window } = this;
    for (;;) {
      if (this.skipped > 0) {
        if (window.skipping > 0 || window.left < 4) return false;
        this.checkTrailer(window.at, this.skipped, this.skippedAt);
        window.skip(4);
        this.skipped = 0;
      }
      if (window.left < BLOCK_FRAME_BYTES) {
        if (!this.inSection && window.ended) throw this.endsWithinHeader();
        return false;
      }
      const type = window.view.getUint32(window.at, this.littleEndian);
      if (type === BLOCK_SECTION) this.readByteOrder();
      const length = window.view.getUint32(window.at + 4, this.littleEndian);
      const fixed = FIXED_BYTES[type];
      this.checkLength(type, length, fixed);
      if (fixed === undefined) {
        this.skipped = length;
        this.skippedAt = window.offset;
        window.skip(length - 4);
        continue;
      }
      if (window.left < length) {
        if (!this.inSection && window.ended) throw this.endsWithinHeader();
        return false;
      }
      this.checkTrailer(window.at + length - 4, length, window.offset);
      const isFrame = this.readBlock(type, length, frame);
      window.skip(length);
      if (isFrame) return true;
    }
  }

  /** Offset of the next block, which may not be complete yet. */
  get offset(): number {
    return this.skipped > 0 ? this.skippedAt : this.window.offset;
  }

  private endsWithinHeader(): ColoError {
    return notACapture(this.file, `ends within its header, after ${this.window.left} bytes`);
  }

  private readByteOrder(): void {
    const { view, at, offset } = this.window;
    if (view.getUint32(at + 8) === BYTE_ORDER_MAGIC) this.littleEndian = false;
    else if (view.getUint32(at + 8, true) === BYTE_ORDER_MAGIC) this.littleEndian = true;
    else throw garbled(this.file, offset, 'a section begins without a byte-order magic');
  }

  private checkLength(type: number, length: number, fixed: number | undefined): void {
    const least = fixed === undefined ? BLOCK_FRAME_BYTES : fixed + 4;
    const tooLong = fixed !== undefined && length > BLOCK_BYTES_MAX;
    if (length >= least && length % 4 === 0 && !tooLong) return;
    const limits = fixed === undefined ? `${least} or more` : `${least} to ${BLOCK_BYTES_MAX}`;
    throw garbled(
      this.file,
      this.window.offset,
      `a block of type ${type} has a length of ${length} bytes (a multiple of 4, ${limits}, is possible)`,
    );
  }

  private checkTrailer(at: number, length: number, blockOffset: number): void {
    const again = this.window.view.getUint32(at, this.littleEndian);
    if (again === length) return;
    throw garbled(this.file, blockOffset, `a block's two lengths are ${length} and ${again}`);
  }

  /** Returns true if the block was a frame that counts. */
  private readBlock(type: number, length: number, frame: CapturedFrame): boolean {
    switch (type) {
      case BLOCK_SECTION:
        this.beginSection();
        return false;
      case BLOCK_INTERFACE:
        this.addInterface(length);
        return false;
      case BLOCK_SIMPLE_PACKET:
        return this.readSimple(length, frame);
      default:
        return this.readPacket(type, length, frame);
    }
  }

  private beginSection(): void {
    const { view, at } = this.window;
    const version = view.getUint16(at + 12, this.littleEndian);
    if (version !== VERSION_MAJOR)
      throw notACapture(this.file, `is pcapng of version ${version}, not ${VERSION_MAJOR}`);
    this.interfaces = [];
    this.inSection = true;
  }

  private addInterface(length: number): void {
    const { view, at, bytes, offset } = this.window;
    if (this.interfaces.length === INTERFACES_MAX)
      throw garbled(this.file, offset, `more than ${INTERFACES_MAX} interfaces`);
    const added: Interface = {
      name: '',
      linkType: view.getUint16(at + 8, this.littleEndian),
      snapLength: view.getUint32(at + 12, this.littleEndian),
      unitsPerMs: 1000,
      offsetMs: 0,
    };
    const end = at + length - 4;
    for (let option = at + 16; option + 4 <= end; ) {
      const code = view.getUint16(option, this.littleEndian);
      const optionBytes = view.getUint16(option + 2, this.littleEndian);
      const value = option + 4;
      if (value + optionBytes > end) {
        this.leftOut.addRecord(
          garbled(this.file, offset, `an option of ${optionBytes} bytes is longer than its block`),
        );
        break;
      }
      if (code === OPTION_END) break;
      if (code === OPTION_IF_NAME)
        added.name = new TextDecoder().decode(bytes.subarray(value, value + optionBytes));
      else if (code === OPTION_IF_TSRESOL && optionBytes === 1) added.unitsPerMs = unitsPerMs(bytes[value]);
      else if (code === OPTION_IF_TSOFFSET && optionBytes === 8)
        added.offsetMs = Number(view.getBigInt64(value, this.littleEndian)) * 1000;
      option = value + padded(optionBytes);
    }
    this.interfaces.push(added);
  }

  private readPacket(type: number, length: number, frame: CapturedFrame): boolean {
    const { view, at } = this.window;
    this.frames++;
    const index =
      type === BLOCK_OBSOLETE_PACKET
        ? view.getUint16(at + 8, this.littleEndian)
        : view.getUint32(at + 8, this.littleEndian);
    const from = this.interfaceOf(index);
    if (from === undefined) return false;
    const captured = view.getUint32(at + 20, this.littleEndian);
    const original = view.getUint32(at + 24, this.littleEndian);
    const high = view.getUint32(at + 12, this.littleEndian);
    const low = view.getUint32(at + 16, this.littleEndian);
    this.lastMs = (high * TWO_POW_32 + low) / from.unitsPerMs + from.offsetMs;
    return this.fill(frame, from, at + 28, captured, original, at + length - 4);
  }

  private readSimple(length: number, frame: CapturedFrame): boolean {
    const { view, at } = this.window;
    this.frames++;
    const from = this.interfaceOf(0);
    if (from === undefined) return false;
    const original = view.getUint32(at + 8, this.littleEndian);
    const captured = from.snapLength === 0 ? original : Math.min(original, from.snapLength);
    const counts = this.fill(frame, from, at + 12, captured, original, at + length - 4);
    if (counts) this.timeless++;
    return counts;
  }

  private fill(
    frame: CapturedFrame,
    from: Interface,
    dataAt: number,
    captured: number,
    original: number,
    end: number,
  ): boolean {
    const { file } = this;
    const { offset } = this.window;
    let wrong = contradiction(captured, original, file, offset);
    if (captured > FRAME_BYTES_MAX) wrong = tooLong(captured, file, offset);
    else if (dataAt + captured > end)
      wrong = garbled(file, offset, `a frame of ${captured} bytes is longer than its block`);
    if (wrong !== null) {
      this.leftOut.addRecord(wrong);
      return false;
    }
    if (from.linkType !== LINKTYPE_ETHERNET) {
      this.leftOut.addFrame(from.linkType, file);
      return false;
    }
    frame.number = this.frames;
    frame.timeMs = this.lastMs;
    frame.bytes = this.window.bytes;
    frame.at = dataAt;
    frame.length = captured;
    frame.originalLength = original;
    frame.interfaceName = from.name;
    return true;
  }

  /** Returns the interface of a frame. If the section has not described it, the frame is left out. */
  private interfaceOf(index: number): Interface | undefined {
    const found = this.interfaces[index];
    if (found !== undefined) return found;
    const { length } = this.interfaces;
    const what = `a frame of interface ${index}, but the section has described ${length} so far`;
    this.leftOut.addRecord(garbled(this.file, this.window.offset, what));
    return undefined;
  }
}

/** if_tsresol: a negative power of ten, or of two if the highest bit is set. */
function unitsPerMs(resolution: number): number {
  const exponent = resolution & 0x7f;
  return ((resolution & 0x80) === 0 ? 10 ** exponent : 2 ** exponent) / 1000;
}

function padded(bytes: number): number {
  return (bytes + 3) & ~3;
}
