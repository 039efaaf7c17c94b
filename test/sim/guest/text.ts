/** Lines and patterns, which services and clients exchange. */
import type { TcpConnection } from './tcp.ts';

const NEWLINE = 10;

export function encode(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

export function decode(bytes: Uint8Array): string {
  let text = '';
  for (let i = 0; i < bytes.length; i++) text += String.fromCharCode(bytes[i]);
  return text;
}

export function hasLine(connection: TcpConnection): boolean {
  return connection.input.indexOf(NEWLINE) >= 0;
}

/** Returns the next whole line without its end, or undefined. */
export function takeLine(connection: TcpConnection): string | undefined {
  const length = connection.input.indexOf(NEWLINE);
  if (length < 0) return undefined;
  const line = decode(connection.input.view(0, length));
  connection.consume(length + 1);
  return line;
}

const PATTERN_BYTES = 65_521;
const pattern = new Uint8Array(2 * PATTERN_BYTES);
for (let i = 0, x = 0x2545f491; i < pattern.length; i++) {
  if (i >= PATTERN_BYTES) {
    pattern[i] = pattern[i - PATTERN_BYTES];
    continue;
  }
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  pattern[i] = x;
}

/**
 * Returns up to 64 KB of the stream number `seed`, from `offset` on, which the caller must not change. No stream is
 * stored, and a byte from another place or stream is noticed: the period is prime, so it is no multiple of a segment or
 * buffer size.
 */
export function patternAt(seed: number, offset: number, length: number): Uint8Array {
  const at = (offset + seed * 7919) % PATTERN_BYTES;
  return pattern.subarray(at, at + Math.min(length, PATTERN_BYTES));
}
