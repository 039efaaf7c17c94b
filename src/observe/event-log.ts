/**
 * The event log: one JSON object per line, in order, in a file that only grows. The last RING_EVENTS_MAX events also stay
 * in memory for followers.
 *
 * Sequence numbers continue from the file's last whole line, so `after=SEQ` means the same across restarts.
 *
 * Limits: PENDING_BYTES_MAX waiting for the disk, LINE_CHARACTERS_MAX per line. Failure: a full or broken disk costs
 * lines, never the node. Lost lines are counted, and one event reports their number when the disk has room again.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { ColoError, invariant } from '../error.ts';
import { type AppendFile, fileErrorText, openAppendFile } from './append-file.ts';
import type { EventDetails, LogEvents, NodeEvents } from './events.ts';
import type { NodeEvent } from './status.ts';

export type EventListener = (event: NodeEvent) => void;

export type EventLogOptions = {
  path: string;
  node: string;
  /** Unix time in milliseconds. */
  now: () => number;
  /** For tests. */
  open?: (path: string) => AppendFile;
};

/** A few minutes of a node with several checkpoints a second; about 300 kB. */
export const RING_EVENTS_MAX = 1000;
/** Lines that wait for the disk: seconds of the worst burst. Further lines are counted and dropped. */
const PENDING_BYTES_MAX = 1 << 20;
/** Enough to fill the ring at usual line lengths. */
const TAIL_BYTES = 512 * 1024;
/** An event is a line for people to read; a longer one loses its details. */
const LINE_CHARACTERS_MAX = 16 * 1024;

export class EventLog<Events extends Record<keyof Events, object> = NodeEvents> {
  /** Events that are not in the file. */
  unwritten = 0;

  private readonly node: string;
  private readonly now: () => number;
  private readonly file: AppendFile;
  private readonly ring: NodeEvent[] = [];
  /** Index of the next event once the ring is full: the place of the oldest one. */
  private ringNext = 0;
  private readonly listeners = new Set<EventListener>();
  private seq = 0;
  private pending: string[] = [];
  private pendingBytes = 0;
  private writing = false;
  /** The file may end within a line, so the next write begins with a newline. */
  private torn: boolean;
  private failing = false;
  /** Of `unwritten`, those that an `events.resumed` has reported. */
  private unwrittenReported = 0;
  private closed = false;
  private whenIdle: (() => void)[] = [];

  /** Throws COLO_EVENTS_OPEN. */
  constructor({ path, node, now, open }: EventLogOptions) {
    this.node = node;
    this.now = now;
    const tail = readTail(path);
    this.torn = tail !== '' && !tail.endsWith('\n');
    for (const line of tail.split('\n')) {
      const event = parseEvent(line);
      if (event === null) continue;
      this.addToRing(event);
      this.seq = Math.max(this.seq, event.seq);
    }
    try {
      this.file = (open ?? ((name) => openAppendFile(name, 'a')))(path);
    } catch (error) {
      const advice = 'give another eventLog or runDirectory, or make it writable for the user of the node';
      throw new ColoError(
        'COLO_EVENTS_OPEN',
        `cannot write the event log ${path}: ${fileErrorText(error)}; ${advice}`,
        { cause: error },
      );
    }
  }

  /** Adds an event. Details are anything that JSON can express; they cannot replace the event's own fields. */
  emit<Type extends keyof Events & string>(type: Type, details: Readonly<Events[Type]>): NodeEvent {
    return this.add(type, details as EventDetails);
  }

