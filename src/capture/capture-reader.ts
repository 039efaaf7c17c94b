/**
 * Reads frames from the bytes of a capture file, pcap or pcapng. Bytes are added as they are read from the file (`push`,
 * finally `end`), and frames are returned one by one (`next`).
 *
 * Failure: a capture that was killed ends within a record. That is only a warning, and the frames before it count. Any other
 * inconsistency is an error with its place in the file, since the rest of the file cannot be trusted.
 */
import { ByteWindow } from './byte-window.ts';
import { type CapturedFrame, notACapture } from './captured-frame.ts';
import { isPcap, PcapReader } from './pcap.ts';
import { BLOCK_SECTION, PcapngReader } from './pcapng.ts';

const MAGIC_BYTES = 4;

export class CaptureReader {
  private readonly window = new ByteWindow();
  private readonly file: string;
  private reader: PcapReader | PcapngReader | null = null;

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
    this.reader ??= this.recognize();
    return this.reader?.next(frame) ?? false;
  }

  /** Number of frames without a time. */
  get timeless(): number {
    return this.reader instanceof PcapngReader ? this.reader.timeless : 0;
  }

  /** Offset of the record that the end of the file has cut, or null if there is none. */
  get cutAt(): number | null {
    const { window, reader } = this;
    if (!window.ended || reader === null) return null;
    return window.left > 0 || reader.offset !== window.offset ? reader.offset : null;
  }

  private recognize(): PcapReader | PcapngReader | null {
    const { window, file } = this;
    if (window.left < MAGIC_BYTES) {
      if (window.ended)
        throw notACapture(file, window.left === 0 ? 'is empty' : `has only ${window.left} bytes`);
      return null;
    }
    if (isPcap(window.view, window.at)) return new PcapReader(window, file);
    if (window.view.getUint32(window.at) === BLOCK_SECTION) return new PcapngReader(window, file);
    const magic = window.view.getUint32(window.at).toString(16).padStart(8, '0');
    throw notACapture(file, `is not a capture (it begins with ${magic})`);
  }
}
