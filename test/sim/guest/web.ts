/**
 * Replies of a web service, and a client that judges them. A VM writes its own time into a reply: into the header's `Date`, where a rule
 * may let it differ, and in some replies to places that only look like that.
 */
import { TcpClient, type TcpClientOptions } from './client.ts';
import type { TcpConnection } from './tcp.ts';
import { decode, encode } from './text.ts';

export const WEB_PORT = 4008;
/** How far the clocks of two guests are apart at most, as they show in replies. */
const CLOCK_MS = 2000;
const EPOCH_MS = Date.UTC(2026, 0, 1);
/** A guest's clock and the client's run apart by less in the life of a world. */
const DRIFT_S = 1;
const LONG_BYTES = 3000;
const FIXED = dateAt(0);

function dateAt(seconds: number): string {
  return new Date(1000 * seconds).toUTCString();
}

/** Returns the reply to request `number`, with the VM's time in the place of each `@`. */
function template(number: number): string {
  const body = `reply ${number}`;
  const head = (lines: string, length = body.length) =>
    `HTTP/1.1 200 OK\r\nDate: ${lines}\r\nContent-Length: ${length}\r\n\r\n`;
  switch (number % 12) {
    case 6:
      return `${head('@', LONG_BYTES)}${body.padEnd(LONG_BYTES, '.')}`;
    case 7:
      return `${head(FIXED)}${body}\r\nDate: @\r\n\r\n`;
    case 8:
      return `${head('@')}${body}`.replaceAll('\r', '');
    case 9:
      return `${head('@\r\nDate: @')}${body}`;
    case 10:
      return `${head('@')}${body}\r\nDate: ${FIXED}\r\n\r\n`;
    default:
      return `${head('@')}${body}`;
  }
}

/** `random`: from 0 to 1, how far the guest's clock is ahead now. */
export function webReply(number: number, nowMs: number, random: number): Uint8Array {
  const seconds = Math.floor((EPOCH_MS + nowMs + random * CLOCK_MS) / 1000);
  return encode(template(number).replaceAll('@', dateAt(seconds)));
}

/** Each time in a reply is one that a VM may have had while it worked, and all else is exact. */
export class WebClient extends TcpClient {
  private number = 0;
  private expected: { text: string; askedMs: number }[] = [];

  constructor(options: Omit<TcpClientOptions, 'port'>) {
    super({ ...options, port: WEB_PORT });
  }

  protected request(): Uint8Array {
    this.number++;
    this.expected.push({
      text: template(this.number).replaceAll('@', FIXED.replaceAll(/./g, '@')),
      askedMs: this.host.port.now(),
    });
    return encode(`get ${this.number}\n`);
  }

  protected takeReply(connection: TcpConnection): boolean {
    const [{ text, askedMs }] = this.expected;
    if (connection.input.length < text.length) return false;
    const reply = decode(connection.input.view(0, text.length));
    connection.consume(text.length);
    this.expected.shift();
    this.judge(reply, text, askedMs);
    this.advance();
    return true;
  }

  private judge(reply: string, text: string, askedMs: number): void {
    const from = Math.floor((EPOCH_MS + askedMs) / 1000) - DRIFT_S;
    const to = Math.floor((EPOCH_MS + this.host.port.now() + CLOCK_MS) / 1000) + DRIFT_S;
    const places = [...text.matchAll(/@+/g)].map(({ index }) => index);
    let rest = reply;
    for (const place of places) {
      const date = reply.slice(place, place + FIXED.length);
      const seconds = Date.parse(date) / 1000;
      if (dateAt(seconds) !== date || seconds < from || seconds > to)
        this.violation(`'${date}' is no time of a VM`);
      rest =
        rest.slice(0, place) + text.slice(place, place + FIXED.length) + rest.slice(place + FIXED.length);
    }
    if (rest !== text) this.violation(`'${reply}' instead of '${text}'`);
  }

  /** Rests no longer. */
  hurry(): void {
    if (this.connection === undefined) return;
    this.nextAt = this.host.port.now();
    this.host.tick();
  }

  protected lost(): void {
    this.expected = [];
  }

  protected forget(): void {
    this.expected = [];
  }
}
