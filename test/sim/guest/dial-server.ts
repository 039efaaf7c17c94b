/**
 * The server for the guest's own connections. The guest numbers its lines over all connections, and no number may come
 * twice, whichever VM sends it.
 */
import { type ClientHost, Judge } from './client.ts';
import type { TcpConnection } from './tcp.ts';
import { encode, takeLine } from './text.ts';

export interface DialServerOptions {
  readonly name: string;
  readonly port: number;
  /** It is finished when this many lines have come. */
  readonly lines: number;
}

export class DialServer extends Judge {
  private readonly options: DialServerOptions;
  private readonly received = new Set<number>();
  /** The last number on each open connection. */
  private readonly last = new Map<number, number>();

  constructor(options: DialServerOptions) {
    super(options.name);
    this.options = options;
    this.nextAt = Number.POSITIVE_INFINITY;
  }

  override attach(host: ClientHost): void {
    super.attach(host);
    host.listen(this, this.options.port);
  }

  finished(): boolean {
    return this.progress >= this.options.lines;
  }

  tick(): void {}

  onTcp(connection: TcpConnection): void {
    if (!this.last.has(connection.id)) {
      this.count('connections');
      this.last.set(connection.id, 0);
    }
    for (;;) {
      const line = takeLine(connection);
      if (line === undefined) break;
      this.judge(connection, line);
      connection.write(encode(`reply:${line}\n`));
    }
    if (connection.finished && !connection.closing) {
      if (connection.input.length > 0) this.violation('the guest ended within a line');
      connection.close();
    }
    if (!connection.closed) return;
    this.last.delete(connection.id);
    if (connection.error !== '') this.violation(`the guest's connection ${connection.error}`);
  }

  forgive(): void {
    this.received.clear();
    for (const connection of this.host.stack.connections) {
      if (connection.localPort === this.options.port) connection.expire();
    }
    this.last.clear();
  }

  private judge(connection: TcpConnection, line: string): void {
    const number = /^hello [1-9]\d*$/.test(line) ? Number(line.slice(6)) : 0;
    const last = this.last.get(connection.id) as number;
    if (number === 0) this.violation(`the guest sent '${line}'`);
    else if (this.received.has(number)) this.violation(`the guest sent hello ${number} twice`);
    else if (number <= last) this.violation(`the guest sent hello ${number} after hello ${last}`);
    this.received.add(number);
    this.last.set(connection.id, Math.max(last, number));
    this.advance();
  }
}
