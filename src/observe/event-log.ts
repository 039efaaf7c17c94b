/**
 * What happened, in order: one JSON object per line, only ever added to. The last events stay in memory for those who
 * follow along. A disk that is full or broken costs lines (counted, and told once there is room again), never the
 * node. Sequence numbers go on where the file's last line stopped, so `after=SEQ` means the same across restarts.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { ColoError } from '../error.ts';
import { type AppendFile, fileErrorText, openAppendFile } from './append-file.ts';
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
/** Lines waiting for the disk: seconds of the worst burst. Beyond it they are counted instead of kept. */
const PENDING_BYTES_MAX = 1 << 20;
/** Enough for the ring at usual line lengths. */
const TAIL_BYTES = 512 * 1024;
/** An event is a line to read, not a dump. */
const LINE_CHARACTERS_MAX = 16 * 1024;

export class EventLog {
  /** Events that never got into the file. */
  unwritten = 0;

  readonly #node: string;
  readonly #now: () => number;
  readonly #file: AppendFile;
  readonly #ring: NodeEvent[] = [];
  /** Where the next event goes once the ring is full, which is where the oldest is. */
  #ringNext = 0;
  readonly #listeners = new Set<EventListener>();
  #seq = 0;
  #pending: string[] = [];
  #pendingBytes = 0;
  #writing = false;
  /** The file may end within a line: start the next write with a newline. */
  #torn: boolean;
  #failing = false;
  #unwrittenTold = 0;
  #closed = false;
  #whenIdle: (() => void)[] = [];

  constructor({ path, node, now, open }: EventLogOptions) {
    this.#node = node;
    this.#now = now;
    const tail = readTail(path);
    this.#torn = tail !== '' && !tail.endsWith('\n');
    for (const line of tail.split('\n')) {
      const event = parseEvent(line);
      if (event === null) continue;
      this.#keep(event);
      this.#seq = Math.max(this.#seq, event.seq);
    }
    try {
      this.#file = (open ?? ((name) => openAppendFile(name, 'a')))(path);
    } catch (error) {
      const advice = 'give another eventLog or runDirectory, or make it writable for the user of the node';
      throw new ColoError(
        'COLO_EVENTS_OPEN',
        `cannot write the event log ${path}: ${fileErrorText(error)}; ${advice}`,
        {
          cause: error,
        },
      );
    }
  }

  /** Details may hold anything that JSON can say; the fields of the event itself cannot be overridden. */
  emit(type: string, details: Readonly<Record<string, unknown>> = {}): NodeEvent {
    const head = { seq: ++this.#seq, at: new Date(this.#now()).toISOString(), node: this.#node, type };
    let event: NodeEvent = { ...head, ...details, ...head };
    let line = toJson(event);
    if (line === null || line.length > LINE_CHARACTERS_MAX) {
      event = { ...head, detailsDropped: line === null ? 'not expressible as JSON' : 'too long' };
      line = JSON.stringify(event);
    }
    this.#keep(event);
    this.#append(line);
    for (const listener of this.#listeners) {
      try {
        listener(event);
      } catch (error) {
        // A broken follower must not break what it follows.
        this.#listeners.delete(listener);
        this.emit('events.listener-failed', { message: String(error) });
      }
    }
    return event;
  }

  /** Returns what ends the subscription. */
  subscribe(listener: EventListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** The events in memory with a higher number, oldest first. */
  after(seq: number): NodeEvent[] {
    const oldestFirst = [...this.#ring.slice(this.#ringNext), ...this.#ring.slice(0, this.#ringNext)];
    return oldestFirst.filter((event) => event.seq > seq);
  }

  get lastSeq(): number {
    return this.#seq;
  }

  /** Resolves once everything emitted so far is in the file or counted as unwritten. */
  flush(): Promise<void> {
    return new Promise((resolve) => {
      this.#whenIdle.push(resolve);
      this.#pump();
    });
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    await this.flush();
    this.#closed = true;
    this.#listeners.clear();
    await new Promise<void>((resolve) => this.#file.close(resolve));
  }

  #keep(event: NodeEvent): void {
    if (this.#ring.length < RING_EVENTS_MAX) {
      this.#ring.push(event);
      return;
    }
    this.#ring[this.#ringNext] = event;
    this.#ringNext = (this.#ringNext + 1) % RING_EVENTS_MAX;
  }

  #append(line: string): void {
    if (this.#closed || this.#pendingBytes + line.length > PENDING_BYTES_MAX) {
      this.unwritten++;
      return;
    }
    this.#pending.push(line);
    this.#pendingBytes += line.length + 1;
    this.#pump();
  }

  #pump(): void {
    if (this.#writing) return;
    if (this.#pending.length === 0 || this.#closed) {
      const idle = this.#whenIdle;
      this.#whenIdle = [];
      for (const resolve of idle) resolve();
      return;
    }
    const lines = this.#pending;
    this.#pending = [];
    this.#pendingBytes = 0;
    this.#writing = true;
    const bytes = Buffer.from(`${this.#torn ? '\n' : ''}${lines.join('\n')}\n`);
    this.#file.append(bytes, bytes.length, (error, written) => {
      this.#writing = false;
      if (error === null) {
        this.#torn = false;
        this.#wrote();
      } else {
        // Lines that got in whole count as written; the rest is not tried again, for it may be a lot by then.
        const whole = newlines(bytes, written) - (this.#torn && written > 0 ? 1 : 0);
        if (written > 0) this.#torn = bytes[written - 1] !== 0x0a;
        this.unwritten += lines.length - whole;
        if (!this.#failing) {
          this.#failing = true;
          this.emit('events.unwritten', {
            message: `the event log cannot be written: ${fileErrorText(error)}`,
          });
        }
      }
      this.#pump();
    });
  }

  #wrote(): void {
    this.#failing = false;
    if (this.unwritten === this.#unwrittenTold) return;
    const count = this.unwritten - this.#unwrittenTold;
    this.#unwrittenTold = this.unwritten;
    this.emit('events.resumed', { unwritten: count });
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

/** The end of an earlier log, from its first whole line; '' when there is none. */
function readTail(path: string): string {
  let fd: number;
  try {
    fd = openSync(path, 'r');
  } catch {
    // Absent is usual; anything worse shows when it is opened for writing.
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
