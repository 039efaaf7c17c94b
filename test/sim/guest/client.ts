/**
 * The common part of all clients, and the host that they run on.
 *
 * A client judges a run: it checks every byte, remembers every reply, and notes as a violation whatever a service on one
 * healthy machine would never do. It does not know when the pair fails over, since that must not matter. Slowness is not
 * a violation; `progress` and `lastProgressMs` let the world judge that.
 */
import { Alarm } from './alarm.ts';
import type { Machine, MachinePort } from './machine.ts';
import type { Address, Mac } from './packets.ts';
import { Stack } from './stack.ts';
import type { TcpConnection } from './tcp.ts';
import type { TcpOptions } from './tcp-options.ts';

const NEVER = Number.POSITIVE_INFINITY;

export interface Client {
  readonly name: string;
  /** Its work is done. */
  finished(): boolean;
  readonly violations: readonly string[];
  /** Replies, or bytes of a stream, that were checked. Only grows. */
  readonly progress: number;
  readonly lastProgressMs: number;
  readonly stats: Readonly<Record<string, number>>;
  /** No guarantee holds any more, after two faults at once: forgets all replies and starts from nothing. */
  forgive(): void;
  /** Its streams are so long that they would be most of a world's frames. */
  readonly hasLongStreams?: boolean;
  /** Spreads its work over `durationMs`, with rests of up to `restMsMax`. To be called before it begins. */
  pace?(restMsMax: number, durationMs: number): void;
  /** For the host. */
  attach(host: ClientHost): void;
  tick(now: number): void;
  readonly nextAt: number;
  onTcp?(connection: TcpConnection): void;
  onUdp?(source: Address, sourcePort: number, payload: Uint8Array): void;
  onEchoReply?(source: Address, sequence: number, payload: Uint8Array): void;
}

export interface ClientHostOptions {
  readonly mac: Mac;
  readonly address4: Address;
  readonly address6: Address;
  readonly tcp?: Partial<TcpOptions>;
}

/** A machine with one stack and some clients. It has no snapshots: clients are not protected. */
export class ClientHost implements Machine {
  inputs = 0;
  readonly stack: Stack;
  readonly port: MachinePort;
  readonly clients: readonly Client[];
  private readonly byConnection = new Map<number, Client>();
  private readonly cameAbout = new Set<number>();
  private readonly byListener = new Map<number, Client>();
  private readonly byUdpPort = new Map<number, Client>();
  private readonly byEchoId = new Map<number, Client>();
  private readonly alarm: Alarm;

  constructor(port: MachinePort, options: ClientHostOptions, clients: readonly Client[]) {
    this.port = port;
    this.alarm = new Alarm(port);
    this.clients = clients;
    this.stack = new Stack(port, options, {
      onTcp: (connection) => this.onTcp(connection),
      onUdp: (source, sourcePort, udpPort, payload) =>
        this.byUdpPort.get(udpPort)?.onUdp?.(source, sourcePort, payload),
      onEchoReply: (source, id, sequence, payload) =>
        this.byEchoId.get(id)?.onEchoReply?.(source, sequence, payload),
    });
    for (const client of clients) client.attach(this);
    this.sleep();
  }

  receive(frame: Uint8Array): void {
    this.inputs += 1;
    this.stack.receive(frame);
    this.sleep();
  }

  tick(): void {
    const now = this.port.now();
    this.alarm.ring();
    this.stack.tick();
    for (const client of this.clients) if (now >= client.nextAt) client.tick(now);
    this.stack.settle();
    this.sleep();
  }

  save(): Uint8Array {
    throw new Error('clients have no snapshots');
  }

  load(): void {
    throw new Error('clients have no snapshots');
  }

  finished(): boolean {
    return this.clients.every((client) => client.finished());
  }

  get violations(): string[] {
    return this.clients.flatMap((client) => client.violations.map((text) => `${client.name}: ${text}`));
  }

  forgive(): void {
    for (const client of this.clients) client.forgive();
    this.stack.settle();
    this.sleep();
  }

  // --- for clients ---------------------------------------------------------------------------------------------

  connect(client: Client, address: Address, port: number): TcpConnection {
    const connection = this.stack.connect(address, port);
    this.byConnection.set(connection.id, client);
    return connection;
  }

  listen(client: Client, port: number): void {
    this.stack.listen(port);
    this.byListener.set(port, client);
  }

  bindUdp(client: Client, port: number): void {
    this.stack.bindUdp(port);
    this.byUdpPort.set(port, client);
  }

  bindEcho(client: Client, id: number): void {
    this.byEchoId.set(id, client);
  }

  private onTcp(connection: TcpConnection): void {
    // As with accept(): no client gets a connection that was never established. Its SYN may have been late.
    if (connection.established) this.cameAbout.add(connection.id);
    const client =
      this.byConnection.get(connection.id) ??
      (this.cameAbout.has(connection.id) ? this.byListener.get(connection.localPort) : undefined);
    client?.onTcp?.(connection);
    if (!connection.closed) return;
    this.byConnection.delete(connection.id);
    this.cameAbout.delete(connection.id);
  }

  private sleep(): void {
    let at = this.stack.nextAt;
    for (const client of this.clients) at = Math.min(at, client.nextAt);
    this.alarm.set(at);
  }
}

/** Further violations are only counted: a service that is always wrong must not fill the memory. */
const VIOLATIONS_MAX = 100;

/** A client's counts and violations. */
export abstract class Judge implements Client {
  readonly name: string;
  readonly violations: string[] = [];
  readonly stats: Record<string, number> = {};
  progress = 0;
  lastProgressMs = 0;
  nextAt = 0;
  protected host!: ClientHost;

