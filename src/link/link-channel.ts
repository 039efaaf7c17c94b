/**
 * One connection of the link as messages. Reads lie in slabs, so frame messages are handed on in place; writes of
 * frames take their bytes from the slabs they came in.
 */

import { isLesson, type Lesson } from '../compare/lesson.ts';
import { ColoError } from '../error.ts';
import { FrameReader, LENGTH_PREFIX_BYTES } from '../frames/frame-reader.ts';
import { RunQueue } from '../frames/run-queue.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { ByteStream } from '../io/byte-stream.ts';
import { LIMITS } from '../limits.ts';
import type { SlabId } from '../units.ts';
import { readU32, writeI32 } from '../wire/bytes.ts';
import {
  type ControlBodies,
  type ControlType,
  FRAMES_HEADER_BYTES,
  MESSAGE,
  MESSAGE_BYTES_MAX,
  MESSAGE_HEADER_BYTES,
  type MessageType,
} from './link-protocol.ts';

export type LinkHandler = {
  control(type: ControlType, body: unknown): void;
  heartbeat(number: number): void;
  heartbeatAck(number: number): void;
  /** One frame of an input or output message. */
  frame(type: MessageType, epoch: number, index: number, slab: SlabId, at: number, length: number): void;
  /** One PVM frame, and what the secondary learns from it. */
  teach(epoch: number, lesson: Lesson, slab: SlabId, at: number, length: number): void;
  confirm(epoch: number, from: number, to: number): void;
  batchEnd(): void;
};

/** What a peer may say between its HELLO and the moment that somebody listens: a heartbeat and a few words. */
const EARLY_MESSAGES_MAX = 16;

/** Two per range. */
const CONFIRM_NUMBERS_MAX = 4096;

export class LinkChannel {
  onClosed: (cause: Error | null) => void = () => {};
  /** Some of what was written has left: there may be room again (see `queuedBytes`). */
  onWritten: () => void = () => {};
  private readonly stream: ByteStream;
  private readonly slabs: SlabPool;
  private readonly reader: FrameReader;
  private readonly frames: RunQueue;
  private framesType: MessageType = MESSAGE.input;
  private framesEpoch = 0;
  private confirmed: number[] = [];
  private confirmedEpoch = 0;
  private open = true;
  private listener: LinkHandler | null = null;
  /** heartbeats and control messages that came while nobody listened */
  private early: ((handler: LinkHandler) => void)[] = [];

  constructor(stream: ByteStream, slabs: SlabPool) {
    this.stream = stream;
    this.slabs = slabs;
    this.frames = new RunQueue(slabs, LIMITS.linkRunBytesMax);
    this.reader = new FrameReader(slabs, MESSAGE_BYTES_MAX, {
      frame: (slab, at, length) => this.onMessage(slab, at, length),
      batchEnd: () => this.listener?.batchEnd(),
    });
  }

  start(): void {
    this.stream.start({
      buffer: () => this.nextBuffer(),
      read: (bytes) => this.onRead(bytes),
      closed: (cause) => this.finish(cause),
    });
  }

  /** Who listens. What came while nobody did is told first, after whatever the caller is doing now. */
  set handler(handler: LinkHandler | null) {
    this.listener = handler;
    if (handler !== null && this.early.length > 0) queueMicrotask(() => this.tellEarly());
  }

  get isOpen(): boolean {
    return this.open;
  }

  get queuedBytes(): number {
    return this.stream.queuedBytes();
  }

  send<T extends ControlType>(type: T, body: ControlBodies[T]): void {
    this.flush();
    const text = Buffer.from(JSON.stringify(body));
    const message = Buffer.alloc(LENGTH_PREFIX_BYTES + MESSAGE_HEADER_BYTES + text.length);
    writeHeader(message, type, text.length);
    text.copy(message, LENGTH_PREFIX_BYTES + MESSAGE_HEADER_BYTES);
    this.write(message);
  }

  sendHeartbeat(type: typeof MESSAGE.heartbeat | typeof MESSAGE.heartbeatAck, number: number): void {
    const message = Buffer.alloc(LENGTH_PREFIX_BYTES + MESSAGE_HEADER_BYTES + 4);
    writeHeader(message, type, 4);
    writeI32(message, LENGTH_PREFIX_BYTES + MESSAGE_HEADER_BYTES, number);
    this.write(message);
  }

