/**
 * Where the VM is in the network: the VLANs in which it has spoken, and the addresses from which it has, in each of them.
 *
 * Goal: a failover is announced wherever the VM is, not only where the configuration says (announce.ts).
 * Tracked: `placesMax` places. A place is a stack of at most two VLAN tags; the first place has none. `placeAddressesMax` addresses in
 * all; a further one takes the place of the one that was learnt first.
 *
 * | frame                                                   | what is learnt                                              |
 * |---------------------------------------------------------|-------------------------------------------------------------|
 * | any of the VM, with tags                                | the place                                                   |
 * | ARP of the VM, request or reply                         | its sender's address, unless that is 0.0.0.0 (a probe)      |
 * | neighbour solicitation of the VM                        | its source, unless that is :: (the address may be in use)   |
 * | neighbour advertisement of the VM                       | its target                                                  |
 * | ARP or advertisement of another station, in that place  | the address is that station's now: it is forgotten          |
 *
 * The last row is for addresses that move between machines: to announce one that has left the VM would take it from its owner.
 *
 * The node keeps one of these whatever its role. The primary's path feeds it; the primary sends it to the secondary whenever it has
 * changed (link/places-message.ts), so that a promoted node knows what its VM did before it was copied.
 *
 * Limits: a place beyond `placesMax` is not learnt; the VM's own frames show it to the network. No allocation per frame.
 */
import { LIMITS, type Limits } from '../limits.ts';
import type { Place } from '../link/places-message.ts';
import { ARP, ARP_LENGTHS } from '../wire/arp.ts';
import { readI32, readU16 } from '../wire/bytes.ts';
import { ETHER_TYPE, ETHERNET } from '../wire/ethernet.ts';
import { ICMPV6_NEIGHBOR_ADVERTISEMENT, ICMPV6_NEIGHBOR_SOLICITATION, NEIGHBOR } from '../wire/icmp.ts';
import { IP_PROTOCOL } from '../wire/ipv4.ts';
import { IPV6 } from '../wire/ipv6.ts';
import { VlanTags } from '../wire/vlan-tags.ts';

const NO_PLACE = -1;
const NO_ADDRESS = -1;
const IPV4_ADDRESS_BYTES = 4;
const IPV6_ADDRESS_BYTES = 16;
/** The first byte of a group's address. */
const MULTICAST = 0xff;

export class Places {
  /** grows with each change of what `list` returns */
  version = 0;
  private readonly macHigh: number;
  private readonly macLow: number;
  private readonly tags = new VlanTags();
  private readonly outer: Int32Array;
  private readonly inner: Int32Array;
  /** places; the first one has no tags */
  private count = 1;
  /** of the frame before: the next one is mostly of the same */
  private latest = 0;
  /* Addresses: 16 bytes each (IPv4: the first four), how many count, 0 where there is none, and the place. */
  private readonly addresses: Uint8Array;
  private readonly lengths: Uint8Array;
  private readonly placeOf: Int32Array;
  private nextAddress = 0;
  /** the address that was read last */
  private readonly address = new Uint8Array(IPV6_ADDRESS_BYTES);

  constructor(mac: string, { placesMax, placeAddressesMax }: Limits = LIMITS) {
    const bytes = mac.split(':').map((part) => Number.parseInt(part, 16));
    this.macHigh = (bytes[0] << 8) | bytes[1];
    this.macLow = (bytes[2] << 24) | (bytes[3] << 16) | (bytes[4] << 8) | bytes[5];
    this.outer = new Int32Array(placesMax);
    this.inner = new Int32Array(placesMax);
    this.addresses = new Uint8Array(IPV6_ADDRESS_BYTES * placeAddressesMax);
    this.lengths = new Uint8Array(placeAddressesMax);
    this.placeOf = new Int32Array(placeAddressesMax);
  }

  /** Learns from a frame that the VM has sent. */
  sent(bytes: Uint8Array, at: number, length: number): void {
    // Nearly every frame is one of these, and teaches nothing.
    if (length < ETHERNET.headerBytes || readU16(bytes, at + ETHERNET.etherType) === ETHER_TYPE.ipv4) return;
    const { tags } = this;
    if (!tags.read(bytes, at, length)) return;
    const place = this.placeWith(tags.outer, tags.inner);
    const addressBytes = this.readAddress(bytes, at + length, 'own');
    if (addressBytes !== 0 && place !== NO_PLACE) this.learn(place, addressBytes);
  }

  /** Forgets an address that another station shows to have: a frame that the network has sent. */
  heard(bytes: Uint8Array, at: number, length: number): void {
    if (length < ETHERNET.headerBytes || readU16(bytes, at + ETHERNET.etherType) === ETHER_TYPE.ipv4) return;
    const { tags } = this;
    if (!tags.read(bytes, at, length)) return;
    const addressBytes = this.readAddress(bytes, at + length, 'other');
    const place = addressBytes === 0 ? NO_PLACE : this.find(tags.outer, tags.inner);
    const known = place === NO_PLACE ? NO_ADDRESS : this.indexOf(place, addressBytes);
    if (known === NO_ADDRESS) return;
    this.lengths[known] = 0;
    this.version++;
  }

