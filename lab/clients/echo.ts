/**
 * One long TCP session with the echo service: it sends numbered messages of random content, several under way at once,
 * and compares every byte that comes back with the byte that was sent.
 */
import type { Socket } from 'node:net';
import { Findings } from './findings.ts';
import { Arrivals } from './gaps.ts';
import { Breaks, BrokenConnection, type Clock, monotonicMs, open, type Target, whenAborted } from './net.ts';
import { Random } from './random.ts';
import { Samples } from './samples.ts';

export interface EchoOptions {
  readonly target: Target;
  readonly everyMs?: number;
  /** Messages that may be under way; at this number a tick sends nothing. Default 256. */
  readonly outstandingMax?: number;
  /** Bytes per message. Default 16 to 3000, so that some messages take several segments. */
  readonly messageBytesMin?: number;
  readonly messageBytesMax?: number;
  readonly seed?: number;
  readonly connectTimeoutMs?: number;
  /** How long to wait, after the signal, for messages under way. */
  readonly drainMs?: number;
  readonly clock?: Clock;
}

export interface EchoFinding {
  readonly atMs: number;
  readonly kind: 'wrong-byte' | 'unasked';
  /** The message to which the byte should belong. */
  readonly message: number;
  /** The byte's offset in the message, and in everything received on the connection. */
  readonly offset: number;
  readonly streamOffset: number;
  /** -1 if no byte was expected. */
  readonly expected: number;
  readonly got: number;
}

export interface EchoReport {
  readonly ok: boolean;
  readonly sent: number;
  readonly echoed: number;
  /** Messages with a byte that never came back. */
  readonly unreturned: number;
  readonly bytes: number;
  /** Ticks that sent nothing because too many messages were under way. */
  readonly skipped: number;
  readonly findings: Findings<EchoFinding>;
  readonly broken: Breaks;
}

/** Each message begins with its number and length, so that a reader of a capture can find it. */
const HEADER_BYTES = 8;

interface Message {
  readonly number: number;
  readonly bytes: Buffer;
  readonly sentMs: number;
  faulty: boolean;
}

export class Echo {
  readonly arrivals = new Arrivals();
  readonly rtt = new Samples();
  readonly findings = new Findings<EchoFinding>();
  readonly broken = new Breaks();
  sent = 0;
  echoed = 0;
  skipped = 0;

  readonly #options: EchoOptions;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #ended = Promise.withResolvers<void>();
  readonly #underWay: Message[] = [];
  /** How many bytes of the first message under way have come back. */
  #headBytes = 0;
  #received = 0;
  #stopping = false;
  #closing = false;
  #socket: Socket | undefined;
  #sendTimer: NodeJS.Timeout | undefined;
  #drainTimer: NodeJS.Timeout | undefined;

  constructor(options: EchoOptions) {
    this.#options = options;
    this.#clock = options.clock ?? monotonicMs;
    this.#random = new Random(options.seed ?? 1);
  }

