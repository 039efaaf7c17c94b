/** Clients of the services with lines. */
import { type ClientHost, TcpClient, type TcpClientOptions } from './client.ts';
import { SERVICE } from './guest.ts';
import { toHex } from './packets.ts';
import type { TcpConnection } from './tcp.ts';
import { encode, takeLine } from './text.ts';

abstract class LineClient extends TcpClient {
  private requests: string[] = [];

  protected abstract nextRequest(): string;
  protected abstract judge(reply: string, request: string): void;

  protected request(): Uint8Array {
    const request = this.nextRequest();
    this.requests.push(request);
    return encode(`${request}\n`);
  }

  protected takeReply(connection: TcpConnection): boolean {
    const reply = takeLine(connection);
    if (reply === undefined) return false;
    this.judge(reply, this.requests.shift() as string);
    this.advance();
    return true;
  }

  protected lost(): void {
    this.requests = [];
  }
}

/** The numbers that all clients of one counter have received: they must be right across clients. */
export class CounterBook {
  readonly given = new Set<number>();
  highest = 0;
}

/** No number comes twice; a request sent after the number n was received gets a greater one. */
export class CounterClient extends LineClient {
  private readonly book: CounterBook;
  private floors: number[] = [];

  constructor(options: Omit<TcpClientOptions, 'port'>, book = new CounterBook()) {
    super({ ...options, port: SERVICE.counter });
    this.book = book;
  }

  protected nextRequest(): string {
    this.floors.push(this.book.highest);
    return 'next';
  }

  protected judge(reply: string): void {
    const floor = this.floors.shift() as number;
    const number = Number(reply);
    if (!/^[1-9]\d*$/.test(reply)) this.violation(`'${reply}' is not a number`);
    else if (this.book.given.has(number)) this.violation(`number ${number} came twice`);
    else if (number <= floor) this.violation(`number ${number} after ${floor} had been given`);
    this.book.given.add(number);
    if (number > this.book.highest) this.book.highest = number;
  }

  protected override lost(): void {
    super.lost();
    this.floors = [];
  }

  protected forget(): void {
    this.book.given.clear();
    this.book.highest = 0;
    this.floors.fill(0);
  }
}

/** As many as one reply of the log service holds. */
const LOG_PAGE = 16;

/**
 * Appends to a key of its own, and reads it many times. Only this client writes there, and its requests are served in
 * order, so it knows each reply exactly.
 */
export class LogClient extends LineClient {
  private appended: string[] = [];
  private asked = 0;
  private cursor = 0;
  private era = 0;
  /** The replies that are due, oldest first. */
  private expected: string[] = [];

  constructor(options: Omit<TcpClientOptions, 'port'>) {
    super({ ...options, port: SERVICE.log });
  }

  protected nextRequest(): string {
    const key = `${this.name.replaceAll(' ', '-')}:${this.era}`;
    const left = this.options.requests - this.asked;
    this.asked += 1;
    const pages = Math.ceil(this.appended.length / LOG_PAGE);
    // The last requests read all entries once more.
    if (left === pages) this.cursor = 0;
    if (left <= pages || this.host.port.random() < 0.25) {
      const from = this.cursor;
      this.cursor = from + LOG_PAGE < this.appended.length ? from + LOG_PAGE : 0;
      this.expected.push([this.appended.length, ...this.appended.slice(from, from + LOG_PAGE)].join(' '));
      return `read ${key} ${from}`;
    }
    const value = `${this.asked}-${Math.floor(this.host.port.random() * 1e9).toString(36)}`;
    this.appended.push(value);
    this.expected.push(`ok ${this.appended.length}`);
    return `append ${key} ${value}`;
  }

  protected judge(reply: string, request: string): void {
    const expected = this.expected.shift();
    if (reply !== expected) this.violation(`'${reply}' instead of '${expected}' to '${request}'`);
  }

  protected override lost(): void {
    super.lost();
    this.asked -= this.expected.length;
    this.forget();
  }

  /** A request that got no reply may have been carried out: the client takes another key. */
  protected forget(): void {
    this.expected = [];
    this.appended = [];
    this.cursor = 0;
    this.era += 1;
  }
}

/**
 * Any token is right, but one that was handed out must be valid later, on any connection: a VM must know the tokens that
 * the other one drew before a failover.
 */
export class TokenClient extends LineClient {
  private uses = new Map<string, number>();
  private tokens: string[] = [];
  /** The uses that the due replies must confirm, oldest first; 0 for a login. */
  private expected: number[] = [];

