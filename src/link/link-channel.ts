/**
 * One connection of the link that carries messages.
 *
 * Receiving: reads lie in slabs, and frames are passed on in place. Sending: frames are written from the slabs in which
 * they were received, and neighbours in one slab leave as one message if they are of one kind and epoch.
 *
 * Ownership: a channel has one listener at a time, which is notified of everything: messages, the room that a write
 * leaves, and the end. The HELLO has the first one (link-setup.ts), a session the second. Between them, up to
 * EARLY_MESSAGES_MAX control messages and heartbeats are stored for the second, and so is the end. A data path gets a
 * LinkWriter, by which it can send and nothing else.
 *
 * Failure: a message that contradicts this protocol closes the connection with COLO_LINK_GARBLED.
 */

import { isLesson, type Lesson } from '../compare/lesson.ts';
import { ColoError, invariant, messageOf } from '../error.ts';
import { FrameReader, LENGTH_PREFIX_BYTES } from '../frames/frame-reader.ts';
import { RunQueue } from '../frames/run-queue.ts';
import type { SlabPool } from '../frames/slabs.ts';
import type { ByteStream, StreamSink } from '../io/byte-stream.ts';
import { LIMITS } from '../limits.ts';
import type { SlabId } from '../units.ts';
import { readU32, writeI32 } from '../wire/bytes.ts';
import {
  type ControlBodies,
  type ControlMessage,
  type ControlType,
  FRAMES_HEADER_BYTES,
  MESSAGE,
  MESSAGE_BYTES_MAX,
  MESSAGE_HEADER_BYTES,
  parseControl,
} from './link-protocol.ts';
import {
  controlMessage,
  FAILED_CHARACTERS_MAX,
  failedMessage,
  framesHeader,
  numbersMessage,
  writeHeader,
} from './message-header.ts';
import { type ConnectionOffsets, OffsetsReader, offsetsMessages } from './offsets-message.ts';

export type LinkHandler = {
  control(message: ControlMessage): void;
  heartbeat(number: number): void;
  heartbeatAck(number: number): void;
  /** One frame that the PVM was given. */
  input(epoch: number, index: number, slab: SlabId, at: number, length: number): void;
  /** One frame that the SVM sent. */
  output(epoch: number, index: number, slab: SlabId, at: number, length: number): void;
  /** One PVM frame, and what the secondary learns from it. */
  teach(epoch: number, lesson: Lesson, slab: SlabId, at: number, length: number): void;
  confirm(epoch: number, from: number, to: number): void;
  /** The secondary is to notify the primary when its VM sleeps, having been given the first `frames` frames of this epoch's input. */
  watchSleep(epoch: number, frames: number): void;
  /** The SVM sleeps, having been given so many frames. */
  asleep(epoch: number, frames: number): void;
  /** A complete map of offsets, which takes the place of the one before. */
  offsets(map: ConnectionOffsets[]): void;
  /** All messages of one read have been passed on. */
  batchEnd(): void;
  /** Some written frames have left: `queuedBytes` may be smaller. */
  written(): void;
  /** The channel has closed; called once, last. */
  closed(cause: Error | null): void;
};

/** Ignores everything: the rest of a handler that needs only a part. */
export const IGNORE_LINK: LinkHandler = {
  control() {},
  heartbeat() {},
  heartbeatAck() {},
  input() {},
  output() {},
  teach() {},
  confirm() {},
  watchSleep() {},
  asleep() {},
  offsets() {},
  batchEnd() {},
  written() {},
  closed() {},
};

/** What a data path may do with the link. */
export type LinkWriter = Pick<
  LinkChannel,
  | 'queuedBytes'
  | 'pushInput'
  | 'pushOutput'
  | 'pushTeach'
  | 'sendTeach'
  | 'pushConfirm'
  | 'dropConfirms'
  | 'sendWatchSleep'
  | 'sendAsleep'
  | 'sendBlind'
  | 'flush'
  | 'flushConfirms'
  | 'flushWithConfirms'
>;

type FramesType = typeof MESSAGE.input | typeof MESSAGE.output | typeof MESSAGE.teach;

/** Between its HELLO and a session's start a peer may send one heartbeat, OFFSETS and START_SYNC. */
const EARLY_MESSAGES_MAX = 16;