  /** Runs until the signal, then until every byte sent has come back. Never rejects. */
  async run(signal: AbortSignal): Promise<EchoReport> {
    const { target, everyMs = 20, connectTimeoutMs = 10_000 } = this.#options;
    this.arrivals.start(this.#clock());
    let forget = () => {};
    try {
      const socket = await open(target, connectTimeoutMs);
      this.#socket = socket;
      socket.on('data', (chunk: Buffer) => this.#receive(chunk));
      socket.on('error', (error) => this.#break(error));
      socket.on('end', () => {
        if (!this.#closing)
          this.#break(new BrokenConnection('early-close', 'the service closed the session'));
      });
      socket.on('close', () => this.#ended.resolve());
      this.#sendTimer = setInterval(() => this.#send(), everyMs);
      this.#send();
      forget = whenAborted(signal, () => this.#stop());
      await this.#ended.promise;
    } catch (error) {
      this.#break(error);
    } finally {
      forget();
      clearInterval(this.#sendTimer);
      clearTimeout(this.#drainTimer);
    }
    this.arrivals.finish(this.#clock());
    const unreturned = this.sent - this.echoed;
    return {
      ok: this.echoed > 0 && unreturned === 0 && this.findings.count === 0 && this.broken.count === 0,
      sent: this.sent,
      echoed: this.echoed,
      unreturned,
      bytes: this.#received,
      skipped: this.skipped,
      findings: this.findings,
      broken: this.broken,
    };
  }

  #send(): void {
    const { outstandingMax = 256, messageBytesMin = 16, messageBytesMax = 3000 } = this.#options;
    if (this.#underWay.length >= outstandingMax) {
      this.skipped += 1;
      return;
    }
    const bytes = Buffer.allocUnsafe(
      this.#random.between(Math.max(HEADER_BYTES, messageBytesMin), messageBytesMax),
    );
    bytes.writeUInt32BE(this.sent >>> 0, 0);
    bytes.writeUInt32BE(bytes.length, 4);
    this.#random.fill(bytes, HEADER_BYTES);
    const nowMs = this.#clock();
    if (this.#underWay.length === 0) this.arrivals.resume(nowMs);
    this.#underWay.push({ number: this.sent, bytes, sentMs: nowMs, faulty: false });
    this.sent += 1;
    this.#socket?.write(bytes);
  }

  #receive(chunk: Buffer): void {
    const nowMs = this.#clock();
    this.arrivals.arrive(nowMs, chunk.length);
    let at = 0;
    while (at < chunk.length) {
      const message = this.#underWay[0];
      if (message === undefined) {
        this.#find('unasked', this.sent, 0, -1, chunk[at], nowMs);
        this.#received += chunk.length - at;
        break;
      }
      const count = Math.min(chunk.length - at, message.bytes.length - this.#headBytes);
      this.#check(message, chunk, at, count, nowMs);
      at += count;
      this.#received += count;
      this.#headBytes += count;
      if (this.#headBytes < message.bytes.length) break;
      this.#underWay.shift();
      this.#headBytes = 0;
      this.echoed += 1;
      this.rtt.add(nowMs - message.sentMs);
    }
    if (this.#underWay.length > 0) return;
    this.arrivals.pause(nowMs);
    if (this.#stopping) this.#close();
  }

  /** Records one finding per message: after a missing byte all that follow are wrong too. */
  #check(message: Message, chunk: Buffer, at: number, count: number, nowMs: number): void {
    const from = this.#headBytes;
    if (message.faulty || chunk.compare(message.bytes, from, from + count, at, at + count) === 0) return;
    message.faulty = true;
    let i = 0;
    while (chunk[at + i] === message.bytes[from + i]) i += 1;
    this.#received += i;
    this.#find('wrong-byte', message.number, from + i, message.bytes[from + i], chunk[at + i], nowMs);
    this.#received -= i;
  }

  #find(
    kind: EchoFinding['kind'],
    message: number,
    offset: number,
    expected: number,
    got: number,
    atMs: number,
  ): void {
    this.findings.add({ atMs, kind, message, offset, streamOffset: this.#received, expected, got });
  }

  #stop(): void {
    const { drainMs = 5000 } = this.#options;
    this.#stopping = true;
    clearInterval(this.#sendTimer);
    this.#drainTimer = setTimeout(() => {
      const what = this.#closing
        ? 'the service did not close'
        : `${this.#underWay.length} messages did not return`;
      this.#break(new BrokenConnection('timeout', `${what} within ${drainMs} ms`));
    }, drainMs);
    if (this.#underWay.length === 0) this.#close();
  }

  #close(): void {
    this.#closing = true;
    this.#socket?.end();
  }

  #break(error: unknown): void {
    // One session breaks once.
    if (this.broken.count === 0) this.broken.note(error, `echo, message ${this.echoed}`, this.#clock());
    clearInterval(this.#sendTimer);
    this.#socket?.destroy();
    this.#ended.resolve();
  }
}
