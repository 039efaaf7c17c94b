/**
 * Many datagrams at once, in both directions: a guest's bursts, and bursts of requests to it.
 *
 * A guest numbers its datagrams, and one number never has two contents. Two VMs that have sent different ones are one
 * service only if clients receive those of one VM.
 */

import { BURST_HEAD_BYTES, BURST_PORT, burstPayload } from './burst.ts';
import { type ClientHost, Judge } from './client.ts';
import { SERVICE } from './guest.ts';
import { type Address, sameBytes } from './packets.ts';
import { decode } from './text.ts';

const HEAD = /^(\d{8})(\d{8})$/;

export class BurstClient extends Judge {
  private readonly address: Address;
  private asked = 0;
  /** The pattern that came with each number. */
  private readonly heard = new Map<number, number>();

  constructor(name: string, address: Address) {
    super(name);
    this.address = address;
    this.nextAt = Number.POSITIVE_INFINITY;
  }

  override attach(host: ClientHost): void {
    super.attach(host);
    host.bindUdp(this, BURST_PORT);
  }

  /** Sends requests to the echo service, all in one instant. */
  ask(datagrams: number, bytes: number): void {
    for (let i = 0; i < datagrams; i++) {
      const payload = burstPayload(this.asked++, 0, bytes);
      this.host.stack.sendUdp(this.address, BURST_PORT, SERVICE.echo, payload);
    }
  }

  onUdp(_: Address, sourcePort: number, payload: Uint8Array): void {
    const head = HEAD.exec(decode(payload.subarray(0, BURST_HEAD_BYTES)));
    const [number, pattern] = [Number(head?.[1]), Number(head?.[2])];
    if (head === null || !sameBytes(payload, burstPayload(number, pattern, payload.length))) {
      this.violation('wrong bytes in a burst');
      return;
    }
    this.advance();
    if (sourcePort === SERVICE.echo) {
      if (number >= this.asked) this.violation(`a reply to ${number}, which was never sent`);
      this.count('replies');
      return;
    }
    const before = this.heard.get(number);
    if (before !== undefined && before !== pattern) this.violation(`${number} came with two contents`);
    this.heard.set(number, pattern);
    this.count('heard');
  }

  finished(): boolean {
    return true;
  }

  forgive(): void {
    this.heard.clear();
  }

  tick(): void {
    this.nextAt = Number.POSITIVE_INFINITY;
  }
}
