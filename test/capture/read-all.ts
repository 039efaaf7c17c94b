/** Pushes bytes to a reader in given pieces, and collects its frames. */

import { CaptureReader } from '../../src/capture/capture-reader.ts';
import { CapturedFrame } from '../../src/capture/captured-frame.ts';

export type Seen = {
  number: number;
  timeMs: number;
  hex: string;
  originalLength: number;
  interfaceName: string;
};
export type Reading = {
  frames: Seen[];
  cutAt: number | null;
  timeless: number;
  /** messages: of what the reading ended at, and of the first record that was left out */
  damage?: string;
  leftOut?: string;
  leftOutRecords?: number;
  byLinkType?: [number, number][];
};

export function readAll(file: Uint8Array, cuts: number[] = []): Reading {
  const reader = new CaptureReader('x.pcap');
  const frame = new CapturedFrame();
  const frames: Seen[] = [];
  const drain = (): void => {
    while (reader.next(frame))
      frames.push({
        number: frame.number,
        timeMs: frame.timeMs,
        hex: Buffer.from(frame.bytes.subarray(frame.at, frame.at + frame.length)).toString('hex'),
        originalLength: frame.originalLength,
        interfaceName: frame.interfaceName,
      });
  };
  let from = 0;
  for (const cut of [...cuts, file.length]) {
    // A copy, so that the bytes after it cannot be read.
    reader.push(Uint8Array.prototype.slice.call(file, from, cut));
    drain();
    from = cut;
  }
  reader.end();
  drain();
  const { cutAt, timeless, damage, leftOut } = reader;
  return {
    frames,
    cutAt,
    timeless,
    ...(damage === null ? {} : { damage: damage.message }),
    ...(leftOut.first === null
      ? {}
      : {
          leftOut: leftOut.first.message,
          leftOutRecords: leftOut.records,
          byLinkType: [...leftOut.byLinkType],
        }),
  };
}
