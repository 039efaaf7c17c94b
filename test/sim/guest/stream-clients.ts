/** Clients of the services with streams of bytes: echo and download. */
import { TcpClient, type TcpClientOptions } from './client.ts';
import { SERVICE } from './guest.ts';
import { sameBytes } from './packets.ts';
import type { TcpConnection } from './tcp.ts';
import { encode, patternAt } from './text.ts';

export interface StreamClientOptions extends Omit<TcpClientOptions, 'port'> {
  /** Selects the pattern: clients with different seeds have different bytes. */
  readonly seed: number;
  /** Bytes of one request, at least 1 and up to this. */
  readonly bytesMax: number;
}

const LONG_STREAM_BYTES = 3000;

abstract class StreamClient extends TcpClient {
  protected readonly seed: number;
  protected readonly bytesMax: number;
  /** The lengths of the replies that are due, and how much of the first has come. */
  private lengths: number[] = [];
  private got = 0;
  /** Places in the pattern: of the next request, and of the next byte. */
  protected requested = 0;
  private expected = 0;

  constructor(options: StreamClientOptions, port: number) {
    super({ ...options, port });
    this.seed = options.seed;
    this.bytesMax = options.bytesMax;
  }

  get hasLongStreams(): boolean {
    return this.bytesMax > LONG_STREAM_BYTES;
  }

  protected abstract ask(offset: number, length: number): Uint8Array;

  protected request(): Uint8Array {
    const length = 1 + Math.floor(this.host.port.random() * this.bytesMax);
    const request = this.ask(this.requested, length);
    this.requested += length;
    this.lengths.push(length);
    return request;
  }

  protected takeReply(connection: TcpConnection): boolean {
    const { input } = connection;
    const length = Math.min(input.length, this.lengths[0] - this.got);
    if (length > 0) {
      const got = input.view(0, length);
      const expected = patternAt(this.seed, this.expected, length);
      if (!sameBytes(got, expected)) this.violation(`wrong bytes within ${length} from ${this.expected} on`);
      this.got += length;
      this.expected += length;
      connection.consume(length);
      this.advance(length);
    }
    if (this.got < this.lengths[0]) return false;
    this.lengths.shift();
    this.got = 0;
    return true;
  }

  protected lost(): void {
    this.lengths = [];
    this.got = 0;
    this.expected = this.requested;
  }

  protected forget(): void {}
}

export class EchoClient extends StreamClient {
  constructor(options: StreamClientOptions) {
    super(options, SERVICE.echo);
  }

  protected ask(offset: number, length: number): Uint8Array {
    return patternAt(this.seed, offset, length);
  }
}

export class DownloadClient extends StreamClient {
  constructor(options: StreamClientOptions) {
    super(options, SERVICE.download);
  }

  protected ask(offset: number, length: number): Uint8Array {
    return encode(`get ${this.seed} ${offset} ${length}\n`);
  }
}