/** In one CONFIRM message: two per range. */
const CONFIRM_NUMBERS_MAX = 4096;

export class LinkChannel {
  private readonly stream: ByteStream;
  private readonly slabs: SlabPool;
  private readonly reader: FrameReader;
  private readonly offsetsReader = new OffsetsReader();
  /** queued frames: all of one type and epoch, and each with the tag that the header of the first implies */
  private readonly frames: RunQueue;
  private framesType: FramesType = MESSAGE.input;
  private framesEpoch = 0;
  private nextTag = 0;
  /** pairs of first and last index */
  private confirmed: number[] = [];
  private confirmedEpoch = 0;
  private open = true;
  private handler: LinkHandler | null = null;
  /** control messages and heartbeats that were received while nobody listened */
  private early: ((handler: LinkHandler) => void)[] = [];
  /** the end, until a listener has been notified of it */
  private end: { readonly cause: Error | null } | null = null;

  constructor(stream: ByteStream, slabs: SlabPool) {
    this.stream = stream;
    this.slabs = slabs;
    this.frames = new RunQueue(slabs, LIMITS.linkRunBytesMax);
    this.reader = new FrameReader(slabs, MESSAGE_BYTES_MAX, {
      frame: (slab, at, length) => this.onMessage(slab, at, length),
      batchEnd: () => this.handler?.batchEnd(),
    });
  }

  start(): void {
    this.stream.start({
      buffer: () => this.nextBuffer(),
      read: (bytes) => this.onRead(bytes),
      closed: (cause) => this.finish(cause),
    });
  }

  /** Notifies `handler` of everything from now on; first, in a microtask, of what was received while nobody listened. */
  listen(handler: LinkHandler): void {
    invariant(this.handler === null, 'a link channel has a listener already');
    this.handler = handler;
    if (this.early.length > 0 || this.end !== null) queueMicrotask(() => this.notifyEarly());
  }

  /** Ends the listening: the next listener gets what is received from now on. */
  unlisten(): void {
    this.handler = null;
  }

  get isOpen(): boolean {
    return this.open;
  }

  get queuedBytes(): number {
    return this.stream.queuedBytes();
  }

  send<T extends ControlType>(type: T, body: ControlBodies[T]): void {
    this.flush();
    this.write(controlMessage(type, body));
  }

  /** Sends why this node refuses or ends what the peer has asked for: `cause`, cut to a length that fits into a message. */
  sendFailed(cause: unknown, codeOfOthers: `COLO_${string}`): void {
    this.flush();
    this.write(failedMessage(cause, codeOfOthers));
  }

  /** Sends the whole map of offsets. */
  sendOffsets(map: readonly ConnectionOffsets[]): void {
    for (const body of offsetsMessages(map)) this.send(MESSAGE.offsets, body);
  }

  sendHeartbeat(type: typeof MESSAGE.heartbeat | typeof MESSAGE.heartbeatAck, number: number): void {
    this.write(numbersMessage(type, number));
  }

  /** Queues a frame that the PVM was given, until `flush`. */
  pushInput(epoch: number, index: number, slab: SlabId, at: number, length: number): void {
    this.push(MESSAGE.input, epoch, index, index + 1, slab, at, length);
  }

  /** Queues a frame that the SVM sent, until `flush`. */
  pushOutput(epoch: number, index: number, slab: SlabId, at: number, length: number): void {
    this.push(MESSAGE.output, epoch, index, index + 1, slab, at, length);
  }

  /** Queues a PVM frame from which the secondary learns, until `flush`. */
  pushTeach(epoch: number, lesson: Lesson, slab: SlabId, at: number, length: number): void {
    this.push(MESSAGE.teach, epoch, lesson, lesson, slab, at, length);
  }

  /** As `pushTeach`, but sends a copy at once: for a frame that is changed in place before the link is written. */
  sendTeach(epoch: number, lesson: Lesson, frame: Uint8Array): void {
    this.flush();
    const copy = Buffer.alloc(LENGTH_PREFIX_BYTES + frame.length);
    writeI32(copy, 0, frame.length);
    copy.set(frame, LENGTH_PREFIX_BYTES);
    this.write(Buffer.concat([framesHeader(MESSAGE.teach, epoch, lesson, copy.length), copy]));
  }

