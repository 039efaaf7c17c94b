/**
 * The pages that are open: sends each of them the feed's messages as server-sent events.
 *
 * Goal: a page that does not read (a laptop that sleeps, a slow network) costs a bounded amount of memory, and no other page anything.
 *
 * | a page                              | gets                                                                        |
 * |-------------------------------------|-----------------------------------------------------------------------------|
 * | opens                               | `hello`; refused if READERS_MAX are open                                    |
 * | reads                               | each message                                                                |
 * | has BACKLOG_BYTES_MAX still to read | no more messages; its missed events are counted, and come with the next ones |
 * | has not read for STUCK_MS           | its connection is closed: it may come back                                  |
 */
import type { ServerResponse } from 'node:http';
import type { Clock } from '../io/clock.ts';
import type { FeedMessages } from './messages.ts';

/** A team's screens and phones. Each may have BACKLOG_BYTES_MAX and one `hello` in memory. */
const READERS_MAX = 16;
/** A quarter of a minute of a busy node's messages. */
const BACKLOG_BYTES_MAX = 256 * 1024;
const STUCK_MS = 30_000;

type Reader = {
  response: ServerResponse;
  missed: number;
  /** since when it has more to read than it may; null if it has not */
  fullSinceMs: number | null;
  /** `hello`, which may be larger than the backlog, is not all read yet */
  backlogMax: number;
};

export class Readers {
  private readonly clock: Clock;
  private readonly readers = new Set<Reader>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  get isFull(): boolean {
    return this.readers.size >= READERS_MAX;
  }

  /** Sends `hello` and, from now on, each message until the connection ends. */
  add(response: ServerResponse, hello: string): void {
    // nginx passes a response on as it comes only if it is told so.
    response.writeHead(200, { 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' });
    response.write(message('hello', hello));
    const backlogMax = response.writableLength + BACKLOG_BYTES_MAX;
    const reader: Reader = { response, missed: 0, fullSinceMs: null, backlogMax };
    this.readers.add(reader);
    response.on('drain', () => {
      reader.backlogMax = BACKLOG_BYTES_MAX;
    });
    response.on('close', () => this.readers.delete(reader));
  }

  view(json: string): void {
    const text = message('view', json);
    for (const reader of this.readers) {
      if (this.takes(reader)) reader.response.write(text);
      if (reader.missed > 0) this.sendEvents(reader, [], '[]', 0);
    }
  }

  events(lines: readonly string[], missed: number): void {
    const json = `[${lines.join(',')}]`;
    for (const reader of this.readers) this.sendEvents(reader, lines, json, missed);
  }

  /** Ends every connection. */
  end(): void {
    for (const { response } of this.readers) response.end();
  }

  private sendEvents(reader: Reader, lines: readonly string[], json: string, missed: number): void {
    if (!this.takes(reader)) {
      reader.missed += lines.length + missed;
      return;
    }
    const before = reader.missed;
    reader.missed = 0;
    reader.response.write(message('events', `{"events":${json},"missed":${before + missed}}`));
  }

  private takes(reader: Reader): boolean {
    const { response, backlogMax } = reader;
    if (response.writableLength <= backlogMax) {
      reader.fullSinceMs = null;
      return true;
    }
    const nowMs = this.clock.now();
    reader.fullSinceMs ??= nowMs;
    if (nowMs - reader.fullSinceMs > STUCK_MS) response.destroy();
    return false;
  }
}

const message = (name: keyof FeedMessages, json: string): string => `event: ${name}\ndata: ${json}\n\n`;
