/**
 * Hostile and odd frames: a valid structure of every kind that docs/comparison.md knows, then wrong lengths, cuts, overlaps and
 * noise. Addresses, ports and sequence numbers are drawn from few values, so that frames meet in one flow and at one place of
 * a stream.
 */
import { Dice } from '../dice.ts';
import {
  ACK,
  CLIENT_MAC,
  ethernet,
  FIN,
  fragmentExtension,
  type Ipv6Extension,
  icmpFrame,
  ipv4,
  ipv6,
  type LinkLayer,
  PSH,
  padded,
  paddingExtension,
  RST,
  SYN,
  sack,
  tcpFrame,
  timestamps,
  udpFrame,
  VM_MAC,
} from '../frames.ts';

const CLIENTS = { 4: ['10.0.2.2', '10.0.2.3'], 6: ['fd00::2', 'fd00::3'] } as const;
const VMS = { 4: ['10.0.2.15'], 6: ['fd00::15'] } as const;
const PORTS = [40000, 40001];
const VM_PORTS = [80, 80, 80, 80, 80, 80, 80, 81];
const STREAM = 'the quick brown fox jumps over the lazy dog and runs away with the spoon';
const ETHER_TYPES = [
  0x0800, 0x86dd, 0x0806, 0x8035, 0x88cc, 0x8100, 0x88a8, 0x88b5, 0x8847, 0x0000, 0xffff, 60,
];

type Version = 4 | 6;
type Way = LinkLayer & { version: Version; source: string; destination: string; fromVm: boolean };

/** A frame that the VM sends, or that is sent to it. */
export function hostileFrame(dice: Dice, fromVm = true): Buffer {
  const frame = dice.pick(KINDS)(dice, way(dice, fromVm));
  return dice.chance(2) ? frame : mutate(dice, frame);
}

function way(dice: Dice, fromVm: boolean): Way {
  const version = dice.chance(2) ? 4 : 6;
  const [vm, client] = [dice.pick(VMS[version]), dice.pick(CLIENTS[version])];
  return {
    version,
    fromVm,
    ...(fromVm
      ? { source: vm, destination: client, sourceMac: VM_MAC, destinationMac: CLIENT_MAC }
      : { source: client, destination: vm, sourceMac: CLIENT_MAC, destinationMac: VM_MAC }),
    tags: tags(dice),
    padTo: dice.chance(4) ? 60 : 0,
  };
}

function tags(dice: Dice): { id: number; type: number }[] {
  if (!dice.chance(6)) return [];
  return Array.from({ length: 1 + dice.roll(4) }, () => ({
    id: dice.roll(3),
    type: dice.pick([0x8100, 0x88a8]),
  }));
}

const KINDS: ((dice: Dice, way: Way) => Buffer)[] = [
  tcp,
  tcp,
  tcp,
  tcp,
  udp,
  udp,
  icmp,
  icmpError,
  other,
  fragment,
  plain,
  noise,
];

function tcp(dice: Dice, way: Way): Buffer {
  const from = dice.roll(STREAM.length);
  const base = dice.chance(8) ? dice.roll(2 ** 32) : -20;
  const text = STREAM.slice(from, from + dice.roll(dice.chance(8) ? 60 : 12));
  const payload = Buffer.from(text);
  if (payload.length > 0 && dice.chance(12)) payload[dice.roll(payload.length)] ^= 0x20;
  return tcpFrame({
    ...way,
    ...ports(dice, way),
    seq: base + from,
    ack: dice.chance(10) ? dice.roll(2 ** 32) : 0x7fffffff + dice.roll(6),
    flags: flags(dice),
    options: dice.chance(3) ? tcpOptions(dice) : [],
    payload,
    extensions: extensions(dice),
  });
}

function ports(dice: Dice, { fromVm }: Way): { sourcePort: number; destinationPort: number } {
  const [vm, client] = [dice.pick(VM_PORTS), dice.pick(PORTS)];
  return fromVm ? { sourcePort: vm, destinationPort: client } : { sourcePort: client, destinationPort: vm };
}

function flags(dice: Dice): number {
  if (dice.chance(30)) return dice.roll(256);
  return dice.pick([ACK, ACK, ACK, ACK, ACK | PSH, ACK | FIN, SYN, SYN | ACK, RST, RST | ACK]);
}

function tcpOptions(dice: Dice): number[] {
  const honest = padded(
    dice.pick([
      timestamps(dice.roll(100), dice.roll(100)),
      sack([[dice.roll(2 ** 32), dice.roll(2 ** 32)]]),
      [2, 4, 5, 180],
      [...timestamps(1, 2), ...sack([[1, 2]])],
    ]),
  );
  // A wrong length: too short, too long for the option, or beyond the header.
  if (dice.chance(2)) honest[1] = dice.pick([0, 1, 2, 3, 9, 11, 40, 255]);
  return honest.slice(0, 40);
}

