/**
 * Prints the events of a process that carries a VM's network, and never waits for whoever reads them.
 *
 * A reader that stops reading (a pager, a log shipper that hangs, a terminal after Ctrl+S) must stop neither the traffic nor
 * the end of the process, nor fill its memory. Node queues what a pipe does not take, without a bound, and waits for a terminal.
 *
 * Limits: UNREAD_BYTES_MAX wait for the reader; newer events are dropped. When the reader has caught up, `events.unprinted`
 * has their number, and the `seq` of the last. At the end FLUSH_MS_MAX is left for what waits.
 */
import type { WriteStream } from 'node:tty';
import type { NodeEvent } from '../observe/status.ts';
import { eventText } from './event-text.ts';

export const UNREAD_BYTES_MAX = 1024 * 1024;
const FLUSH_MS_MAX = 1000;

/** The part of process.stdout that is used. */
type Output = Pick<WriteStream, 'write' | 'writableLength' | 'once' | 'off'>;

export class EventPrinter {
  private readonly output: Output;
  private readonly format: 'json' | 'text';
  private unprinted = 0;
  private last: NodeEvent | null = null;

  constructor(output: Output, format: 'json' | 'text') {
    this.output = output;
    this.format = format;
    waitForNoReader(output);
  }

  print(event: NodeEvent): void {
    if (this.unprinted === 0 && this.output.writableLength <= UNREAD_BYTES_MAX) {
      this.write(event);
      return;
    }
    if (this.unprinted === 0) this.output.once('drain', () => this.caughtUp());
    this.unprinted++;
    this.last = event;
  }

  /** Prints the last event, whatever waits, and resolves when the reader has taken all, or after FLUSH_MS_MAX. */
  async end(last?: NodeEvent): Promise<void> {
    this.caughtUp();
    if (last !== undefined) this.write(last);
    if (this.output.writableLength === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, FLUSH_MS_MAX);
    this.output.once('drain', resolve);
    await promise;
    this.output.off('drain', resolve);
    clearTimeout(timer);
  }

  private caughtUp(): void {
    const { last, unprinted: events } = this;
    this.unprinted = 0;
    this.last = null;
    if (last !== null) this.write({ ...last, type: 'events.unprinted', events });
  }

  private write(event: NodeEvent): void {
    this.output.write(`${this.format === 'json' ? JSON.stringify(event) : eventText(event)}\n`);
  }
}

/** Node makes terminals blocking, and has no public way to undo that. */
function waitForNoReader(output: Output): void {
  const { _handle } = output as { _handle?: { setBlocking?: (blocking: boolean) => void } };
  _handle?.setBlocking?.(false);
}
