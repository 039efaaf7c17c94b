/**
 * Frames out of the bytes of a capture file, whichever of the two formats it has. Bytes go in as they are read from
 * the file (`push`, at last `end`), frames come out one by one (`next`).
 *
 * A capture that was killed ends in mid-record. That is a warning: what came before counts. Anything else that does
 * not fit together is an error that names the place, for nothing behind it can be believed.
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

  /** False when more bytes are needed; after `end`: when there is nothing more. */
  next(frame: CapturedFrame): boolean {
    this.reader ??= this.recognize();
    return this.reader?.next(frame) ?? false;
  }

  /** Frames without a time of their own. */
  get timeless(): number {
    return this.reader instanceof PcapngReader ? this.reader.timeless : 0;
  }

  /** Where the last record begins that the end of the file has cut, or null when the file is whole. */
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