function extensions(dice: Dice): Ipv6Extension[] {
  if (!dice.chance(5)) return [];
  return Array.from({ length: 1 + dice.roll(10) }, () => {
    const extension = paddingExtension(dice.pick([0, 43, 60]), dice.roll(3));
    if (dice.chance(8)) extension.bytes[0] = dice.roll(256);
    return extension;
  });
}

function udp(dice: Dice, way: Way): Buffer {
  return udpFrame({
    ...way,
    sourcePort: 53,
    destinationPort: dice.pick(PORTS),
    payload: Buffer.from(dice.pick(['', 'a', 'b', 'the answer'])),
  });
}

function icmp(dice: Dice, way: Way): Buffer {
  const type = way.version === 4 ? dice.pick([0, 8]) : dice.pick([128, 129, 131, 134, 135, 136, 143]);
  return icmpFrame({
    ...way,
    type,
    id: dice.roll(2),
    sequence: dice.roll(3),
    payload: dice.bytes(dice.roll(9)),
  });
}

/** An error about a packet of the other direction, which it quotes, cut anywhere, with lengths that may be wrong. */
function icmpError(dice: Dice, way: Way): Buffer {
  return errorAbout(dice, way, packetBack(dice, way));
}

/** Two VMs' errors about one packet. Each quotes as much as it likes, and the packet may have changed on its way to one. */
export function twoErrors(dice: Dice): [Buffer, Buffer] {
  const one = way(dice, true);
  const packet = packetBack(dice, one);
  const other = Buffer.from(packet);
  if (dice.chance(2)) setByte(other, dice.roll(Math.min(other.length, 60)), dice.roll(256));
  const seed = dice.roll(2 ** 32);
  const [a, b] = [new Dice(seed), new Dice(dice.chance(4) ? seed + 1 : seed)];
  return [errorAbout(a, one, packet), errorAbout(b, one, other)];
}

/** A packet of the other direction, from its IP header on. */
function packetBack(dice: Dice, way: Way): Buffer {
  const back: Way = {
    ...way,
    fromVm: !way.fromVm,
    source: way.destination,
    destination: way.source,
    tags: [],
    padTo: 0,
  };
  const kind = dice.pick([tcp, tcp, tcp, udp, icmp, other, fragment]);
  return kind(dice, back).subarray(14);
}

function errorAbout(dice: Dice, way: Way, packet: Buffer): Buffer {
  const headerBytes = way.version === 4 ? 20 : 40;
  const cut = dice.chance(3)
    ? dice.roll(packet.length + 1)
    : headerBytes + dice.pick([8, 12, 20, 28, 32, packet.length]);
  let quote = Buffer.from(packet.subarray(0, cut));
  // Lengths, header lengths, protocol and fragment offset of the quoted packet; TCP's header length.
  if (dice.chance(4)) {
    const at = dice.pick(way.version === 4 ? [0, 2, 3, 6, 7, 9, 32] : [0, 4, 5, 6, 40, 41, 52]);
    setByte(quote, at, dice.pick([0, 1, 6, 40, 44, 0x45, 0x4f, 0x60, 0xf0, 0xff, dice.roll(256)]));
  }
  let lengths = 0;
  if (dice.chance(4)) {
    // RFC 4884: the quote is padded, its length is given, and an extension follows.
    if (!dice.chance(4)) quote = Buffer.concat([quote, Buffer.alloc(Math.max(0, 128 - quote.length))]);
    const units = dice.chance(3) ? dice.roll(256) : Math.floor(quote.length / (way.version === 4 ? 4 : 8));
    lengths = way.version === 4 ? units : units << 8;
    quote = Buffer.concat([quote, Buffer.from([0x20, 0, 0, 0, 0, 8, 1, 1, 0, 0, 16, 1])]);
  }
  const type = dice.pick(way.version === 4 ? [3, 3, 4, 5, 11, 12] : [1, 1, 2, 3, 4, 100]);
  return icmpFrame({ ...way, type, code: dice.roll(3), id: lengths, sequence: dice.roll(2), payload: quote });
}

function other(dice: Dice, way: Way): Buffer {
  const protocol = dice.pick([0, 2, 4, 6, 17, 41, 47, 50, 51, 58, 59, 132, 255]);
  return datagram(way, protocol, dice.bytes(dice.roll(24)), dice);
}

/** Fragments of one datagram: apart, overlapping, inside one another, without a beginning or an end. */
function fragment(dice: Dice, way: Way): Buffer {
  const protocol = dice.pick([6, 17, 1, 58]);
  const body = Buffer.alloc(8 * dice.roll(4) + (dice.chance(4) ? dice.roll(8) : 0), dice.roll(2));
  const offset = 8 * dice.pick([0, 0, 1, 2, 3, 8191]);
  const more = dice.chance(2);
  if (way.version === 4) {
    const header = { ...way, protocol, id: dice.roll(2), fragmentOffset: offset, moreFragments: more };
    return ethernet(0x0800, ipv4(header, body), way);
  }
  const header = {
    ...way,
    next: protocol,
    extensions: [...extensions(dice), fragmentExtension(offset, more, 7)],
  };
  return ethernet(0x86dd, ipv6(header, body), way);
}