  /** Returns all places, that of frames without a tag first. */
  list(): Place[] {
    const places: Place[] = [];
    for (let i = 0; i < this.count; i++)
      places.push({ tags: [...tagOf(this.outer[i]), ...tagOf(this.inner[i])], addresses: [] });
    for (let i = 0; i < this.lengths.length; i++) {
      const from = IPV6_ADDRESS_BYTES * i;
      const bytes = Buffer.from(this.addresses.subarray(from, from + this.lengths[i]));
      if (bytes.length > 0) places[this.placeOf[i]].addresses.push(bytes.toString('hex'));
    }
    return places;
  }

  /** Replaces all places by those of the peer. */
  replace(places: readonly Place[]): void {
    this.count = 1;
    this.latest = 0;
    this.lengths.fill(0);
    this.nextAddress = 0;
    for (const { tags, addresses } of places) {
      const [outer = 0, inner = 0] = tags.map(({ etherType, id }) => (etherType << 16) | id);
      const place = this.placeWith(outer, inner);
      for (const hex of place === NO_PLACE ? [] : addresses) {
        const bytes = Buffer.from(hex, 'hex');
        this.address.set(bytes);
        this.learn(place, bytes.length);
      }
    }
    this.version++;
  }

  private find(outer: number, inner: number): number {
    const { latest } = this;
    if (this.outer[latest] === outer && this.inner[latest] === inner) return latest;
    for (let i = 0; i < this.count; i++) if (this.outer[i] === outer && this.inner[i] === inner) return i;
    return NO_PLACE;
  }

  private placeWith(outer: number, inner: number): number {
    let place = this.find(outer, inner);
    if (place === NO_PLACE) {
      if (this.count === this.outer.length) return NO_PLACE;
      place = this.count++;
      this.outer[place] = outer;
      this.inner[place] = inner;
      this.version++;
    }
    this.latest = place;
    return place;
  }

  /** Reads the address that a frame shows to be its sender's into `address`. Returns its bytes; 0 if it shows none. */
  private readAddress(bytes: Uint8Array, end: number, whose: 'own' | 'other'): number {
    const { etherType, l3 } = this.tags;
    if (etherType === ETHER_TYPE.arp) return this.readArp(bytes, l3, end, whose);
    return etherType === ETHER_TYPE.ipv6 ? this.readNeighbor(bytes, l3, end, whose) : 0;
  }

  private readArp(bytes: Uint8Array, l3: number, end: number, whose: 'own' | 'other'): number {
    if (l3 + ARP.bytes > end || readU16(bytes, l3 + ARP.protocol) !== ETHER_TYPE.ipv4) return 0;
    if (readU16(bytes, l3 + ARP.lengths) !== ARP_LENGTHS) return 0;
    const isVm =
      readU16(bytes, l3 + ARP.senderMac) === this.macHigh &&
      readI32(bytes, l3 + ARP.senderMac + 2) === this.macLow;
    if (isVm !== (whose === 'own')) return 0;
    return this.keep(bytes, l3 + ARP.senderIp, IPV4_ADDRESS_BYTES);
  }

  private readNeighbor(bytes: Uint8Array, l3: number, end: number, whose: 'own' | 'other'): number {
    const icmp = l3 + IPV6.headerBytes;
    if (icmp + NEIGHBOR.bytes > end || bytes[l3 + IPV6.nextHeader] !== IP_PROTOCOL.icmpv6) return 0;
    const type = bytes[icmp];
    const isSolicitation = type === ICMPV6_NEIGHBOR_SOLICITATION && whose === 'own';
    if (type !== ICMPV6_NEIGHBOR_ADVERTISEMENT && !isSolicitation) return 0;
    const from = isSolicitation ? l3 + IPV6.source : icmp + NEIGHBOR.target;
    return bytes[from] === MULTICAST ? 0 : this.keep(bytes, from, IPV6_ADDRESS_BYTES);
  }

  /** Keeps an address of so many bytes in `address`. Returns its bytes; 0 if all of them are zero. */
  private keep(bytes: Uint8Array, from: number, addressBytes: number): number {
    let any = 0;
    for (let i = 0; i < addressBytes; i++) {
      this.address[i] = bytes[from + i];
      any |= bytes[from + i];
    }
    return any === 0 ? 0 : addressBytes;
  }

  private indexOf(place: number, addressBytes: number): number {
    const { address, addresses, lengths } = this;
    for (let i = 0; i < lengths.length; i++) {
      if (lengths[i] !== addressBytes || this.placeOf[i] !== place) continue;
      let byte = 0;
      while (byte < addressBytes && addresses[IPV6_ADDRESS_BYTES * i + byte] === address[byte]) byte++;
      if (byte === addressBytes) return i;
    }
    return NO_ADDRESS;
  }

  private learn(place: number, addressBytes: number): void {
    if (this.indexOf(place, addressBytes) !== NO_ADDRESS) return;
    const at = this.nextAddress;
    this.nextAddress = (at + 1) % this.lengths.length;
    this.lengths[at] = addressBytes;
    this.placeOf[at] = place;
    this.addresses.set(this.address, IPV6_ADDRESS_BYTES * at);
    this.version++;
  }
}

function tagOf(word: number): Place['tags'] {
  return word === 0 ? [] : [{ etherType: word >>> 16, id: word & 0xffff }];
}