  /** Queues the confirmation of SVM frame `index`, until `flushConfirms`: the secondary need not retain it any more. */
  pushConfirm(epoch: number, index: number): void {
    if (epoch !== this.confirmedEpoch) {
      invariant(epoch > this.confirmedEpoch, 'a frame was confirmed in an epoch before the last one');
      this.dropConfirms();
      this.confirmedEpoch = epoch;
    }
    const { confirmed } = this;
    const last = confirmed.length - 1;
    if (last > 0 && confirmed[last] + 1 === index) confirmed[last] = index;
    else confirmed.push(index, index);
  }

  /** Drops the queued confirmations: their epoch is over, or the uplink lost the frames. */
  dropConfirms(): void {
    this.confirmed = [];
  }

  /** Sends the queued input, and asks when the SVM sleeps over the first `frames` frames of the epoch's input. */
  sendWatchSleep(epoch: number, frames: number): void {
    this.sendSleep(MESSAGE.watchSleep, epoch, frames);
  }

  /** Sends the queued output, and that the SVM sleeps over the first `frames` frames of the epoch's input. */
  sendAsleep(epoch: number, frames: number): void {
    this.sendSleep(MESSAGE.asleep, epoch, frames);
  }

  /** Sends why this node cannot see whether its VM sleeps. */
  sendBlind(why: string): void {
    this.send(MESSAGE.blind, { message: why.slice(0, FAILED_CHARACTERS_MAX) });
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

  /** Sends the queued frames, and the queued confirmations with them. Returns false if there were no frames: nothing is sent. */
  flushWithConfirms(): boolean {
    if (!this.open || this.frames.runs === 0) {
      this.flush();
      return false;
    }
    this.stream.cork();
    this.flushFrames();
    this.flushConfirms();
    this.stream.uncork();
    return true;
  }

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

  /** Gives the bare stream to its new user, who starts it again. Throws COLO_LINK_GARBLED if the peer did not wait for that. */
  detach(): ByteStream {
    invariant(this.handler === null, 'a link channel was detached from its listener');
    const early = this.early.length > 0 || this.reader.partialBytes > 0;
    this.open = false;
    this.reader.close();
    this.stream.pause();
    this.stream.start(NOBODY);
    if (!early) return this.stream;
    this.stream.close();
    throw garbled('bytes of a stream before its other end was there');
  }

  close(): void {
    this.stream.close();
    this.finish(null);
  }

  /** Returns null after the end, when a stream may ask once more: a slab lent to it then would never come back. */
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

  /**
   * `tag` stands in the header of a message with this frame first, `nextTag` is what that header implies for the frame
   * after it: the next index, or the same lesson. A frame of which it implies something else begins a message of its own.
   */
  private push(
    type: FramesType,
    epoch: number,
    tag: number,
    nextTag: number,
    slab: SlabId,
    at: number,
    length: number,
  ): void {
    if (!this.open) return;
    if (type !== this.framesType || epoch !== this.framesEpoch || tag !== this.nextTag) {
      this.flushFrames();
      invariant(epoch >= this.framesEpoch, 'a frame was sent in an epoch before the last one');
      this.framesType = type;
      this.framesEpoch = epoch;
    }
    this.nextTag = nextTag;
    this.frames.push(slab, at, length, tag);
  }

  private sendSleep(
    type: typeof MESSAGE.watchSleep | typeof MESSAGE.asleep,
    epoch: number,
    frames: number,
  ): void {
    if (!this.open) return;
    this.stream.cork();
    this.flushFrames();
    this.write(numbersMessage(type, epoch, frames));
    this.stream.uncork();
  }

  private flushFrames(): void {
    const type = this.framesType;
    const epoch = this.framesEpoch;
    this.frames.drain((slab, start, end, tag) => {
      this.write(framesHeader(type, epoch, tag, end - start));
      this.stream.write(this.slabs.buffer(slab).subarray(start, end), () => {
        this.slabs.unref(slab);
        this.handler?.written();
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
      this.finish(cause instanceof Error ? cause : new Error(messageOf(cause)));
    }
  }

  private onMessage(slab: SlabId, at: number, length: number): void {
    const { handler } = this;
    if (!this.open) return;
    const buffer = this.slabs.buffer(slab);
    const end = at + length;
    const body = at + MESSAGE_HEADER_BYTES;
    if (body > end) throw garbled(`a message of ${length} bytes`);
    const type = buffer[at];
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
        this.notify((to) => (type === MESSAGE.heartbeat ? to.heartbeat(number) : to.heartbeatAck(number)));
        return;
      }
      case MESSAGE.confirm:
        if (handler === null) throw garbled('confirmations before anything else');
        this.onConfirms(handler, buffer, body, end);
        return;
      case MESSAGE.watchSleep:
      case MESSAGE.asleep: {
        if (end - body !== 8) throw garbled(`a message about sleep of ${end - body} bytes`);
        if (handler === null) throw garbled('a message about sleep before anything else');
        const epoch = readU32(buffer, body);
        const frames = readU32(buffer, body + 4);
        if (type === MESSAGE.watchSleep) handler.watchSleep(epoch, frames);
        else handler.asleep(epoch, frames);
        return;
      }
      default:
        this.onControl(type, buffer.toString('utf8', body, end));
    }
  }

  private onControl(type: number, text: string): void {
    const message = parseControl(type, text);
    if (message.type !== MESSAGE.offsets) {
      this.notify((to) => to.control(message));
      return;
    }
    const map = this.offsetsReader.read(message.body);
    if (map !== null) this.notify((to) => to.offsets(map));
  }

  private onConfirms(handler: LinkHandler, buffer: Uint8Array, body: number, end: number): void {
    if ((end - body) % 8 !== 4) throw garbled(`confirmations of ${end - body} bytes`);
    const epoch = readU32(buffer, body);
    for (let pair = body + 4; pair + 8 <= end; pair += 8) {
      handler.confirm(epoch, readU32(buffer, pair), readU32(buffer, pair + 4));
    }
  }

  private onFrames(handler: LinkHandler, type: FramesType, slab: SlabId, body: number, end: number): void {
    const buffer = this.slabs.buffer(slab);
    if (body + FRAMES_HEADER_BYTES > end) throw garbled('a frame message without its header');
    const epoch = readU32(buffer, body);
    const tag = readU32(buffer, body + 4);
    let at = body + FRAMES_HEADER_BYTES;
    for (let nth = 0; at + LENGTH_PREFIX_BYTES <= end; nth++) {
      const length = readU32(buffer, at);
      at += LENGTH_PREFIX_BYTES;
      if (length === 0 || at + length > end)
        throw garbled(`a frame of ${length} bytes that its message does not hold`);
      if (type === MESSAGE.input) handler.input(epoch, tag + nth, slab, at, length);
      else if (type === MESSAGE.output) handler.output(epoch, tag + nth, slab, at, length);
      else if (isLesson(tag)) handler.teach(epoch, tag, slab, at, length);
      else throw garbled(`the lesson ${tag}, which this node does not know`);
      at += length;
    }
    if (at !== end) throw garbled('bytes after the last frame of a message');
  }

  private notify(message: (handler: LinkHandler) => void): void {
    if (this.handler !== null && this.early.length === 0) message(this.handler);
    else if (this.early.push(message) > EARLY_MESSAGES_MAX)
      throw garbled(`more than ${EARLY_MESSAGES_MAX} messages before its session began`);
  }

  private notifyEarly(): void {
    while (this.handler !== null && this.open) {
      const message = this.early.shift();
      if (message === undefined) return;
      message(this.handler);
    }
    this.notifyEnd();
  }

  private notifyEnd(): void {
    const { handler, end } = this;
    if (handler === null || end === null) return;
    this.end = null;
    handler.closed(end.cause);
  }

  private finish(cause: Error | null): void {
    if (!this.open) return;
    this.open = false;
    this.reader.close();
    this.frames.clear();
    this.end = { cause };
    this.notifyEnd();
  }
}

/** Reads nothing: what a peer sends before the new user has started the stream waits for that. */
const NOBODY: StreamSink = { buffer: () => null, read() {}, closed() {} };

function garbled(what: string): ColoError {
  return new ColoError('COLO_LINK_GARBLED', `the peer sent ${what}; the link is closed and opened again`);
}
