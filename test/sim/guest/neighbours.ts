/**
 * The neighbour cache of a simulated host: ARP for IPv4, neighbour discovery for IPv6 (RFC 826, 4861).
 *
 * `send` needs the destination's MAC. While it is unknown, frames wait here and the cache asks every ASK_EVERY_MS; after
 * ASK_MAX questions without a reply, what waits is dropped and counted. An entry older than NEIGHBOUR_STALE_MS is still
 * used, and asked for again.
 */
import type { MachinePort } from './machine.ts';
import {
  type Address,
  BROADCAST,
  ETHER_ARP,
  ETHER_IPV4,
  get16,
  type IpPacket,
  ipFrame,
  type Mac,
  newFrame,
  PROTOCOL_ICMPV6,
  put,
  put16,
  put32,
  sameBytes,
  seal,
  transportAt,
} from './packets.ts';
import type { Archive } from './state.ts';

export const NEIGHBOUR_SOLICITATION = 135;
export const NEIGHBOUR_ADVERTISEMENT = 136;

/** What the owner of the cache counts. */
export interface NeighbourCounters {
  malformed: number;
  /** ARP and solicitations for another host */
  ignored: number;
  /** frames dropped because the peer's MAC did not become known */
  unresolved: number;
}

type Own = { readonly mac: Mac; readonly address4: Address; readonly address6: Address };

type Neighbour = {
  address: Address;
  mac: Mac;
  knownAtMs: number;
  askedAtMs: number;
  asked: number;
  waiting: Uint8Array[];
};

const NEVER = Number.POSITIVE_INFINITY;
const NEIGHBOUR_STALE_MS = 30_000;
const ASK_EVERY_MS = 500;
const ASK_MAX = 6;
const WAITING_MAX = 16;
const UNKNOWN_MAC: Mac = new Uint8Array(6);
const ARP_BYTES = 42;
const ARP_REQUEST = 1;
const ARP_REPLY = 2;
const SOLICITED = 0x40;
const SOLICITED_AND_OVERRIDE = 0x60000000;
/** RFC 4861 section 7.1: a lower one has crossed a router. */
const HOP_LIMIT = 255;

export class Neighbours {
  private readonly port: MachinePort;
  private readonly own: Own;
  private readonly counters: NeighbourCounters;
  private list: Neighbour[] = [];

  constructor(port: MachinePort, own: Own, counters: NeighbourCounters) {
    this.port = port;
    this.own = own;
    this.counters = counters;
  }

  archive(a: Archive): void {
    this.list = a.list(this.list, (neighbour) => ({
      address: a.bytes(neighbour?.address ?? UNKNOWN_MAC),
      mac: a.bytes(neighbour?.mac ?? UNKNOWN_MAC),
      knownAtMs: a.number(neighbour?.knownAtMs ?? 0),
      askedAtMs: a.number(neighbour?.askedAtMs ?? 0),
      asked: a.number(neighbour?.asked ?? 0),
      waiting: a.list(neighbour?.waiting ?? [], (frame) => a.bytes(frame ?? UNKNOWN_MAC)),
    }));
  }

  /** Sends a frame to `destination`, now or when its MAC is known. */
  send(destination: Address, frame: Uint8Array): void {
    const now = this.port.now();
    const neighbour = this.find(destination) ?? this.add(destination);
    if (neighbour.knownAtMs === -NEVER) {
      if (neighbour.waiting.length < WAITING_MAX) neighbour.waiting.push(frame);
      else this.counters.unresolved += 1;
      if (now >= neighbour.askedAtMs + ASK_EVERY_MS) this.ask(neighbour);
      return;
    }
    const stale = now >= neighbour.knownAtMs + NEIGHBOUR_STALE_MS;
    if (stale && now >= neighbour.askedAtMs + ASK_EVERY_MS) this.ask(neighbour);
    put(frame, 0, neighbour.mac);
    this.port.send(frame);
  }

  tick(now: number): void {
    for (const neighbour of this.list) {
      if (neighbour.waiting.length > 0 && now >= neighbour.askedAtMs + ASK_EVERY_MS) this.ask(neighbour);
    }
  }

  /** When the next question is due. */
  get nextAt(): number {
    let at = NEVER;
    for (const { waiting, askedAtMs } of this.list)
      if (waiting.length > 0) at = Math.min(at, askedAtMs + ASK_EVERY_MS);
    return at;
  }

  receiveArp(frame: Uint8Array): void {
    if (
      frame.length < ARP_BYTES ||
      get16(frame, 14) !== 1 ||
      get16(frame, 16) !== ETHER_IPV4 ||
      get16(frame, 18) !== 0x0604
    ) {
      this.counters.malformed += 1;
      return;
    }
    const operation = get16(frame, 20);
    const mac = frame.slice(22, 28);
    const sender = frame.slice(28, 32);
    const forMe = sameBytes(frame.subarray(38, 42), this.own.address4);
    if (forMe) this.learn(sender, mac);
    else this.refresh(sender, mac);
    if (operation === ARP_REQUEST && forMe) this.sendArp(ARP_REPLY, mac, mac, sender);
    else if (!forMe) this.counters.ignored += 1;
  }