  constructor(options: Omit<TcpClientOptions, 'port' | 'depth'>) {
    super({ ...options, port: SERVICE.token });
  }

  protected nextRequest(): string {
    const { random } = this.host.port;
    if (this.tokens.length === 0 || random() < 0.3) {
      this.expected.push(0);
      return 'login';
    }
    const token = this.tokens[Math.floor(random() * this.tokens.length)];
    const uses = (this.uses.get(token) as number) + 1;
    this.uses.set(token, uses);
    this.expected.push(uses);
    return `use ${token}`;
  }

  protected judge(reply: string, request: string): void {
    const uses = this.expected.shift() as number;
    if (uses > 0) {
      if (reply !== `ok ${uses}`) this.violation(`'${reply}' instead of 'ok ${uses}' to '${request}'`);
    } else if (!/^[a-z0-9]{8,}$/.test(reply)) {
      this.violation(`'${reply}' is not a token`);
    } else if (this.uses.has(reply)) {
      this.violation(`token ${reply} was handed out twice`);
    } else {
      this.uses.set(reply, 0);
      this.tokens.push(reply);
    }
  }

  /** The client cannot know whether the last request has used its token. */
  protected override lost(): void {
    super.lost();
    this.forget();
  }

  protected forget(): void {
    this.expected = [];
    this.uses.clear();
    this.tokens = [];
  }
}

/** A time that is requested after another one was received is later than that. */
export class TimeClient extends LineClient {
  private latest = 0;
  private floors: number[] = [];

  constructor(options: Omit<TcpClientOptions, 'port'>) {
    super({ ...options, port: SERVICE.time });
  }

  protected nextRequest(): string {
    this.floors.push(this.latest);
    return 'time';
  }

  protected judge(reply: string): void {
    const floor = this.floors.shift() as number;
    const time = Number(reply);
    if (!/^\d+$/.test(reply)) this.violation(`'${reply}' is not a time`);
    else if (time <= floor) this.violation(`time ${time} after ${floor}`);
    this.latest = Math.max(this.latest, time);
  }

  protected override lost(): void {
    super.lost();
    this.floors = [];
  }

  protected forget(): void {
    this.latest = 0;
    this.floors.fill(0);
  }
}

/**
 * Makes the guest open a connection to a listener of this client and use it, and checks both ends: the reply is right, and
 * the text arrives once, always on the same connection.
 */
export class ConnectOutClient extends LineClient {
  private readonly listenPort: number;
  private texts = 0;
  private first = true;
  private text = '';
  /** The text of the current request has arrived at the listener. */
  private arrived = false;
  private inner: TcpConnection | undefined;

  constructor(options: Omit<TcpClientOptions, 'port' | 'depth'>, listenPort: number) {
    super({ ...options, port: SERVICE.connectOut });
    this.listenPort = listenPort;
  }

  override attach(host: ClientHost): void {
    super.attach(host);
    host.listen(this, this.listenPort);
  }

  override onTcp(connection: TcpConnection): void {
    if (connection.active) super.onTcp(connection);
    else this.serve(connection);
  }

  protected override opened(): void {
    this.first = true;
    this.inner = undefined;
  }

  protected nextRequest(): string {
    this.texts += 1;
    this.text = `text-${this.texts}`;
    this.arrived = false;
    if (!this.first) return `again ${this.text}`;
    this.first = false;
    const { address4, address6 } = this.host.stack;
    const own = this.options.address.length === 4 ? address4 : address6;
    return `connect ${toHex(own)} ${this.listenPort} ${this.text}`;
  }

  protected judge(reply: string): void {
    if (reply !== `reply:${this.text}`) this.violation(`'${reply}' to '${this.text}'`);
    if (!this.arrived) this.violation(`'${this.text}' never arrived`);
  }

  private serve(connection: TcpConnection): void {
    for (;;) {
      const line = takeLine(connection);
      if (line === undefined) break;
      if (line !== this.text) this.violation(`the guest sent '${line}', not '${this.text}'`);
      else if (this.arrived) this.violation(`the guest sent '${line}' twice`);
      this.inner ??= connection;
      if (this.inner !== connection) this.violation(`the guest sent '${line}' on another connection`);
      this.arrived = true;
      connection.write(encode(`reply:${line}\n`));
    }
    if (connection.finished) connection.close();
    if (connection.closed && connection.error !== '')
      this.violation(`the guest's connection ${connection.error}`);
  }

  protected forget(): void {
    for (const connection of this.host.stack.connections) {
      if (connection.localPort === this.listenPort) connection.expire();
    }
  }
}
