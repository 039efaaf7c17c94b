/**
 * One HTTP download on one connection, at a limited rate.
 *
 * The client limits the rate: a token bucket pauses reading the socket. Reads are so small (about 10 ms of data) that
 * the flow is smooth and a gap of the network does not disappear in the client's own pauses. Linux widens a
 * receive buffer only for a reader that keeps up, so the window stays near its initial 64 KiB and TCP's flow control
 * limits the guest.
 *
 * There is no retry: a connection that ends before the last byte is a broken connection.
 */
import { createHash } from 'node:crypto';
import type { Socket } from 'node:net';
import { Arrivals } from './gaps.ts';
import {
  Breaks,
  BrokenConnection,
  type Clock,
  monotonicMs,
  name,
  open,
  type Target,
  whenAborted,
} from './net.ts';

export interface DownloadOptions {
  readonly target: Target;
  /** Default `/big.bin`. */
  readonly path?: string;
  readonly expectedBytes: number;
  /** Lower-case hexadecimal. */
  readonly expectedSha256: string;
  /** Bytes of the file per second; no limit if left out. */
  readonly bytesPerSecond?: number;
  readonly connectTimeoutMs?: number;
  /** A connection without a byte for this long counts as broken. */
  readonly stallTimeoutMs?: number;
  readonly clock?: Clock;
}

export interface DownloadReport {
  readonly ok: boolean;
  readonly bytes: number;
  readonly expectedBytes: number;
  /** Digest of all bytes received, complete or not. */
  readonly sha256: string;
  readonly startedMs: number;
  readonly endedMs: number;
  /** The signal ended the download before the last byte. */
  readonly stopped: boolean;
  readonly broken: Breaks;
  /** What was wrong on a connection that did not break: the status, the length, the content. */
  readonly problems: readonly string[];
}

const HEADER_BYTES_MAX = 16_384;
const READ_BYTES_MIN = 1024;
const READ_BYTES_MAX = 65_536;
/** Time between two reads at the limited rate. */
const READ_MS = 10;
/** How much a late timer may catch up; more would turn the end of a blackout into a burst. */
const BURST_MS = 50;
const HEADER_END = Buffer.from('\r\n\r\n');

export class Download {
  readonly arrivals = new Arrivals();
  readonly expectedBytes: number;
  /** Bytes of the file received. */
  bytes = 0;

  readonly #options: DownloadOptions;
  readonly #clock: Clock;
  readonly #rate: number;
  readonly #hash = createHash('sha256');
  readonly #broken = new Breaks();
  readonly #problems: string[] = [];
  readonly #ended = Promise.withResolvers<void>();
  #socket: Socket | undefined;
  #header: Buffer | undefined = Buffer.alloc(0);
  #tokens = 0;
  #tokensAtMs = 0;
  #resumeTimer: NodeJS.Timeout | undefined;
  #stallTimer: NodeJS.Timeout | undefined;
  #done = false;
  #stopped = false;

  constructor(options: DownloadOptions) {
    this.#options = options;
    this.#clock = options.clock ?? monotonicMs;
    this.#rate = options.bytesPerSecond ?? Number.POSITIVE_INFINITY;
    this.expectedBytes = options.expectedBytes;
  }

