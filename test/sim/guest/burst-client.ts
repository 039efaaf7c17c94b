/**
 * Many datagrams at once, in both directions: what a guest says in a burst, and a burst of questions to it.
 *
 * A guest numbers what it says. One number never stands for two contents: two VMs that have said different things are
 * one service only if clients hear one of them.
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
  /** by number: which pattern came with it */
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

  /** So many questions to the echo service, in one instant. */
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
      if (number >= this.asked) this.violation(`an answer to ${number}, which was never asked`);
      this.count('answers');
      return;
    }
    const before = this.heard.get(number);
    if (before !== undefined && before !== pattern) this.violation(`${number} was said with two contents`);
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