/** A datagram that both VMs send, each in fragments of its own. */
export type Datagram = { version: Version; protocol: number; body: Buffer };

export function anyDatagram(dice: Dice): Datagram {
  const version = dice.pick([4, 6] as const);
  const text = Buffer.from(STREAM.slice(0, dice.roll(STREAM.length)));
  const whole = udpFrame({ version, sourcePort: 53, destinationPort: dice.pick(PORTS), payload: text });
  const udpBody = whole.subarray(version === 4 ? 34 : 54);
  return dice.pick([
    { version, protocol: 17, body: udpBody },
    { version, protocol: 6, body: Buffer.concat([Buffer.alloc(20, 0x50), text]) },
    { version, protocol: 47, body: Buffer.concat([Buffer.from('gre.'), text]) },
    {
      version,
      protocol: version === 4 ? 1 : 58,
      body: Buffer.concat([Buffer.from([version === 4 ? 0 : 129, 0, 0, 0, 0, 7, 0, 1]), text]),
    },
  ]);
}

/** Returns its frames, cut anywhere and in any order, or whole; now and then one is missing, doubled, or overlaps. */
export function cutUp(dice: Dice, { version, protocol, body }: Datagram, id: number): Buffer[] {
  const way: Way = {
    version,
    fromVm: true,
    source: VMS[version][0],
    destination: CLIENTS[version][0],
    sourceMac: VM_MAC,
    destinationMac: CLIENT_MAC,
  };
  const frameOf = (from: number, to: number): Buffer => {
    const part = body.subarray(from, to);
    if (version === 4) {
      const header = { ...way, protocol, id, fragmentOffset: from, moreFragments: to < body.length };
      return ethernet(0x0800, ipv4(header, part), way);
    }
    const piece = fragmentExtension(from, to < body.length, id);
    const extensions = from === 0 && to === body.length && dice.chance(2) ? [] : [piece];
    return ethernet(0x86dd, ipv6({ ...way, next: protocol, extensions }, part), way);
  };
  const frames: Buffer[] = [];
  for (let from = 0; from < body.length; ) {
    const to = dice.chance(3) ? body.length : Math.min(body.length, from + 8 * (1 + dice.roll(4)));
    frames.push(frameOf(from, to));
    from = to;
  }
  if (dice.chance(3)) frames.sort(() => dice.roll(3) - 1);
  if (dice.chance(12)) frames.splice(dice.roll(frames.length), 1);
  if (dice.chance(12)) frames.push(frameOf(8 * dice.roll(2), 16 + 8 * dice.roll(2)));
  return frames;
}

function datagram(way: Way, protocol: number, body: Buffer, dice: Dice): Buffer {
  if (way.version === 4) {
    const options = dice.chance(4) ? Array(4 * dice.roll(11)).fill(1) : [];
    return ethernet(0x0800, ipv4({ ...way, protocol, options }, body), way);
  }
  return ethernet(0x86dd, ipv6({ ...way, next: protocol, extensions: extensions(dice) }, body), way);
}

function plain(dice: Dice, way: Way): Buffer {
  return ethernet(dice.pick(ETHER_TYPES), dice.bytes(dice.roll(64)), way);
}

function noise(dice: Dice): Buffer {
  return dice.bytes(dice.chance(2) ? dice.roll(20) : dice.roll(120));
}

/** Offsets of lengths and kinds in an untagged frame; in a tagged frame they are other fields, which serve as well. */
const KEY_OFFSETS = [12, 13, 14, 16, 17, 18, 19, 20, 21, 23, 38, 39, 46, 47, 54, 55, 58, 66];

export function mutate(dice: Dice, frame: Buffer): Buffer {
  let bytes = Buffer.from(frame);
  for (let times = 1 + dice.roll(3); times > 0; times--) {
    switch (dice.roll(6)) {
      case 0:
        bytes = bytes.subarray(0, dice.roll(bytes.length + 1));
        break;
      case 1:
        bytes = Buffer.concat([bytes, dice.bytes(dice.roll(30))]);
        break;
      case 2:
        setByte(
          bytes,
          dice.pick(KEY_OFFSETS),
          dice.pick([0, 1, 0x40, 0x45, 0x4f, 0x60, 0x7f, 0x80, 0xff, dice.roll(256)]),
        );
        break;
      case 3:
        setByte(bytes, dice.roll(bytes.length), dice.roll(256));
        break;
      case 4: {
        const at = dice.roll(bytes.length);
        bytes.fill(dice.pick([0, 0xff]), at, Math.min(bytes.length, at + dice.roll(8)));
        break;
      }
      default: {
        const at = dice.roll(bytes.length);
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + dice.roll(6))]);
      }
    }
  }
  return bytes;
}

function setByte(bytes: Buffer, at: number, value: number): void {
  if (at < bytes.length) bytes[at] = value;
}