  /** Queues a frame; frames of one kind and epoch that lie side by side become one message. */
  pushFrame(type: MessageType, epoch: number, index: number, slab: SlabId, at: number, length: number): void {
    if (!this.open) return;
    if (type !== this.framesType || epoch !== this.framesEpoch) {
      this.flushFrames();
      this.framesType = type;
      this.framesEpoch = epoch;
    }
    this.frames.push(slab, at, length, index);
  }

  /** As `pushFrame`, but a copy and at once: for a frame that is changed where it lies before it is written. */
  sendFrame(type: MessageType, epoch: number, index: number, frame: Uint8Array): void {
    this.flush();
    const copy = Buffer.alloc(LENGTH_PREFIX_BYTES + frame.length);
    writeI32(copy, 0, frame.length);
    copy.set(frame, LENGTH_PREFIX_BYTES);
    this.write(Buffer.concat([framesHeader(type, epoch, index, copy.length), copy]));
  }

  /** Queues word that the SVM's frame `index` needs no keeping, until `flushConfirms`. */
  pushConfirm(epoch: number, index: number): void {
    if (epoch !== this.confirmedEpoch) this.dropConfirms();
    this.confirmedEpoch = epoch;
    const { confirmed } = this;
    const last = confirmed.length - 1;
    if (last > 0 && confirmed[last] + 1 === index) confirmed[last] = index;
    else confirmed.push(index, index);
  }

  /** Forgets queued confirmations: they belonged to an epoch that is over. */
  dropConfirms(): void {
    this.confirmed = [];
  }

  flush(): void {
    if (!this.open) {
      this.frames.clear();
      return;
    }
    if (this.frames.runs === 0) return;
    this.stream.cork();
    this.flushFrames();
    this.stream.uncork();
  }

  /** What has been confirmed so far may be dropped by the peer from now on. */
  flushConfirms(): void {
    const { confirmed, confirmedEpoch: epoch } = this;
    if (confirmed.length === 0) return;
    this.confirmed = [];
    if (!this.open) return;
    this.stream.cork();
    for (let from = 0; from < confirmed.length; from += CONFIRM_NUMBERS_MAX) {
      const part = confirmed.slice(from, from + CONFIRM_NUMBERS_MAX);
      const message = Buffer.alloc(LENGTH_PREFIX_BYTES + MESSAGE_HEADER_BYTES + 4 + 4 * part.length);
      writeHeader(message, MESSAGE.confirm, 4 + 4 * part.length);
      writeI32(message, 8, epoch);
      part.forEach((index, i) => {
        writeI32(message, 12 + 4 * i, index);
      });
      this.write(message);
    }
    this.stream.uncork();
  }

  /** The connection carries no messages any more: whoever takes the stream starts it anew. */
  detach(): ByteStream {
    this.open = false;
    this.reader.close();
    return this.stream;
  }

  close(): void {
    this.stream.close();
    this.finish(null);
  }

  /** A stream may ask once more after the end: a slab lent then would never come back. */
  private nextBuffer(): Uint8Array | null {
    if (!this.open) return null;
    const buffer = this.reader.buffer();
    if (buffer === null) {
      this.slabs.whenFree(() => {
        if (this.open) this.stream.resume();
      });
    }
    return buffer;
  }

  private flushFrames(): void {
    const type = this.framesType;
    const epoch = this.framesEpoch;
    this.frames.drain((slab, start, end, index) => {
      this.write(framesHeader(type, epoch, index, end - start));
      this.stream.write(this.slabs.buffer(slab).subarray(start, end), () => {
        this.slabs.unref(slab);
        this.onWritten();
      });
    });
  }

  private write(bytes: Uint8Array): void {
    if (this.open) this.stream.write(bytes, () => {});
  }

  private onRead(bytes: number): void {
    if (!this.open) return;
    try {
      this.reader.read(bytes);
    } catch (cause) {
      this.stream.close();
      this.finish(cause instanceof Error ? cause : new Error(String(cause)));
    }
  }

