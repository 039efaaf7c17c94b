/**
 * Builds literal frames for tests: Ethernet, VLAN tags, IPv4, IPv6, ARP, ICMP, UDP and TCP, checksums included.
 *
 * A second opinion: it shares nothing with src/wire. Even the checksum is computed another way, as the remainder of one
 * large number by 0xffff, which is what one's complement addition of 16-bit words amounts to.
 */

export const CLIENT_MAC = '02:00:00:00:00:01';
export const VM_MAC = '52:54:00:12:34:56';

export const FIN = 0x01;
export const SYN = 0x02;
export const RST = 0x04;
export const PSH = 0x08;
export const ACK = 0x10;
export const URG = 0x20;

export type Tag = { id: number; type?: number; priority?: number };

export type LinkLayer = {
  sourceMac?: string;
  destinationMac?: string;
  /** outermost first; 802.1Q (0x8100) unless `type` says otherwise */
  tags?: Tag[];
  /** zeros after the datagram until the frame has so many bytes, as a network card adds them */
  padTo?: number;
};

export type Ipv4Header = {
  source?: string;
  destination?: string;
  protocol: number;
  id?: number;
  ttl?: number;
  options?: number[];
  /** in bytes, a multiple of 8 */
  fragmentOffset?: number;
  moreFragments?: boolean;
};

/** `bytes` is the whole extension header but its first byte, which the builder fills in. */
export type Ipv6Extension = { type: number; bytes: number[] };

export type Ipv6Header = {
  source?: string;
  destination?: string;
  next: number;
  hopLimit?: number;
  extensions?: Ipv6Extension[];
};

export type Addresses = { version?: 4 | 6; source?: string; destination?: string };

export type TcpSegment = LinkLayer &
  Addresses & {
    sourcePort?: number;
    destinationPort?: number;
    seq?: number;
    ack?: number;
    flags?: number;
    window?: number;
    urgent?: number;
    /** a multiple of 4 bytes, at most 40 */
    options?: number[];
    payload?: Uint8Array;
    ipOptions?: number[];
    extensions?: Ipv6Extension[];
  };

export type UdpDatagram = LinkLayer &
  Addresses & { sourcePort?: number; destinationPort?: number; payload?: Uint8Array };

export type IcmpMessage = LinkLayer &
  Addresses & { type: number; code?: number; id?: number; sequence?: number; payload?: Uint8Array };

export const CLIENT_ADDRESS = { 4: '10.0.2.2', 6: 'fd00::2' } as const;
export const VM_ADDRESS = { 4: '10.0.2.15', 6: 'fd00::15' } as const;

/** The Internet checksum of bytes (an odd last byte is padded with zero). */
export function internetChecksum(...parts: Uint8Array[]): number {
  const bytes = Buffer.concat(parts);
  const even = bytes.length % 2 === 0 ? bytes : Buffer.concat([bytes, Buffer.alloc(1)]);
  const value = BigInt(`0x0${even.toString('hex')}`);
  if (value === 0n) return 0xffff;
  const remainder = Number(value % 0xffffn);
  return remainder === 0 ? 0 : 0xffff - remainder;
}

/** A frame that lies in a larger buffer, as frames lie in slabs. */
export type Placed = { bytes: Buffer; at: number; length: number };

const FILL = 0xa5;

/** Places a frame in a larger buffer: `before` bytes of 0xa5 stand before it, and `after` bytes after it. */
export function placed(frame: Uint8Array, before = 3, after = 4): Placed {
  const bytes = Buffer.alloc(before + frame.length + after, FILL);
  bytes.set(frame, before);
  return { bytes, at: before, length: frame.length };
}

/** Returns whether every byte around the placed frame is still what `placed` put there. */
export function isUntouchedAround({ bytes, at, length }: Placed): boolean {
  return [...bytes.subarray(0, at), ...bytes.subarray(at + length)].every((byte) => byte === FILL);
}

export function mac(text: string): Buffer {
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}

/** The bytes of an IPv4 or IPv6 address. */
export function address(text: string): Buffer {
  if (!text.includes(':')) return Buffer.from(text.split('.').map(Number));
  const [left, right] = text.split('::').map((half) => (half === '' ? [] : half.split(':')));
  const groups =
    right === undefined ? left : [...left, ...Array(8 - left.length - right.length).fill('0'), ...right];
  return u16(...groups.map((group) => Number.parseInt(group, 16)));
}