  constructor(name: string) {
    this.name = name;
  }

  attach(host: ClientHost): void {
    this.host = host;
  }

  abstract finished(): boolean;
  abstract forgive(): void;
  abstract tick(now: number): void;

  protected violation(text: string): void {
    this.count('violations');
    if (this.violations.length < VIOLATIONS_MAX)
      this.violations.push(`${this.host.port.now().toFixed(1)} ms: ${text}`);
  }

  protected advance(by = 1): void {
    this.progress += by;
    this.lastProgressMs = this.host.port.now();
  }

  protected count(what: string): void {
    this.stats[what] = (this.stats[what] ?? 0) + 1;
  }
}

export interface TcpClientOptions {
  readonly name: string;
  readonly address: Address;
  readonly port: number;
  readonly startMs?: number;
  /** Requests in all, and on one connection. */
  readonly requests: number;
  readonly requestsPerConnection?: number;
  /** Requests that may wait for their replies at once. */
  readonly depth?: number;
  /** The longest rest between a reply and the next request, and between connections. */
  readonly restMsMax?: number;
}

/** The time between a broken connection and the next try. */
const RETRY_MS = 100;
/** About what a request and its reply take. */
const REPLY_MS = 20;

/**
 * A client that opens one connection after the other, and sends requests on each, whose replies come in order. The
 * subclass defines requests and replies.
 */
export abstract class TcpClient extends Judge {
  protected options: TcpClientOptions;
  protected connection: TcpConnection | undefined;
  /** Requests on this connection that wait for their replies. */
  protected waiting = 0;
  private sent = 0;
  private replied = 0;
  private sentHere = 0;
  private unwritten: Uint8Array[] = [];

  constructor(options: TcpClientOptions) {
    super(options.name);
    this.options = options;
    this.nextAt = options.startMs ?? 0;
  }

  /** Returns the next request's bytes. */
  protected abstract request(): Uint8Array;
  /** Takes one whole reply off the input and judges it. Returns false if it is not complete. */
  protected abstract takeReply(connection: TcpConnection): boolean;
  /** A connection begins. */
  protected opened(): void {}
  /** The connection is gone: requests that wait get no reply. */
  protected abstract lost(): void;
  /** See `forgive`. */
  protected abstract forget(): void;

  pace(restMsMax: number, durationMs: number): void {
    const requests = Math.round(durationMs / (restMsMax / 2 + REPLY_MS));
    this.options = { ...this.options, restMsMax, requests };
  }

  finished(): boolean {
    return this.replied >= this.options.requests && this.connection === undefined;
  }

  forgive(): void {
    const { connection } = this;
    this.connection = undefined;
    connection?.abort();
    this.drop();
    this.forget();
    if (!this.finished()) this.nextAt = this.host.port.now() + RETRY_MS;
  }

  tick(): void {
    this.nextAt = NEVER;
    if (this.connection === undefined) {
      if (this.finished()) return;
      this.count('connections');
      this.opened();
      this.connection = this.host.connect(this, this.options.address, this.options.port);
    }
    this.sendRequests(this.connection);
  }

  onTcp(connection: TcpConnection): void {
    if (connection !== this.connection) return;
    while (this.waiting > 0 && !connection.closed && this.takeReply(connection)) {
      this.waiting -= 1;
      this.replied += 1;
      this.count('replies');
      this.rest();
    }
    if (this.waiting === 0 && connection.input.length > 0) {
      this.violation(`${connection.input.length} bytes without a request`);
      connection.consume(connection.input.length);
    }
    if (connection.over) {
      this.gone(connection);
      return;
    }
    if (connection.finished && !connection.closing) {
      this.violation(`closed by the service, ${this.waiting} replies missing`);
      connection.close();
    }
    if (!this.pausing()) this.sendRequests(connection);
  }

  private pausing(): boolean {
    return this.nextAt !== NEVER;
  }

  private rest(): void {
    const { restMsMax = 0 } = this.options;
    if (restMsMax > 0) this.nextAt = this.host.port.now() + this.host.port.random() * restMsMax;
  }

  /** Sends this connection's requests, and closes it after the last reply. */
  private sendRequests(connection: TcpConnection): void {
    const { requests, requestsPerConnection = 5, depth = 1 } = this.options;
    if (connection.closing || connection.closed) return;
    for (;;) {
      while (this.unwritten.length > 0) {
        const bytes = this.unwritten[0];
        const written = connection.write(bytes);
        if (written < bytes.length) {
          this.unwritten[0] = bytes.subarray(written);
          return;
        }
        this.unwritten.shift();
      }
      if (this.sentHere === requestsPerConnection || this.sent >= requests || this.waiting >= depth) break;
      this.sent += 1;
      this.sentHere += 1;
      this.waiting += 1;
      this.unwritten.push(this.request());
    }
    if (this.waiting === 0) connection.close();
  }

  private gone(connection: TcpConnection): void {
    if (connection.error !== '')
      this.violation(`connection ${connection.error}, ${this.waiting} replies missing`);
    this.connection = undefined;
    const broken = connection.error !== '' || this.waiting > 0;
    this.drop();
    this.nextAt = NEVER;
    if (this.finished()) return;
    this.rest();
    if (broken || this.nextAt === NEVER) this.nextAt = this.host.port.now() + (broken ? RETRY_MS : 0);
  }

  private drop(): void {
    if (this.waiting > 0) this.lost();
    this.sent -= this.waiting;
    this.waiting = 0;
    this.sentHere = 0;
    this.unwritten = [];
  }
}
