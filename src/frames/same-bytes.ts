/**
 * Compares two ranges of the slabs: the comparator's innermost step, once per pair of frames.
 *
 * 16 bytes at a time in WebAssembly SIMD, on the memory that the slabs lie in: no call into the runtime, no views.
 * For short frames that is several times as fast as Buffer.compare, and never slower. `sameBytesPlain` does the same in
 * JavaScript, for tests.
 * same-bytes.wat is the source; `npx --package wabt@1.0.37 wat2wasm same-bytes.wat` makes the bytes.
 */
const SAME_BYTES = new WebAssembly.Module(
  Buffer.from(
    'AGFzbQEAAAABCAFgA39/fwF/AhEBBXNsYWJzBm1lbW9yeQIAAQMCAQAHCAEEc2FtZQAACp0BAZoBAQF/IAAgAmpBEGshAyACQRBP' +
      'BEACQANAIAAgA08NASAA/QAAACAB/QAAAP1R/VMEQEEADwsgAEEQaiEAIAFBEGohAQwACwsgASAAIANrayEBIAP9AAAAIAH9AAAA' +
      '/VH9U0UPCwJAA0AgAkUNASAALQAAIAEtAABHBEBBAA8LIABBAWohACABQQFqIQEgAkEBayECDAALC0EBCw==',
    'base64',
  ),
);

/** Takes two offsets in the memory and a number of bytes; returns 1 if they are the same. Traps outside of the memory. */
export type SameBytes = (a: number, b: number, length: number) => number;

export function sameBytesIn(memory: WebAssembly.Memory): SameBytes {
  const instance = new WebAssembly.Instance(SAME_BYTES, { slabs: { memory } });
  return instance.exports.same as SameBytes;
}

export function sameBytesPlain(bytes: Uint8Array, a: number, b: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (bytes[a + i] !== bytes[b + i]) return false;
  return true;
}