export function u16(...values: number[]): Buffer {
  const bytes = Buffer.alloc(2 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt16BE(value, 2 * i);
  return bytes;
}

/** Values are taken modulo 2^32. */
export function u32(...values: number[]): Buffer {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt32BE(value >>> 0, 4 * i);
  return bytes;
}

export function ethernet(etherType: number, payload: Uint8Array, link: LinkLayer = {}): Buffer {
  const { sourceMac = CLIENT_MAC, destinationMac = VM_MAC, tags = [], padTo = 0 } = link;
  const header = [mac(destinationMac), mac(sourceMac)];
  for (const { id, type = 0x8100, priority = 0 } of tags) header.push(u16(type, (priority << 13) | id));
  header.push(u16(etherType));
  const frame = Buffer.concat([...header, payload]);
  return Buffer.concat([frame, Buffer.alloc(Math.max(0, padTo - frame.length))]);
}

export function ipv4(header: Ipv4Header, payload: Uint8Array): Buffer {
  const { source = CLIENT_ADDRESS[4], destination = VM_ADDRESS[4], options = [] } = header;
  const headerBytes = 20 + options.length;
  const fragment = (header.moreFragments ? 0x2000 : 0) | ((header.fragmentOffset ?? 0) / 8);
  const bytes = Buffer.concat([
    Buffer.from([0x40 | (headerBytes / 4), 0]),
    u16(headerBytes + payload.length, header.id ?? 0, fragment),
    Buffer.from([header.ttl ?? 64, header.protocol, 0, 0]),
    address(source),
    address(destination),
    Buffer.from(options),
  ]);
  bytes.writeUInt16BE(internetChecksum(bytes), 10);
  return Buffer.concat([bytes, payload]);
}

export function ipv6(header: Ipv6Header, payload: Uint8Array): Buffer {
  const { source = CLIENT_ADDRESS[6], destination = VM_ADDRESS[6], extensions = [] } = header;
  const types = [...extensions.map(({ type }) => type), header.next];
  const chain = extensions.map(({ bytes }, i) => Buffer.from([types[i + 1], ...bytes]));
  const body = Buffer.concat([...chain, payload]);
  return Buffer.concat([
    Buffer.from([0x60, 0, 0, 0]),
    u16(body.length),
    Buffer.from([types[0], header.hopLimit ?? 64]),
    address(source),
    address(destination),
    body,
  ]);
}

export function fragmentExtension(offset: number, more: boolean, id: number): Ipv6Extension {
  return { type: 44, bytes: [0, ...u16(offset | (more ? 1 : 0)), ...u32(id)] };
}

/** `units` further 8-byte units, filled with PadN. */
export function paddingExtension(type: number, units = 0): Ipv6Extension {
  const padding = units * 8 + 6;
  return { type, bytes: [units, 1, padding - 2, ...Array(padding - 2).fill(0)] };
}

export function tcpFrame(segment: TcpSegment): Buffer {
  const options = Buffer.from(segment.options ?? []);
  const header = Buffer.concat([
    u16(segment.sourcePort ?? 40000, segment.destinationPort ?? 80),
    u32(segment.seq ?? 0, segment.ack ?? 0),
    Buffer.from([((20 + options.length) / 4) << 4, segment.flags ?? ACK]),
    u16(segment.window ?? 0xffff, 0, segment.urgent ?? 0),
    options,
  ]);
  return transportFrame(segment, 6, Buffer.concat([header, segment.payload ?? Buffer.alloc(0)]), 16);
}

export function udpFrame(datagram: UdpDatagram): Buffer {
  const payload = datagram.payload ?? Buffer.alloc(0);
  const header = u16(datagram.sourcePort ?? 5353, datagram.destinationPort ?? 53, 8 + payload.length, 0);
  return transportFrame(datagram, 17, Buffer.concat([header, payload]), 6);
}

export function icmpFrame(message: IcmpMessage): Buffer {
  const body = Buffer.concat([
    Buffer.from([message.type, message.code ?? 0, 0, 0]),
    u16(message.id ?? 0, message.sequence ?? 0),
    message.payload ?? Buffer.alloc(0),
  ]);
  return transportFrame(message, message.version === 6 ? 58 : 1, body, 2);
}

/** An ARP request of `source`, an IPv4 address, or with another operation. */
export function arpFrame(link: LinkLayer & { source?: string; operation?: number } = {}): Buffer {
  const sender = link.sourceMac ?? CLIENT_MAC;
  const body = Buffer.concat([
    u16(1, 0x0800, 0x0604, link.operation ?? 1),
    mac(sender),
    address(link.source ?? CLIENT_ADDRESS[4]),
    Buffer.alloc(6),
    address(VM_ADDRESS[4]),
  ]);
  return ethernet(0x0806, body, { destinationMac: 'ff:ff:ff:ff:ff:ff', ...link });
}

/** The timestamps option (RFC 7323), 10 bytes. */
export function timestamps(value: number, echo: number): number[] {
  return [8, 10, ...u32(value, echo)];
}

/** The SACK option (RFC 2018), 2 bytes and 8 for each block. */
export function sack(blocks: [left: number, right: number][]): number[] {
  return [5, 2 + 8 * blocks.length, ...blocks.flatMap(([left, right]) => [...u32(left, right)])];
}

/** Fills options up to a multiple of 4 with NOPs. */
export function padded(options: number[]): number[] {
  return [...options, ...Array((4 - (options.length % 4)) % 4).fill(1)];
}

function transportFrame(
  frame: LinkLayer & Addresses & { ipOptions?: number[]; extensions?: Ipv6Extension[] },
  protocol: number,
  segment: Buffer,
  checksumAt: number,
): Buffer {
  const version = frame.version ?? 4;
  const source = frame.source ?? CLIENT_ADDRESS[version];
  const destination = frame.destination ?? VM_ADDRESS[version];
  const pseudo =
    protocol === 1
      ? Buffer.alloc(0)
      : Buffer.concat([address(source), address(destination), u32(segment.length, protocol)]);
  const checksum = internetChecksum(pseudo, segment);
  // RFC 768: zero would mean that there is no checksum.
  segment.writeUInt16BE(checksum === 0 && protocol === 17 ? 0xffff : checksum, checksumAt);
  if (version === 4) {
    return ethernet(
      0x0800,
      ipv4({ source, destination, protocol, options: frame.ipOptions ?? [] }, segment),
      frame,
    );
  }
  return ethernet(
    0x86dd,
    ipv6({ source, destination, next: protocol, extensions: frame.extensions ?? [] }, segment),
    frame,
  );
}
