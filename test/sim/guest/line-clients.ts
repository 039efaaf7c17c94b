/** Clients of the services that speak lines. */
import { TcpClient, type TcpClientOptions } from './client.ts';
import { SERVICE } from './guest.ts';
import type { TcpConnection } from './tcp.ts';
import { encode, takeLine } from './text.ts';

abstract class LineClient extends TcpClient {
  #requests: string[] = [];

  protected abstract nextRequest(): string;
  protected abstract judge(answer: string, request: string): void;

  protected request(): Uint8Array {
    const request = this.nextRequest();
    this.#requests.push(request);
    return encode(`${request}\n`);
  }

  protected takeAnswer(connection: TcpConnection): boolean {
    const answer = takeLine(connection);
    if (answer === undefined) return false;
    this.judge(answer, this.#requests.shift() as string);
    this.advance();
    return true;
  }

  protected lost(): void {
    this.#requests = [];
  }
}

/** What all clients of one counter have been told; numbers must be right across them. */
export class CounterBook {
  readonly given = new Set<number>();
  highest = 0;
}

/** No number comes twice; a request sent after the number n was received gets a greater one. */
export class CounterClient extends LineClient {
  readonly #book: CounterBook;
  #floors: number[] = [];

  constructor(options: Omit<TcpClientOptions, 'port'>, book = new CounterBook()) {
    super({ ...options, port: SERVICE.counter });
    this.#book = book;
  }

  protected nextRequest(): string {
    this.#floors.push(this.#book.highest);
    return 'next';
  }

  protected judge(answer: string): void {
    const floor = this.#floors.shift() as number;
    const number = Number(answer);
    if (!/^[1-9]\d*$/.test(answer)) this.violation(`'${answer}' is no number`);
    else if (this.#book.given.has(number)) this.violation(`number ${number} came twice`);
    else if (number <= floor) this.violation(`number ${number} after ${floor} had been given`);
    this.#book.given.add(number);
    if (number > this.#book.highest) this.#book.highest = number;
  }

  protected override lost(): void {
    super.lost();
    this.#floors = [];
  }

  protected forget(): void {
    this.#book.given.clear();
    this.#book.highest = 0;
    this.#floors.fill(0);
  }
}
