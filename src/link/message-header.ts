/** The beginnings of messages, and messages that are a few numbers (link-protocol.ts). */
import { invariant } from '../error.ts';
import { LENGTH_PREFIX_BYTES } from '../frames/frame-reader.ts';
import { writeI32 } from '../wire/bytes.ts';
import { FRAMES_HEADER_BYTES, MESSAGE_BYTES_MAX, MESSAGE_HEADER_BYTES } from './link-protocol.ts';

/** Writes length and type of a message with `bodyBytes` bytes of body. */
export function writeHeader(message: Buffer, type: number, bodyBytes: number): void {
  writeI32(message, 0, MESSAGE_HEADER_BYTES + bodyBytes);
  message[4] = type;
}

/** Returns what stands before `bytes` bytes of frames. */
export function framesHeader(type: number, epoch: number, tag: number, bytes: number): Buffer {
  invariant(
    MESSAGE_HEADER_BYTES + FRAMES_HEADER_BYTES + bytes <= MESSAGE_BYTES_MAX,
    'a run of frames is longer than the peer takes',
  );
  const header = Buffer.alloc(LENGTH_PREFIX_BYTES + MESSAGE_HEADER_BYTES + FRAMES_HEADER_BYTES);
  writeHeader(header, type, FRAMES_HEADER_BYTES + bytes);
  writeI32(header, 8, epoch);
  writeI32(header, 12, tag);
  return header;
}

/** Returns a message whose body is these numbers. */
export function numbersMessage(type: number, ...numbers: readonly number[]): Buffer {
  const body = 4 * numbers.length;
  const message = Buffer.alloc(LENGTH_PREFIX_BYTES + MESSAGE_HEADER_BYTES + body);
  writeHeader(message, type, body);
  for (const [i, number] of numbers.entries())
    writeI32(message, LENGTH_PREFIX_BYTES + MESSAGE_HEADER_BYTES + 4 * i, number);
  return message;
}