  receiveSolicitation({ frame, at, end, source }: IpPacket): void {
    const { address6, mac: ownMac } = this.own;
    if (end - at < 24 || !sameBytes(frame.subarray(at + 8, at + 24), address6)) {
      this.counters.ignored += 1;
      return;
    }
    if (end - at < 32 || frame[at + 24] !== 1) return;
    const peer = source.slice();
    const mac = frame.slice(at + 26, at + 32);
    this.learn(peer, mac);
    const body = Uint8Array.of(...address6, 2, 1, ...ownMac);
    const reply = this.discoveryFrame(peer, NEIGHBOUR_ADVERTISEMENT, SOLICITED_AND_OVERRIDE, body);
    reply.set(mac, 0);
    this.port.send(reply);
  }

  /** Returns false if the advertisement lacks its option. */
  receiveAdvertisement({ frame, at, end }: IpPacket): boolean {
    if (end - at < 32 || frame[at + 24] !== 2) return false;
    const address = frame.slice(at + 8, at + 24);
    const mac = frame.slice(at + 26, at + 32);
    if ((frame[at + 4] & SOLICITED) !== 0) this.learn(address, mac);
    else this.refresh(address, mac);
    return true;
  }

  private find(address: Address): Neighbour | undefined {
    for (const neighbour of this.list) if (sameBytes(neighbour.address, address)) return neighbour;
    return undefined;
  }

  private add(address: Address): Neighbour {
    const neighbour = {
      address: address.slice(),
      mac: UNKNOWN_MAC,
      knownAtMs: -NEVER,
      askedAtMs: -NEVER,
      asked: 0,
      waiting: [],
    };
    this.list.push(neighbour);
    return neighbour;
  }

  /** An unsolicited announcement changes an address that is known, and adds none (RFC 4861 section 7.2.5). */
  private refresh(address: Address, mac: Mac): void {
    if (this.find(address)?.knownAtMs !== -NEVER) this.learn(address, mac);
  }

  /** Does nothing for an address that no frame was ever sent to. */
  private learn(address: Address, mac: Mac): void {
    const neighbour = this.find(address);
    if (neighbour === undefined) return;
    neighbour.mac = mac;
    neighbour.knownAtMs = this.port.now();
    neighbour.asked = 0;
    const { waiting } = neighbour;
    neighbour.waiting = [];
    for (const frame of waiting) {
      frame.set(mac, 0);
      this.port.send(frame);
    }
  }

  private ask(neighbour: Neighbour): void {
    if (neighbour.asked === ASK_MAX) {
      this.counters.unresolved += neighbour.waiting.length;
      neighbour.waiting = [];
      neighbour.asked = 0;
      return;
    }
    neighbour.asked += 1;
    neighbour.askedAtMs = this.port.now();
    const { address } = neighbour;
    if (address.length === 4) {
      this.sendArp(ARP_REQUEST, BROADCAST, UNKNOWN_MAC, address);
      return;
    }
    // Solicited-node multicast (RFC 4861 section 2.3).
    const group = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ...address.subarray(13));
    const body = Uint8Array.of(...address, 1, 1, ...this.own.mac);
    const frame = this.discoveryFrame(group, NEIGHBOUR_SOLICITATION, 0, body);
    frame.set([0x33, 0x33, ...group.subarray(12)]);
    this.port.send(frame);
  }

  private discoveryFrame(destination: Address, type: number, word: number, body: Uint8Array): Uint8Array {
    const { mac, address6 } = this.own;
    const frame = ipFrame(mac, address6, destination, PROTOCOL_ICMPV6, 8 + body.length, 0, HOP_LIMIT);
    const at = transportAt(destination);
    frame[at] = type;
    put32(frame, at + 4, word);
    frame.set(body, at + 8);
    seal(frame, PROTOCOL_ICMPV6, 2);
    return frame;
  }

  private sendArp(operation: number, destination: Mac, targetMac: Mac, target: Address): void {
    const frame = newFrame(ARP_BYTES);
    frame.set(destination, 0);
    frame.set(this.own.mac, 6);
    put16(frame, 12, ETHER_ARP);
    put16(frame, 14, 1);
    put16(frame, 16, ETHER_IPV4);
    put16(frame, 18, 0x0604);
    put16(frame, 20, operation);
    frame.set(this.own.mac, 22);
    frame.set(this.own.address4, 28);
    frame.set(targetMac, 32);
    frame.set(target, 38);
    this.port.send(frame);
  }
}
