/** Opens many connections on request, a given number of them at once, each for one echoed line. */
import { Judge } from './client.ts';
import { SERVICE } from './guest.ts';
import { type Address, sameBytes } from './packets.ts';
import type { TcpConnection } from './tcp.ts';
import { patternAt } from './text.ts';

const BYTES_MAX = 40;

type Short = { connection: TcpConnection; number: number; bytes: number; got: number };

export class FloodClient extends Judge {
  private readonly address: Address;
  private readonly open = new Map<number, Short>();
  private wanted = 0;
  private atOnce = 0;
  private begun = 0;

  constructor(name: string, address: Address) {
    super(name);
    this.address = address;
    this.nextAt = Number.POSITIVE_INFINITY;
  }

  flood(connections: number, atOnce: number): void {
    this.wanted += connections;
    this.atOnce = atOnce;
    this.nextAt = this.host.port.now();
    this.host.tick();
  }

  tick(): void {
    this.nextAt = Number.POSITIVE_INFINITY;
    this.more();
  }

  onTcp(connection: TcpConnection): void {
    const short = this.open.get(connection.id);
    if (short === undefined) return;
    const { input } = connection;
    const bytes = Math.min(input.length, short.bytes - short.got);
    if (bytes > 0) {
      const expected = patternAt(short.number, short.got, bytes);
      if (!sameBytes(input.view(0, bytes), expected)) this.violation('wrong bytes on a short connection');
      short.got += bytes;
      connection.consume(bytes);
      this.advance();
    }
    if (input.length > 0) this.violation('bytes without a request on a short connection');
    if (short.got === short.bytes && !connection.closing) connection.close();
    if (!connection.over) return;
    if (connection.error !== '' || short.got < short.bytes)
      this.violation(`a short connection ${connection.error}, ${short.bytes - short.got} bytes missing`);
    this.count('short connections');
    this.open.delete(connection.id);
    this.nextAt = this.host.port.now();
  }

  finished(): boolean {
    return this.wanted === 0 && this.open.size === 0;
  }

  forgive(): void {
    const connections = [...this.open.values()].map((short) => short.connection);
    this.open.clear();
    this.wanted = 0;
    for (const connection of connections) connection.abort();
  }

  private more(): void {
    for (; this.wanted > 0 && this.open.size < this.atOnce; this.wanted--) {
      const connection = this.host.connect(this, this.address, SERVICE.echo);
      const number = ++this.begun;
      const bytes = 1 + Math.floor(this.host.port.random() * BYTES_MAX);
      this.open.set(connection.id, { connection, number, bytes, got: 0 });
      connection.write(patternAt(number, 0, bytes));
    }
  }
}
