/**
 * Clients that send single datagrams: UDP echo, UDP counter, ping.
 *
 * Datagrams may be lost, and replies may come twice or late. No reply may be wrong, or contradict another.
 */
import { type ClientHost, Judge } from './client.ts';
import { SERVICE } from './guest.ts';
import { type Address, sameBytes } from './packets.ts';
import { decode, encode, patternAt } from './text.ts';

export interface DatagramClientOptions {
  readonly name: string;
  readonly address: Address;
  /** Its own UDP port, or ICMP id. */
  readonly port: number;
  readonly datagrams: number;
  readonly everyMs: number;
  readonly bytes: number;
  readonly startMs?: number;
  /** How long the client waits for the last replies. */
  readonly drainMs?: number;
}

const NEVER = Number.POSITIVE_INFINITY;
const HEAD_BYTES = 8;

abstract class DatagramClient extends Judge {
  protected options: DatagramClientOptions;
  protected sent = 0;
  private readonly replied = new Set<number>();
  private done = false;

  constructor(options: DatagramClientOptions) {
    super(options.name);
    this.options = options;
    this.nextAt = options.startMs ?? 0;
  }

  protected abstract transmit(number: number, payload: Uint8Array): void;

  pace(restMsMax: number, durationMs: number): void {
    const everyMs = restMsMax / 2;
    this.options = { ...this.options, everyMs, datagrams: Math.round(durationMs / everyMs) };
  }

  finished(): boolean {
    return this.done;
  }

  tick(now: number): void {
    const { datagrams, everyMs, drainMs = 2000 } = this.options;
    if (this.sent === datagrams) {
      this.done = true;
      this.nextAt = NEVER;
      this.stats.lost = this.sent - this.replied.size;
      return;
    }
    this.transmit(this.sent, this.payload(this.sent));
    this.sent += 1;
    this.nextAt = now + (this.sent === datagrams ? drainMs : everyMs);
  }

  /** Returns the number, then a pattern that depends on it. */
  protected payload(number: number): Uint8Array {
    const payload = new Uint8Array(Math.max(this.options.bytes, HEAD_BYTES));
    payload.set(encode(`${number}`.padStart(HEAD_BYTES, '0')));
    payload.set(patternAt(this.options.port, number * 131, payload.length - HEAD_BYTES), HEAD_BYTES);
    return payload;
  }

  /** Returns the number of the datagram that came back, or -1 if this client did not send it. */
  protected takePayload(payload: Uint8Array): number {
    const head = decode(payload.subarray(0, HEAD_BYTES));
    const number = /^\d{8}$/.test(head) ? Number(head) : -1;
    if (number < 0 || number >= this.sent) {
      this.violation(`a reply to '${head}', which was never sent`);
      return -1;
    }
    if (!sameBytes(payload, this.payload(number))) {
      this.violation(`wrong bytes in the reply to datagram ${number}`);
      return -1;
    }
    if (this.replied.has(number)) {
      this.count('duplicates');
    } else {
      this.replied.add(number);
      this.count('replies');
      this.advance();
    }
    return number;
  }
}

abstract class UdpClient extends DatagramClient {
  abstract readonly servicePort: number;

  override attach(host: ClientHost): void {
    super.attach(host);
    host.bindUdp(this, this.options.port);
  }

  protected transmit(_: number, payload: Uint8Array): void {
    this.host.stack.sendUdp(this.options.address, this.options.port, this.servicePort, payload);
  }

  onUdp(source: Address, sourcePort: number, payload: Uint8Array): void {
    if (sourcePort !== this.servicePort || !sameBytes(source, this.options.address)) {
      this.violation(`a reply from port ${sourcePort}`);
    } else {
      this.judge(payload);
    }
  }

  protected abstract judge(payload: Uint8Array): void;
}

export class UdpEchoClient extends UdpClient {
  readonly servicePort = SERVICE.echo;

  protected judge(payload: Uint8Array): void {
    this.takePayload(payload);
  }

  forgive(): void {}
}

/**
 * The service counts each datagram once: no count comes twice, a datagram gets one count, and a datagram that is sent
 * after the count n was received gets a greater one. The network must not duplicate this client's datagrams.
 */
export class UdpCounterClient extends UdpClient {
  readonly servicePort = SERVICE.udpCounter;
  private readonly countOf = new Map<number, number>();
  private readonly numberOf = new Map<number, number>();
  private floors: number[] = [];
  private highest = 0;

  protected override transmit(number: number, payload: Uint8Array): void {
    this.floors[number] = this.highest;
    super.transmit(number, payload);
  }

  protected judge(payload: Uint8Array): void {
    const space = payload.indexOf(32);
    const digits = decode(payload.subarray(0, Math.max(space, 0)));
    if (!/^[1-9]\d*$/.test(digits)) {
      this.violation(`'${digits}' is not a count`);
      return;
    }
    const number = this.takePayload(payload.subarray(space + 1));
    if (number < 0) return;
    const count = Number(digits);
    const before = this.countOf.get(number);
    if (before === count) return;
    if (before !== undefined) this.violation(`datagram ${number} counted as ${before} and as ${count}`);
    const other = this.numberOf.get(count);
    if (other !== undefined) this.violation(`count ${count} given to datagrams ${other} and ${number}`);
    const floor = this.floors[number];
    if (count <= floor)
      this.violation(`count ${count} for datagram ${number}, sent after ${floor} was received`);
    this.countOf.set(number, count);
    this.numberOf.set(count, number);
    this.highest = Math.max(this.highest, count);
  }

  forgive(): void {
    this.countOf.clear();
    this.numberOf.clear();
    this.floors.fill(0);
    this.highest = 0;
  }
}

/** Sends ICMP or ICMPv6 echo requests, depending on the address. */
export class PingClient extends DatagramClient {
  override attach(host: ClientHost): void {
    super.attach(host);
    host.bindEcho(this, this.options.port);
  }

  protected transmit(number: number, payload: Uint8Array): void {
    this.host.stack.sendEcho(this.options.address, this.options.port, number & 0xffff, payload);
  }

  onEchoReply(source: Address, sequence: number, payload: Uint8Array): void {
    if (!sameBytes(source, this.options.address)) {
      this.violation('an echo reply from another address');
      return;
    }
    const number = this.takePayload(payload);
    if (number >= 0 && sequence !== (number & 0xffff))
      this.violation(`ping ${number} came back as ${sequence}`);
  }

  forgive(): void {}
}
