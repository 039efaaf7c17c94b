/** The beginnings of messages, and messages that are a few numbers (link-protocol.ts). */
import { ColoError, invariant, messageOf } from '../error.ts';
import { LENGTH_PREFIX_BYTES } from '../frames/frame-reader.ts';
import { writeI32 } from '../wire/bytes.ts';
import {
  type ControlBodies,
  type ControlType,
  FRAMES_HEADER_BYTES,
  MESSAGE,
  MESSAGE_BYTES_MAX,
  MESSAGE_HEADER_BYTES,
} from './link-protocol.ts';

/** Of the message in FAILED, which may quote the peer or QEMU. */
export const FAILED_CHARACTERS_MAX = 1000;

/** Writes length and type of a message with `bodyBytes` bytes of body. */
export function writeHeader(message: Buffer, type: number, bodyBytes: number): void {
  writeI32(message, 0, MESSAGE_HEADER_BYTES + bodyBytes);
  message[4] = type;
}

/** Returns a message with this body as JSON. */
export function controlMessage<T extends ControlType>(type: T, body: ControlBodies[T]): Buffer {
  const text = Buffer.from(JSON.stringify(body));
  invariant(
    MESSAGE_HEADER_BYTES + text.length <= MESSAGE_BYTES_MAX,
    'a control message is longer than the peer takes',
  );
  const message = Buffer.alloc(LENGTH_PREFIX_BYTES + MESSAGE_HEADER_BYTES + text.length);
  writeHeader(message, type, text.length);
  text.copy(message, LENGTH_PREFIX_BYTES + MESSAGE_HEADER_BYTES);
  return message;
}

/** Returns FAILED for `cause`, cut to a length that fits into a message. */
export function failedMessage(cause: unknown, codeOfOthers: `COLO_${string}`): Buffer {
  const code = cause instanceof ColoError ? cause.code : codeOfOthers;
  return controlMessage(MESSAGE.failed, { code, message: messageOf(cause).slice(0, FAILED_CHARACTERS_MAX) });
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
