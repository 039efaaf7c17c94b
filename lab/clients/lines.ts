/** A TCP connection that sends one line and waits for one line. */
import type { Socket } from 'node:net';
import { BrokenConnection, brokenBy, open, type Target } from './net.ts';

/** No service of the guest sends a longer line; a line without end must not fill the memory. */
const LINE_BYTES_MAX = 65_536;

interface Asked {
  readonly resolve: (line: string) => void;
  readonly reject: (error: BrokenConnection) => void;
}

export class LineConnection {
  readonly #socket: Socket;
  readonly #onUnasked: (line: string) => void;
  #pending = '';
  #asked: Asked | undefined;
  #broken: BrokenConnection | undefined;
  #closing = false;
  readonly #closed = Promise.withResolvers<void>();

  private constructor(socket: Socket, onUnasked: (line: string) => void) {
    this.#socket = socket;
    this.#onUnasked = onUnasked;
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => this.#receive(text));
    socket.on('error', (error) => this.#break(brokenBy(error)));
    socket.on('end', () => {
      if (!this.#closing)
        this.#break(new BrokenConnection('early-close', 'the service closed the connection'));
    });
    socket.on('close', () => this.#closed.resolve());
  }

  /** `onUnasked` is called with every line that replies to no request. */
  static async open(
    target: Target,
    timeoutMs: number,
    onUnasked: (line: string) => void,
  ): Promise<LineConnection> {
    return new LineConnection(await open(target, timeoutMs), onUnasked);
  }

  get localPort(): number {
    return this.#socket.localPort ?? 0;
  }

  /** Sends a line and resolves with the next one received. One request at a time. Rejects with `BrokenConnection`. */
  async ask(line: string, timeoutMs: number): Promise<string> {
    if (this.#broken !== undefined) throw this.#broken;
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    this.#asked = { resolve, reject };
    const timer = setTimeout(() => {
      this.#break(new BrokenConnection('timeout', `no reply to '${line}' within ${timeoutMs} ms`));
    }, timeoutMs);
    this.#socket.write(`${line}\n`);
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Closes in order: our FIN, then the service's. Rejects with `BrokenConnection` at anything else. */
  async close(timeoutMs: number): Promise<void> {
    if (this.#broken !== undefined) throw this.#broken;
    this.#closing = true;
    const timer = setTimeout(() => {
      this.#break(new BrokenConnection('timeout', `the service did not close within ${timeoutMs} ms`));
    }, timeoutMs);
    this.#socket.end();
    await this.#closed.promise;
    clearTimeout(timer);
    // An event may have set it meanwhile, which the compiler cannot know.
    const broken = this.#broken as BrokenConnection | undefined;
    if (broken !== undefined) throw broken;
    if (this.#pending !== '') this.#onUnasked(this.#pending);
  }

  /** Closes at once; a request under way rejects. */
  destroy(error: BrokenConnection): void {
    this.#break(error);
  }

  #receive(text: string): void {
    this.#pending += text;
    for (;;) {
      const end = this.#pending.indexOf('\n');
      if (end < 0) break;
      const line = this.#pending.slice(0, end);
      this.#pending = this.#pending.slice(end + 1);
      const asked = this.#asked;
      this.#asked = undefined;
      if (asked === undefined) this.#onUnasked(line);
      else asked.resolve(line);
    }
    if (this.#pending.length > LINE_BYTES_MAX) {
      this.#break(new BrokenConnection('error', `a line longer than ${LINE_BYTES_MAX} characters`));
    }
  }

  #break(error: BrokenConnection): void {
    this.#broken ??= error;
    this.#asked?.reject(this.#broken);
    this.#asked = undefined;
    this.#socket.destroy();
  }
}
