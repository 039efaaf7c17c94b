/**
 * Reads frames from the bytes of a capture file, pcap or pcapng. Bytes are added as they are read from the file (`push`,
 * finally `end`), and frames are returned one by one (`next`).
 *
 * Failure: a capture that was killed ends within a record. That is only a warning, and the frames before it count. So does
 * damage after which the next record cannot be found (`damage`). A record that contradicts itself, or a frame that is not
 * Ethernet, is left out and counted (`leftOut`). A file is refused if no frame is left.
 */
import { ColoError } from '../error.ts';
import { ByteWindow } from './byte-window.ts';
import { type CapturedFrame, LeftOut, notACapture } from './captured-frame.ts';
import { isPcap, PcapReader } from './pcap.ts';
import { BLOCK_SECTION, PcapngReader } from './pcapng.ts';

const MAGIC_BYTES = 4;

/** Formats that are not unpacked here: how each begins, and the command that unpacks it beside itself. */
const PACKED: readonly { magic: readonly number[]; name: string; unpack: string }[] = [
  { magic: [0xfd, 0x37, 0x7a, 0x58], name: 'xz', unpack: 'xz -dk' },
  { magic: [0x28, 0xb5, 0x2f, 0xfd], name: 'zstd', unpack: 'zstd -d' },
  { magic: [0x04, 0x22, 0x4d, 0x18], name: 'lz4', unpack: 'lz4 -d' },
  { magic: [0x02, 0x21, 0x4c, 0x18], name: 'lz4', unpack: 'lz4 -d' },
  { magic: [0x42, 0x5a, 0x68], name: 'bzip2', unpack: 'bzip2 -dk' },
  { magic: [0x50, 0x4b, 0x03, 0x04], name: 'zip', unpack: 'unzip' },
];

function packedWith(bytes: Uint8Array, at: number): { name: string; unpack: string } | null {
  return PACKED.find(({ magic }) => magic.every((byte, i) => bytes[at + i] === byte)) ?? null;
}

export class CaptureReader {
  private readonly window = new ByteWindow();
  private readonly file: string;
  private reader: PcapReader | PcapngReader | null = null;
  private framesRead = 0;
  readonly leftOut = new LeftOut();
  /** What is wrong where the file cannot be read any further, although frames were read before; or null. */
  damage: ColoError | null = null;

  constructor(file: string) {
    this.file = file;
  }

  push(chunk: Uint8Array): void {
    this.window.push(chunk);
  }

  end(): void {
    this.window.ended = true;
  }

  /** Returns false if more bytes are needed or, after `end`, if there are no more frames. */
  next(frame: CapturedFrame): boolean {
    if (this.damage !== null) return false;
    this.reader ??= this.recognize();
    if (this.reader === null) return false;
    let found = false;
    try {
      found = this.reader.next(frame);
    } catch (error) {
      this.noteDamage(error);
    }
    if (found) this.framesRead++;
    else if (this.window.ended || this.damage !== null) this.refuseNothing();
    return found;
  }

  /** Ends the reading: the file cannot be read any further. Throws the error if no frame was read before. */
  noteDamage(error: unknown): void {
    const isOfFile = error instanceof ColoError && error.code.startsWith('COLO_PCAP_');
    if (this.framesRead === 0 || !isOfFile) throw error;
    this.damage = error;
  }

  /** Throws if all frames of the file were left out. */
  private refuseNothing(): void {
    if (this.framesRead === 0 && this.leftOut.first !== null) throw this.leftOut.first;
  }

  /** Number of frames without a time. */
  get timeless(): number {
    return this.reader instanceof PcapngReader ? this.reader.timeless : 0;
  }

  /** Offset of the record that the end of the file has cut, or null if there is none. */
  get cutAt(): number | null {
    const { window, reader } = this;
    if (!window.ended || reader === null || this.damage !== null) return null;
    return window.left > 0 || reader.offset !== window.offset ? reader.offset : null;
  }

  private recognize(): PcapReader | PcapngReader | null {
    const { window, file } = this;
    if (window.left < MAGIC_BYTES) {
      if (window.ended)
        throw notACapture(file, window.left === 0 ? 'is empty' : `has only ${window.left} bytes`);
      return null;
    }
    const { leftOut } = this;
    if (isPcap(window.view, window.at)) return new PcapReader(window, file, leftOut);
    if (window.view.getUint32(window.at) === BLOCK_SECTION) return new PcapngReader(window, file, leftOut);
    const packed = packedWith(window.bytes, window.at);
    if (packed !== null)
      throw notACapture(file, `is packed with ${packed.name}; unpack it first (${packed.unpack} ${file})`);
    const magic = window.view.getUint32(window.at).toString(16).padStart(8, '0');
    throw notACapture(file, `is not a capture (it begins with ${magic})`);
  }
}