  private onMessage(slab: SlabId, at: number, length: number): void {
    const handler = this.listener;
    if (!this.open) return;
    const buffer = this.slabs.buffer(slab);
    const end = at + length;
    const body = at + MESSAGE_HEADER_BYTES;
    if (body > end) throw garbled(`a message of ${length} bytes`);
    const type = buffer[at] as MessageType;
    switch (type) {
      case MESSAGE.input:
      case MESSAGE.output:
      case MESSAGE.teach:
        if (handler === null) throw garbled('frames before anything else');
        this.onFrames(handler, type, slab, body, end);
        return;
      case MESSAGE.heartbeat:
      case MESSAGE.heartbeatAck: {
        if (end - body !== 4) throw garbled(`a heartbeat of ${end - body} bytes`);
        const number = readU32(buffer, body);
        this.tell((to) => (type === MESSAGE.heartbeat ? to.heartbeat(number) : to.heartbeatAck(number)));
        return;
      }
      case MESSAGE.confirm: {
        if (handler === null) throw garbled('confirmations before anything else');
        if ((end - body) % 8 !== 4) throw garbled(`confirmations of ${end - body} bytes`);
        const epoch = readU32(buffer, body);
        for (let pair = body + 4; pair + 8 <= end; pair += 8) {
          handler.confirm(epoch, readU32(buffer, pair), readU32(buffer, pair + 4));
        }
        return;
      }
      default: {
        const said = parseBody(buffer, body, end, type);
        this.tell((to) => to.control(type, said));
      }
    }
  }

  private tell(message: (handler: LinkHandler) => void): void {
    if (this.listener !== null && this.early.length === 0) message(this.listener);
    else if (this.early.push(message) > EARLY_MESSAGES_MAX) throw garbled('too much before anybody listened');
  }

  private tellEarly(): void {
    while (this.listener !== null && this.open) {
      const message = this.early.shift();
      if (message === undefined) return;
      message(this.listener);
    }
  }

  private onFrames(handler: LinkHandler, type: MessageType, slab: SlabId, body: number, end: number): void {
    const buffer = this.slabs.buffer(slab);
    if (body + FRAMES_HEADER_BYTES > end) throw garbled('a frame message without its header');
    const epoch = readU32(buffer, body);
    let index = readU32(buffer, body + 4);
    let at = body + FRAMES_HEADER_BYTES;
    while (at + LENGTH_PREFIX_BYTES <= end) {
      const length = readU32(buffer, at);
      at += LENGTH_PREFIX_BYTES;
      if (length === 0 || at + length > end)
        throw garbled(`a frame of ${length} bytes that its message does not hold`);
      if (type !== MESSAGE.teach) handler.frame(type, epoch, index++, slab, at, length);
      else if (isLesson(index)) handler.teach(epoch, index, slab, at, length);
      else throw garbled(`the lesson ${index}, which this node does not know`);
      at += length;
    }
    if (at !== end) throw garbled('bytes behind the last frame of a message');
  }

  private finish(cause: Error | null): void {
    if (!this.open) return;
    this.open = false;
    this.reader.close();
    this.frames.clear();
    this.onClosed(cause);
  }
}

function writeHeader(message: Buffer, type: MessageType, bodyBytes: number): void {
  writeI32(message, 0, MESSAGE_HEADER_BYTES + bodyBytes);
  message[4] = type;
}

/** What lies before `bytes` bytes of frames. */
function framesHeader(type: MessageType, epoch: number, index: number, bytes: number): Buffer {
  const header = Buffer.alloc(LENGTH_PREFIX_BYTES + MESSAGE_HEADER_BYTES + FRAMES_HEADER_BYTES);
  writeHeader(header, type, FRAMES_HEADER_BYTES + bytes);
  writeI32(header, 8, epoch);
  writeI32(header, 12, index);
  return header;
}

function parseBody(buffer: Buffer, at: number, end: number, type: number): unknown {
  try {
    return JSON.parse(buffer.toString('utf8', at, end));
  } catch (cause) {
    throw new ColoError('COLO_LINK_GARBLED', `a message of type ${type} is not JSON`, { cause });
  }
}

function garbled(what: string): ColoError {
  return new ColoError('COLO_LINK_GARBLED', `the peer sent ${what}; the link is closed and opened again`);
}