  /** Downloads once. Resolves when the connection has ended, in whatever way; never rejects. */
  async run(signal: AbortSignal): Promise<DownloadReport> {
    const startedMs = this.#clock();
    this.arrivals.start(startedMs);
    this.#tokensAtMs = startedMs;
    const forget = whenAborted(signal, () => this.#stop());
    try {
      if (!this.#stopped) await this.#transfer();
    } catch (error) {
      if (!this.#stopped) this.#break(error);
    } finally {
      forget();
      this.#quiet();
    }
    const endedMs = this.#clock();
    this.arrivals.finish(endedMs);
    const sha256 = this.#hash.digest('hex');
    if (this.#done && sha256 !== this.#options.expectedSha256) {
      this.#problems.push(`the content differs: sha256 ${sha256}`);
    }
    return {
      ok: this.#done && this.#problems.length === 0 && this.#broken.count === 0,
      bytes: this.bytes,
      expectedBytes: this.expectedBytes,
      sha256,
      startedMs,
      endedMs,
      stopped: this.#stopped && !this.#done,
      broken: this.#broken,
      problems: this.#problems,
    };
  }

  async #transfer(): Promise<void> {
    const { target, path = '/big.bin', connectTimeoutMs = 10_000 } = this.#options;
    const readBytes = Number.isFinite(this.#rate)
      ? Math.min(READ_BYTES_MAX, Math.max(READ_BYTES_MIN, Math.floor((this.#rate * READ_MS) / 1000)))
      : READ_BYTES_MAX;
    const socket = await open(target, connectTimeoutMs, {
      buffer: Buffer.allocUnsafeSlow(readBytes),
      callback: (count, buffer) => this.#receive(Buffer.from(buffer.buffer, buffer.byteOffset, count)),
    });
    this.#socket = socket;
    if (this.#stopped) {
      socket.destroy();
      return;
    }
    socket.on('error', (error) => this.#break(error));
    socket.on('end', () => {
      if (this.#done) return;
      const detail = `the service closed after ${this.bytes} of ${this.expectedBytes} bytes`;
      this.#break(new BrokenConnection('early-close', detail));
    });
    socket.on('close', () => this.#ended.resolve());
    this.#watchForStall();
    socket.write(`GET ${path} HTTP/1.1\r\nHost: ${name(target)}\r\nConnection: close\r\n\r\n`);
    await this.#ended.promise;
  }

  /** Returns whether to continue reading, as node:net's onread expects. */
  #receive(chunk: Buffer): boolean {
    if (this.#stopped || this.#socket?.destroyed !== false) return false;
    const nowMs = this.#clock();
    this.#watchForStall();
    const body = this.#header === undefined ? chunk : this.#readHeader(chunk);
    if (body === undefined || body.length === 0) return true;
    if (this.bytes + body.length > this.expectedBytes) {
      this.#fail(`more than the ${this.expectedBytes} bytes expected`);
      return false;
    }
    this.arrivals.arrive(nowMs, body.length);
    this.bytes += body.length;
    this.#hash.update(body);
    if (this.bytes === this.expectedBytes) {
      // Our FIN. Bytes that the service sends before its own FIN are checked as before.
      this.#done = true;
      this.arrivals.finish(nowMs);
      this.#socket.end();
      return true;
    }
    return this.#spend(body.length, nowMs);
  }

  /** The token bucket. Returns true to continue reading; else pauses, and resumes by a timer. */
  #spend(count: number, nowMs: number): boolean {
    if (!Number.isFinite(this.#rate)) return true;
    const perMs = this.#rate / 1000;
    const earned = (nowMs - this.#tokensAtMs) * perMs;
    this.#tokens = Math.min(this.#tokens + earned, perMs * BURST_MS) - count;
    this.#tokensAtMs = nowMs;
    if (this.#tokens >= 0) return true;
    this.arrivals.pause(nowMs);
    clearTimeout(this.#stallTimer);
    this.#resumeTimer = setTimeout(() => {
      this.arrivals.resume(this.#clock());
      this.#watchForStall();
      this.#socket?.resume();
    }, -this.#tokens / perMs);
    return false;
  }

  /** Returns the part of the chunk that is body, or undefined while the header is incomplete. */
  #readHeader(chunk: Buffer): Buffer | undefined {
    const header = Buffer.concat([this.#header ?? Buffer.alloc(0), chunk]);
    const end = header.indexOf(HEADER_END);
    if (end < 0) {
      this.#header = header;
      if (header.length > HEADER_BYTES_MAX)
        this.#fail(`an HTTP header longer than ${HEADER_BYTES_MAX} bytes`);
      return undefined;
    }
    this.#header = undefined;
    const lines = header.toString('latin1', 0, end).split('\r\n');
    if (!/^HTTP\/1\.[01] 200(?: |$)/.test(lines[0])) {
      this.#fail(`the service replied '${lines[0].slice(0, 80)}'`);
      return undefined;
    }
    for (const line of lines.slice(1)) {
      const [, field, value] = /^([^:]+):\s*(.*?)\s*$/.exec(line) ?? ['', '', ''];
      if (field.toLowerCase() === 'content-length' && value !== String(this.expectedBytes)) {
        this.#fail(`Content-Length is ${value}, expected ${this.expectedBytes}`);
        return undefined;
      }
      if (field.toLowerCase() === 'transfer-encoding') {
        this.#fail(`Transfer-Encoding '${value}', expected the plain file`);
        return undefined;
      }
    }
    return header.subarray(end + HEADER_END.length);
  }

  #watchForStall(): void {
    const { stallTimeoutMs = 30_000 } = this.#options;
    clearTimeout(this.#stallTimer);
    this.#stallTimer = setTimeout(() => {
      const what = this.#done ? 'the service did not close' : `no byte after ${this.bytes}`;
      this.#break(new BrokenConnection('timeout', `${what} for ${stallTimeoutMs} ms`));
    }, stallTimeoutMs);
  }

  #break(error: unknown): void {
    // One connection breaks once: an error that follows from closing it is not another one.
    if (this.#broken.count === 0 && this.#problems.length === 0) {
      this.#broken.note(error, `download, byte ${this.bytes}`, this.#clock());
    }
    this.#end();
  }

  #fail(problem: string): void {
    this.#problems.push(problem);
    this.#end();
  }

  #stop(): void {
    this.#stopped = true;
    this.#end();
  }

  #end(): void {
    this.#quiet();
    this.#socket?.destroy();
    this.#ended.resolve();
  }

  #quiet(): void {
    clearTimeout(this.#resumeTimer);
    clearTimeout(this.#stallTimer);
  }
}
