/**
 * Connections that the guest opens: a listener on the host, and a driver that has the guest's connect-out
 * service open one connection to it and use that connection repeatedly.
 *
 * The driver sends the guest `connect HOST PORT TEXT`, then `again TEXT`. The guest sends TEXT as a line on its
 * connection, the listener replies `reply:TEXT` there and leaves the connection open, and the guest passes that line to
 * the driver. The driver can therefore check both ends: the reply is right, the text arrived once, and always on the
 * one connection.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { Findings } from './findings.ts';
import { Arrivals } from './gaps.ts';
import { LineConnection } from './lines.ts';
import { Breaks, BrokenConnection, type Clock, monotonicMs, rest, type Target, whenAborted } from './net.ts';
import { Samples } from './samples.ts';

const LINE_BYTES_MAX = 65_536;

/** The host's end. Each driver needs one of its own, since it checks everything that arrives there. */
export class OutListener {
  readonly broken = new Breaks();
  /** Connections opened to the listener. */
  connections = 0;
  /** Lines received on all of them. */
  lines = 0;
  /** The last line, and the number of its connection, counted from 1. */
  lastText = '';
  lastConnection = 0;

  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #clock: Clock;
  #closing = false;

  private constructor(clock: Clock) {
    this.#clock = clock;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  static async open(host = '127.0.0.1', port = 0, clock: Clock = monotonicMs): Promise<OutListener> {
    const listener = new OutListener(clock);
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    listener.#server.once('error', reject);
    listener.#server.listen(port, host, resolve);
    await promise;
    return listener;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** Ends all connections; what happens on them from now on is not counted. */
  async close(): Promise<void> {
    this.#closing = true;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    for (const socket of this.#sockets) socket.destroy();
    await promise;
  }

  #accept(socket: Socket): void {
    this.connections += 1;
    const connection = this.connections;
    let pending = '';
    this.#sockets.add(socket);
    socket.setNoDelay(true);
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      const lines = (pending + text).split('\n');
      pending = lines.pop() ?? '';
      for (const line of lines) {
        this.lines += 1;
        this.lastText = line;
        this.lastConnection = connection;
        socket.write(`reply:${line}\n`);
      }
      if (pending.length > LINE_BYTES_MAX) socket.destroy(new Error('a line that does not end'));
    });
    socket.on('error', (error) => {
      if (!this.#closing) this.broken.note(error, `connection ${connection} of the guest`, this.#clock());
    });
    socket.on('close', () => this.#sockets.delete(socket));
  }
}

export interface ConnectOutOptions {
  /** The guest's service, at its address for the host. */
  readonly target: Target;
  readonly listener: OutListener;
  /** The listener's address for the guest. */
  readonly reachedAs: Target;
  readonly everyMs?: number;
  readonly connectTimeoutMs?: number;
  readonly requestTimeoutMs?: number;
  readonly clock?: Clock;
}

export interface ConnectOutFinding {
  readonly atMs: number;
  readonly kind: 'wrong-reply' | 'unasked' | 'wrong-text' | 'text-count' | 'another-connection';
  readonly exchange: number;
  readonly detail: string;
}

export interface ConnectOutReport {
  readonly ok: boolean;
  readonly exchanges: number;
  readonly findings: Findings<ConnectOutFinding>;
  /** Broken connections: ours to the guest, and the guest's to the listener. */
  readonly broken: readonly Breaks[];
}

export class ConnectOut {
  readonly arrivals = new Arrivals();
  readonly rtt = new Samples();
  exchanges = 0;

  readonly #options: ConnectOutOptions;
  readonly #clock: Clock;
  readonly #findings = new Findings<ConnectOutFinding>();
  readonly #broken = new Breaks();

  constructor(options: ConnectOutOptions) {
    this.#options = options;
    this.#clock = options.clock ?? monotonicMs;
  }

  /** Runs until the signal, and finishes the exchange under way. Never rejects. */
  async run(signal: AbortSignal): Promise<ConnectOutReport> {
    const { target, reachedAs, everyMs = 50 } = this.#options;
    const { connectTimeoutMs = 10_000, requestTimeoutMs = 10_000 } = this.#options;
    this.arrivals.start(this.#clock());
    let forget = () => {};
    let drainTimer: NodeJS.Timeout | undefined;
    try {
      const connection = await LineConnection.open(target, connectTimeoutMs, (line) => {
        this.#find('unasked', line);
      });
      forget = whenAborted(signal, () => {
        const late = new BrokenConnection('timeout', `not done ${requestTimeoutMs} ms after the end`);
        drainTimer = setTimeout(() => connection.destroy(late), requestTimeoutMs);
      });
      while (!signal.aborted) {
        const text = `text-${this.exchanges + 1}`;
        const verb = this.exchanges === 0 ? `connect ${reachedAs.host} ${reachedAs.port}` : 'again';
        const sentMs = this.#clock();
        this.arrivals.resume(sentMs);
        const reply = await connection.ask(`${verb} ${text}`, requestTimeoutMs);
        this.#check(text, reply, sentMs);
        await rest(everyMs, signal);
      }
      await connection.close(requestTimeoutMs);
    } catch (error) {
      this.#broken.note(error, `connect-out, exchange ${this.exchanges + 1}`, this.#clock());
    } finally {
      forget();
      clearTimeout(drainTimer);
    }
    this.arrivals.finish(this.#clock());
    const broken = [this.#broken, this.#options.listener.broken];
    const whole = broken.every((breaks) => breaks.count === 0);
    return {
      ok: this.exchanges > 0 && this.#findings.count === 0 && whole,
      exchanges: this.exchanges,
      findings: this.#findings,
      broken,
    };
  }

  #check(text: string, reply: string, sentMs: number): void {
    const { listener } = this.#options;
    const nowMs = this.#clock();
    this.arrivals.arrive(nowMs);
    this.arrivals.pause(nowMs);
    this.rtt.add(nowMs - sentMs);
    this.exchanges += 1;
    if (reply !== `reply:${text}`) this.#find('wrong-reply', `'${reply}' to '${text}'`);
    if (listener.lastText !== text) this.#find('wrong-text', `'${listener.lastText}' arrived for '${text}'`);
    if (listener.lines !== this.exchanges) {
      this.#find('text-count', `${listener.lines} texts arrived of ${this.exchanges} sent`);
    }
    if (listener.connections !== 1 || listener.lastConnection !== 1) {
      const detail = `on connection ${listener.lastConnection}, ${listener.connections} were opened`;
      this.#find('another-connection', detail);
    }
  }

  #find(kind: ConnectOutFinding['kind'], detail: string): void {
    this.#findings.add({ atMs: this.#clock(), kind, exchange: this.exchanges, detail });
  }
}
