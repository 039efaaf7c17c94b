/**
 * One direction of a bad network: it delays each frame, and loses, repeats or overtakes some TCP segments, as its seed
 * decides. ARP and neighbour discovery pass unharmed: what they cost has nothing to do with TCP.
 */
import { Random } from '../../lab/clients/random.ts';

export type Quality = {
  readonly delayMs: number;
  /** Of TCP segments, 0 to 1. */
  readonly loss: number;
  readonly duplication: number;
  /** A segment that is overtaken comes up to OVERTAKEN_MS_MAX later. */
  readonly overtaken: number;
};

type OnTheWay = { readonly atMs: number; readonly frame: Uint8Array };

const OVERTAKEN_MS_MAX = 8;
const ETHERTYPE_IPV4 = 0x0800;
const ETHERTYPE_IPV6 = 0x86dd;
const PROTOCOL_TCP = 6;

export class Wire {
  lost = 0;
  private readonly quality: Quality;
  private readonly random: Random;
  private readonly deliver: (frame: Uint8Array) => void;
  /** In order of `atMs`. */
  private readonly queue: OnTheWay[] = [];

  constructor(quality: Quality, seed: number, deliver: (frame: Uint8Array) => void) {
    this.quality = quality;
    this.random = new Random(seed);
    this.deliver = deliver;
  }

  /** Takes a frame, which must not change from then on. */
  push(frame: Uint8Array, nowMs: number): void {
    const { delayMs, loss, duplication, overtaken } = this.quality;
    const tcp = isTcp(frame);
    if (tcp && this.happens(loss)) {
      this.lost++;
      return;
    }
    const lateMs = tcp && this.happens(overtaken) ? 1 + this.random.between(0, OVERTAKEN_MS_MAX - 1) : 0;
    this.insert({ atMs: nowMs + delayMs + lateMs, frame });
    if (tcp && this.happens(duplication)) this.insert({ atMs: nowMs + delayMs, frame });
  }

  /** Delivers what has arrived by now. */
  turn(nowMs: number): void {
    let due = 0;
    while (due < this.queue.length && this.queue[due].atMs <= nowMs) due++;
    for (const { frame } of this.queue.splice(0, due)) this.deliver(frame);
  }

  /** When the next frame arrives. */
  get nextAtMs(): number {
    return this.queue.at(0)?.atMs ?? Number.POSITIVE_INFINITY;
  }

  private insert(one: OnTheWay): void {
    let at = this.queue.length;
    while (at > 0 && this.queue[at - 1].atMs > one.atMs) at--;
    this.queue.splice(at, 0, one);
  }

  private happens(chance: number): boolean {
    return chance > 0 && this.random.next() < chance * 0x1_0000_0000;
  }
}

export function isTcp(frame: Uint8Array): boolean {
  const ethertype = (frame[12] << 8) | frame[13];
  if (ethertype === ETHERTYPE_IPV4) return frame[14 + 9] === PROTOCOL_TCP;
  return ethertype === ETHERTYPE_IPV6 && frame[14 + 6] === PROTOCOL_TCP;
}
