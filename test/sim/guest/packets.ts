/**
 * Ethernet, IPv4 and IPv6: writes and reads headers, fills in and verifies checksums.
 *
 * It shares nothing with src/wire, which is under test. The stack ignores frames with fragments, VLAN tags or IPv6
 * extension headers.
 */

/** 4 or 16 bytes. */
export type Address = Uint8Array;
export type Mac = Uint8Array;

export const ETHER_IPV4 = 0x0800;
export const ETHER_ARP = 0x0806;
export const ETHER_IPV6 = 0x86dd;
export const PROTOCOL_ICMP = 1;
export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
export const PROTOCOL_ICMPV6 = 58;
export const BROADCAST: Mac = new Uint8Array(6).fill(0xff);

const ETHERNET_BYTES = 14;
const IPV4_BYTES = 20;
const IPV6_BYTES = 40;

export function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 8;
  bytes[at + 1] = value;
}

export function put32(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

export function get16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}

/** Returns an int32. */
export function get32(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
}

/** Up to here a loop is faster than `set` with a new view. */
const LOOP_BYTES_MAX = 80;

export function copyBytes(from: Uint8Array, at: number, to: Uint8Array, toAt: number, bytes: number): void {
  if (bytes > LOOP_BYTES_MAX) to.set(bytes === from.length ? from : from.subarray(at, at + bytes), toAt);
  else for (let i = 0; i < bytes; i++) to[toAt + i] = from[at + i];
}

export function put(to: Uint8Array, at: number, bytes: Uint8Array): void {
  copyBytes(bytes, 0, to, at, bytes.length);
}

export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

export function fromHex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (let i = 0; i < bytes.length; i++) text += (bytes[i] + 256).toString(16).slice(1);
  return text;
}

const SLAB_BYTES = 1 << 18;
let slab = new Uint8Array(SLAB_BYTES);
let used = 0;

/** Returns zeroed memory for a frame, cut from a larger piece: one allocation per frame takes longer than the frame. */
export function newFrame(bytes: number): Uint8Array {
  if (used + bytes > SLAB_BYTES) {
    slab = new Uint8Array(SLAB_BYTES);
    used = 0;
  }
  used += bytes;
  return slab.subarray(used - bytes, used);
}

/** Returns the folded one's complement sum of 16-bit words. */
function sum16(bytes: Uint8Array, at: number, end: number, sum: number): number {
  // 32-bit words would overflow a small integer; pairs of bytes do not, up to 32 768 of them.
  for (; at + 1 < end; at += 2) sum += (bytes[at] << 8) | bytes[at + 1];
  if (at < end) sum += bytes[at] << 8;
  sum = (sum & 0xffff) + (sum >>> 16);
  return (sum & 0xffff) + (sum >>> 16);
}

/** Returns the place of the transport header in a frame to `address`. */
export function transportAt(address: Address): number {
  return ETHERNET_BYTES + (address.length === 4 ? IPV4_BYTES : IPV6_BYTES);
}

/** Returns a frame with its Ethernet source and IP header, without transport part and destination MAC. */
export function ipFrame(
  mac: Mac,
  source: Address,
  destination: Address,
  protocol: number,
  transportBytes: number,
  id: number,
  hopLimit: number,
): Uint8Array {
  const at = transportAt(destination);
  const frame = newFrame(at + transportBytes);
  put(frame, 6, mac);
  if (destination.length === 4) {
    put16(frame, 12, ETHER_IPV4);
    frame[14] = 0x45;
    put16(frame, 16, IPV4_BYTES + transportBytes);
    put16(frame, 18, id);
    frame[20] = 0x40;
    frame[22] = hopLimit;
    frame[23] = protocol;
    put(frame, 26, source);
    put(frame, 30, destination);
    put16(frame, 24, ~sum16(frame, 14, 34, 0));
  } else {
    put16(frame, 12, ETHER_IPV6);
    frame[14] = 0x60;
    put16(frame, 18, transportBytes);
    frame[20] = protocol;
    frame[21] = hopLimit;
    put(frame, 22, source);
    put(frame, 38, destination);
  }
  return frame;
}

/** Fills in the transport checksum, whose field is `offset` bytes into the transport header. */
export function seal(frame: Uint8Array, protocol: number, offset: number): void {
  const checksum = ~transportSum(frame, protocol, frame.length) & 0xffff;
  const at = (frame[14] === 0x45 ? 34 : 54) + offset;
  put16(frame, at, checksum === 0 && protocol === PROTOCOL_UDP ? 0xffff : checksum);
}

/** With the pseudo header, except for ICMP over IPv4, which has none. */
function transportSum(frame: Uint8Array, protocol: number, end: number): number {
  const at = frame[14] === 0x45 ? 34 : 54;
  if (protocol === PROTOCOL_ICMP) return sum16(frame, at, end, 0);
  const pseudo = frame[14] === 0x45 ? 26 : 22;
  return sum16(frame, pseudo, end, protocol + end - at);
}

export const READ = { ok: 0, notIp: 1, malformed: 2, badChecksum: 3, ignored: 4 } as const;
export type Read = (typeof READ)[keyof typeof READ];

/** The fields of a received IP frame; reused for each frame. */
export class IpPacket {
  frame: Uint8Array = new Uint8Array(0);
  source: Address = new Uint8Array(4);
  destination: Address = new Uint8Array(4);
  protocol = 0;
  hopLimit = 0;
  at = 0;
  end = 0;

  read(frame: Uint8Array): Read {
    if (frame.length < ETHERNET_BYTES) return READ.malformed;
    const type = get16(frame, 12);
    this.frame = frame;
    if (type === ETHER_IPV4) {
      if (frame.length < 34 || frame[14] >> 4 !== 4) return READ.malformed;
      if (frame[14] !== 0x45 || (get16(frame, 20) & 0x3fff) !== 0) return READ.ignored;
      this.end = 14 + get16(frame, 16);
      this.at = 34;
      this.protocol = frame[23];
      this.hopLimit = frame[22];
      if (this.end < this.at || this.end > frame.length) return READ.malformed;
      if (sum16(frame, 14, 34, 0) !== 0xffff) return READ.badChecksum;
      this.source = frame.subarray(26, 30);
      this.destination = frame.subarray(30, 34);
    } else if (type === ETHER_IPV6) {
      if (frame.length < 54 || frame[14] >> 4 !== 6) return READ.malformed;
      this.end = 54 + get16(frame, 18);
      this.at = 54;
      this.protocol = frame[20];
      this.hopLimit = frame[21];
      if (this.end > frame.length) return READ.malformed;
      this.source = frame.subarray(22, 38);
      this.destination = frame.subarray(38, 54);
    } else {
      return READ.notIp;
    }
    return this.checkTransport(type);
  }

  private checkTransport(type: number): Read {
    const { frame, protocol, at, end } = this;
    if (protocol === PROTOCOL_TCP) {
      const headerBytes = (frame[at + 12] >> 4) << 2;
      if (end - at < 20 || headerBytes < 20 || headerBytes > end - at) return READ.malformed;
    } else if (protocol === PROTOCOL_UDP) {
      if (end - at < 8 || get16(frame, at + 4) !== end - at) return READ.malformed;
      if (get16(frame, at + 6) === 0) return type === ETHER_IPV4 ? READ.ok : READ.badChecksum;
    } else if (protocol === (type === ETHER_IPV4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6)) {
      if (end - at < 8) return READ.malformed;
    } else {
      return READ.ignored;
    }
    return transportSum(frame, protocol, end) === 0xffff ? READ.ok : READ.badChecksum;
  }
}
