/** Clients of the services that speak lines. */
import { type ClientHost, TcpClient, type TcpClientOptions } from './client.ts';
import { SERVICE } from './guest.ts';
import { toHex } from './packets.ts';
import type { TcpConnection } from './tcp.ts';
import { encode, takeLine } from './text.ts';

abstract class LineClient extends TcpClient {
  private requests: string[] = [];

  protected abstract nextRequest(): string;
  protected abstract judge(answer: string, request: string): void;

  protected request(): Uint8Array {
    const request = this.nextRequest();
    this.requests.push(request);
    return encode(`${request}\n`);
  }

  protected takeAnswer(connection: TcpConnection): boolean {
    const answer = takeLine(connection);
    if (answer === undefined) return false;
    this.judge(answer, this.requests.shift() as string);
    this.advance();
    return true;
  }

  protected lost(): void {
    this.requests = [];
  }
}

/** What all clients of one counter have been told; numbers must be right across them. */
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

  protected judge(answer: string): void {
    const floor = this.floors.shift() as number;
    const number = Number(answer);
    if (!/^[1-9]\d*$/.test(answer)) this.violation(`'${answer}' is no number`);
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

/** As many as one answer of the log service holds. */
const LOG_PAGE = 16;

/**
 * Appends to a key of its own, and reads again and again what it was told is there. Only this client writes there and
 * its requests are served in order, so it knows each answer exactly.
 */
export class LogClient extends LineClient {
  private appended: string[] = [];
  private asked = 0;
  private cursor = 0;
  private era = 0;
  /** What is to be answered, oldest first. */
  private expected: string[] = [];

  constructor(options: Omit<TcpClientOptions, 'port'>) {
    super({ ...options, port: SERVICE.log });
  }

  protected nextRequest(): string {
    const key = `${this.name.replaceAll(' ', '-')}:${this.era}`;
    const left = this.options.requests - this.asked;
    this.asked += 1;
    const pages = Math.ceil(this.appended.length / LOG_PAGE);
    // The end is for reading all of it once more.
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

  protected judge(answer: string, request: string): void {
    const expected = this.expected.shift();
    if (answer !== expected) this.violation(`'${answer}' instead of '${expected}' to '${request}'`);
  }

  protected override lost(): void {
    super.lost();
    this.asked -= this.expected.length;
    this.forget();
  }

  /** What was under way may or may not have happened: another key. */
  protected forget(): void {
    this.expected = [];
    this.appended = [];
    this.cursor = 0;
    this.era += 1;
  }
}

/**
 * Any token will do, but the one that was handed out must be good later, on any connection. Whoever answers after a
 * failover has to know what the other one drew.
 */
export class TokenClient extends LineClient {
  private uses = new Map<string, number>();
  private tokens: string[] = [];
  /** Uses that an answer confirms, oldest first; 0 for a login. */
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

  protected judge(answer: string, request: string): void {
    const uses = this.expected.shift() as number;
    if (uses > 0) {
      if (answer !== `ok ${uses}`) this.violation(`'${answer}' instead of 'ok ${uses}' to '${request}'`);
    } else if (!/^[a-z0-9]{8,}$/.test(answer)) {
      this.violation(`'${answer}' is no token`);
    } else if (this.uses.has(answer)) {
      this.violation(`token ${answer} was handed out twice`);
    } else {
      this.uses.set(answer, 0);
      this.tokens.push(answer);
    }
  }

  /** It is not known whether the token that was under way has been used. */
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

/** A time that is asked for after another one was told is later than that. */
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

  protected judge(answer: string): void {
    const floor = this.floors.shift() as number;
    const time = Number(answer);
    if (!/^\d+$/.test(answer)) this.violation(`'${answer}' is no time`);
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
 * Has the guest open a connection to a listener of this client and use it, and checks both ends: the reply is right,
 * the text arrived there once, and always on the one connection.
 */
export class ConnectOutClient extends LineClient {
  private readonly listenPort: number;
  private texts = 0;
  private first = true;
  private text = '';
  /** The text of the request under way has arrived at the listener. */
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

  protected judge(answer: string): void {
    if (answer !== `reply:${this.text}`) this.violation(`'${answer}' to '${this.text}'`);
    if (!this.arrived) this.violation(`'${this.text}' never arrived`);
  }

  private serve(connection: TcpConnection): void {
    for (;;) {
      const line = takeLine(connection);
      if (line === undefined) break;
      if (line !== this.text) this.violation(`the guest said '${line}', not '${this.text}'`);
      else if (this.arrived) this.violation(`the guest said '${line}' twice`);
      this.inner ??= connection;
      if (this.inner !== connection) this.violation(`the guest said '${line}' on another connection`);
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