  /** Returns a function that ends the subscription. */
  subscribe(listener: EventListener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  /** Returns the events in memory whose number is above `seq`, oldest first. */
  after(seq: number): NodeEvent[] {
    const oldestFirst = [...this.ring.slice(this.ringNext), ...this.ring.slice(0, this.ringNext)];
    return oldestFirst.filter((event) => event.seq > seq);
  }

  get lastSeq(): number {
    return this.seq;
  }

  /** Resolves once every event emitted so far is in the file or counted in `unwritten`. */
  flush(): Promise<void> {
    return new Promise((resolve) => {
      this.whenIdle.push(resolve);
      this.pump();
    });
  }

  async close(): Promise<void> {
    if (this.closed) return;
    await this.flush();
    this.closed = true;
    this.listeners.clear();
    await new Promise<void>((resolve) => this.file.close(resolve));
  }

  private emitOwn<Type extends keyof LogEvents>(type: Type, details: LogEvents[Type]): void {
    this.add(type, details);
  }

  private add(type: string, details: EventDetails): NodeEvent {
    const head = { seq: ++this.seq, at: new Date(this.now()).toISOString(), node: this.node, type };
    let event: NodeEvent = { ...head, ...details, ...head };
    let line = toJson(event);
    if (line === null || line.length > LINE_CHARACTERS_MAX) {
      event = { ...head, detailsDropped: line === null ? 'not expressible as JSON' : 'too long' };
      line = JSON.stringify(event);
    }
    this.addToRing(event);
    this.append(line);
    for (const listener of this.listeners) {
      try {
        listener(event);
      } catch (error) {
        // A follower that throws is removed: it must not stop the node that it follows.
        this.listeners.delete(listener);
        this.emitOwn('events.listener-failed', { message: String(error) });
      }
    }
    return event;
  }

  private addToRing(event: NodeEvent): void {
    if (this.ring.length < RING_EVENTS_MAX) {
      this.ring.push(event);
      return;
    }
    this.ring[this.ringNext] = event;
    this.ringNext = (this.ringNext + 1) % RING_EVENTS_MAX;
  }

  private append(line: string): void {
    if (this.closed || this.pendingBytes + line.length > PENDING_BYTES_MAX) {
      this.unwritten++;
      return;
    }
    this.pending.push(line);
    this.pendingBytes += line.length + 1;
    this.pump();
  }

  private pump(): void {
    if (this.writing) return;
    if (this.pending.length === 0 || this.closed) {
      const idle = this.whenIdle;
      this.whenIdle = [];
      for (const resolve of idle) resolve();
      return;
    }
    const lines = this.pending;
    this.pending = [];
    this.pendingBytes = 0;
    this.write(lines);
  }

  private write(lines: readonly string[]): void {
    invariant(!this.writing, 'the event log writes one piece at a time');
    this.writing = true;
    const bytes = Buffer.from(`${this.torn ? '\n' : ''}${lines.join('\n')}\n`);
    this.file.append(bytes, bytes.length, (error, written) => {
      this.writing = false;
      if (error === null) {
        this.torn = false;
        this.reportWritten();
      } else {
        // Whole lines in the file count as written. The others are not tried again: by then they may be many.
        const whole = newlines(bytes, written) - (this.torn && written > 0 ? 1 : 0);
        if (written > 0) this.torn = bytes[written - 1] !== 0x0a;
        this.unwritten += lines.length - whole;
        this.reportFailure(error);
      }
      this.pump();
    });
  }

  private reportFailure(error: Error): void {
    if (this.failing) return;
    this.failing = true;
    this.emitOwn('events.unwritten', {
      message: `the event log cannot be written: ${fileErrorText(error)}`,
    });
  }

  private reportWritten(): void {
    this.failing = false;
    const count = this.unwritten - this.unwrittenReported;
    invariant(count >= 0, 'no more events were reported as unwritten than there are');
    if (count === 0) return;
    this.unwrittenReported = this.unwritten;
    this.emitOwn('events.resumed', { unwritten: count });
  }
}

function newlines(bytes: Uint8Array, length: number): number {
  let count = 0;
  for (let i = 0; i < length; i++) if (bytes[i] === 0x0a) count++;
  return count;
}

function toJson(event: NodeEvent): string | null {
  try {
    return JSON.stringify(event);
  } catch {
    return null;
  }
}

/** Returns the end of an earlier log, from its first whole line; '' if there is no such log. */
function readTail(path: string): string {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    // Usually there is no such file. Anything worse shows when it is opened for writing.
    return '';
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) return '';
    const start = Math.max(0, stat.size - TAIL_BYTES);
    const bytes = Buffer.alloc(Math.min(stat.size, TAIL_BYTES));
    const text = bytes.toString('utf8', 0, readSync(fd, bytes, 0, bytes.length, start));
    return start === 0 ? text : text.slice(text.indexOf('\n') + 1);
  } finally {
    closeSync(fd);
  }
}

function parseEvent(line: string): NodeEvent | null {
  try {
    const event: unknown = JSON.parse(line);
    const { seq, type } = event as Partial<NodeEvent>;
    return Number.isSafeInteger(seq) && typeof type === 'string' ? (event as NodeEvent) : null;
  } catch {
    return null;
  }
}
