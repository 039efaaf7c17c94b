/**
 * A client with addresses of its own on the lab's hub. Every ICMP echo and UDP datagram that it sends reaches the
 * guest's network exactly once, without a host's stack that could lose, repeat or delay it. The guest's counts can
 * therefore be compared with what was sent, frame by frame.
 *
 * The client replies to ARP and neighbour solicitations for its own addresses, and receives the frames for them.
 */
import { connect, type Socket } from 'node:net';
import { foldChecksum, sumWords } from '../../src/wire/checksum.ts';
import { NIC } from '../vm.ts';
import { eachFrame, WholeFrames } from '../whole-frames.ts';

const OWN = { mac: '52:54:00:c0:10:99', v4: '10.0.2.99', v6: 'fd00:c010::99' } as const;
const UDP_PORT = 40_000;
const PROTOCOL = { icmp: 1, udp: 17, icmpv6: 58 } as const;

export type FrameCounts = {
  sent: number;
  replied: number;
  /** Replies to a request that had a reply already. */
  repeated: number;
  /** Replies that the guest should not have sent. */
  wrong: number;
};

type Family = 'v4' | 'v6';

export class FrameClient {
  readonly icmp: FrameCounts = { sent: 0, replied: 0, repeated: 0, wrong: 0 };
  readonly udp: FrameCounts = { sent: 0, replied: 0, repeated: 0, wrong: 0 };
  private readonly socket: Socket;
  private readonly family: Family;
  private readonly guestUdpPort: number;
  private readonly icmpReplied = new Set<number>();
  private readonly udpReplied = new Set<number>();
  private udpCount = 0;

  private constructor(socket: Socket, family: Family, guestUdpPort: number) {
    this.socket = socket;
    this.family = family;
    this.guestUdpPort = guestUdpPort;
    const cutter = new WholeFrames((frames) => eachFrame(frames, (frame) => this.onFrame(frame)));
    socket.on('data', (chunk: Buffer) => cutter.push(chunk));
  }

  /** Connects to one of the network's uplinks. `guestUdpPort` is the port of the guest's counted echo. */
  static open(path: string, family: Family, guestUdpPort: number): Promise<FrameClient> {
    return new Promise((resolve, reject) => {
      const socket = connect(path);
      socket.once('error', reject);
      socket.once('connect', () => resolve(new FrameClient(socket, family, guestUdpPort)));
    });
  }

  close(): void {
    this.socket.destroy();
  }

  /** Sends one echo request; `number` must be below 65536. */
  ping(): void {
    const number = ++this.icmp.sent;
    const body = Buffer.alloc(56, 0x5a);
    body.writeUInt32BE(number);
    this.sendIcmp(this.family === 'v4' ? 8 : 128, 0x4343, number, body);
  }

  /** Sends one numbered datagram to the counted echo. */
  datagram(): void {
    const number = ++this.udp.sent;
    const payload = Buffer.from(`${number} ${'.'.repeat(number % 64)}`);
    const udp = Buffer.alloc(8 + payload.length);
    udp.writeUInt16BE(UDP_PORT, 0);
    udp.writeUInt16BE(this.guestUdpPort, 2);
    udp.writeUInt16BE(udp.length, 4);
    payload.copy(udp, 8);
    this.sendIp(PROTOCOL.udp, udp, 6);
  }

  private sendIcmp(type: number, id: number, sequence: number, body: Buffer): void {
    const icmp = Buffer.alloc(8 + body.length);
    icmp[0] = type;
    icmp.writeUInt16BE(id, 4);
    icmp.writeUInt16BE(sequence & 0xffff, 6);
    body.copy(icmp, 8);
    if (this.family === 'v4') {
      icmp.writeUInt16BE(foldChecksum(sumWords(icmp, 0, icmp.length, 0)), 2);
      this.sendIp(PROTOCOL.icmp, icmp, -1);
    } else this.sendIp(PROTOCOL.icmpv6, icmp, 2);
  }

  /** `checksumAt`: offset of the transport checksum with its pseudo header, or -1. */
  private sendIp(protocol: number, payload: Buffer, checksumAt: number): void {
    const source = addressBytes(OWN[this.family]);
    const destination = addressBytes(NIC[this.family]);
    if (checksumAt >= 0) {
      const pseudo = Buffer.concat([source, destination, payload]);
      const sum = sumWords(pseudo, 0, pseudo.length, protocol + payload.length);
      payload.writeUInt16BE(foldChecksum(sum) || 0xffff, checksumAt);
    }
    this.sendFrame(
      NIC.mac,
      this.family === 'v4' ? 0x0800 : 0x86dd,
      Buffer.concat([this.ipHeader(protocol, payload.length, source, destination), payload]),
    );
  }

  private ipHeader(protocol: number, bytes: number, source: Buffer, destination: Buffer): Buffer {
    if (this.family === 'v6') {
      const header = Buffer.alloc(8);
      header[0] = 0x60;
      header.writeUInt16BE(bytes, 4);
      header[6] = protocol;
      header[7] = 255;
      return Buffer.concat([header, source, destination]);
    }
    const header = Buffer.alloc(20);
    header[0] = 0x45;
    header.writeUInt16BE(20 + bytes, 2);
    header[8] = 64;
    header[9] = protocol;
    source.copy(header, 12);
    destination.copy(header, 16);
    header.writeUInt16BE(foldChecksum(sumWords(header, 0, 20, 0)), 10);
    return header;
  }

  private sendFrame(to: string, etherType: number, payload: Buffer): void {
    const bytes = Math.max(60, 14 + payload.length);
    const frame = Buffer.alloc(4 + bytes);
    frame.writeUInt32BE(bytes);
    macBytes(to).copy(frame, 4);
    macBytes(OWN.mac).copy(frame, 10);
    frame.writeUInt16BE(etherType, 16);
    payload.copy(frame, 18);
    this.socket.write(frame);
  }

  private onFrame(frame: Buffer): void {
    const etherType = frame.readUInt16BE(12);
    if (etherType === 0x0806) this.onArp(frame);
    else if (etherType === 0x0800 && isBetween(frame, 26, NIC.v4, OWN.v4)) {
      this.onPacket(frame[23], frame.subarray(14 + 20, 14 + frame.readUInt16BE(16)));
    } else if (etherType === 0x86dd) this.onIpv6(frame);
  }

  private onArp(frame: Buffer): void {
    const asked = frame.readUInt16BE(20) === 1 && frame.subarray(38, 42).equals(addressBytes(OWN.v4));
    if (!asked) return;
    const reply = Buffer.alloc(28);
    frame.copy(reply, 0, 14, 20);
    reply.writeUInt16BE(2, 6);
    macBytes(OWN.mac).copy(reply, 8);
    addressBytes(OWN.v4).copy(reply, 14);
    frame.copy(reply, 18, 22, 32);
    this.sendFrame(macText(frame.subarray(22, 28)), 0x0806, reply);
  }

  private onIpv6(frame: Buffer): void {
    const own = addressBytes(OWN.v6);
    const payload = frame.subarray(54, 54 + frame.readUInt16BE(18));
    const solicited =
      frame[20] === PROTOCOL.icmpv6 && payload[0] === 135 && payload.subarray(8, 24).equals(own);
    if (solicited) {
      const reply = Buffer.alloc(32);
      reply[0] = 136;
      reply[4] = 0x60;
      own.copy(reply, 8);
      reply[24] = 2;
      reply[25] = 1;
      macBytes(OWN.mac).copy(reply, 26);
      this.sendIp(PROTOCOL.icmpv6, reply, 2);
    } else if (isBetween(frame, 22, NIC.v6, OWN.v6)) this.onPacket(frame[20], payload);
  }

  private onPacket(protocol: number, payload: Buffer): void {
    if (protocol === PROTOCOL.udp) this.onDatagram(payload.subarray(8).toString('latin1'));
    else if (payload[0] === 0 || payload[0] === 129)
      this.note(this.icmp, this.icmpReplied, payload.readUInt32BE(8));
  }

  /** The reply is `COUNT NUMBER pad`: counts are in order when every input is counted once. */
  private onDatagram(text: string): void {
    const [count, number] = text.split(' ', 2).map(Number);
    if (count !== this.udpCount + 1) this.udp.wrong++;
    this.udpCount = count;
    this.note(this.udp, this.udpReplied, number);
  }

  private note(counts: FrameCounts, replied: Set<number>, number: number): void {
    if (!(number >= 1 && number <= counts.sent)) counts.wrong++;
    else if (replied.has(number)) counts.repeated++;
    else {
      replied.add(number);
      counts.replied++;
    }
  }
}

/** Others on the hub reply too: user networking sends errors about frames that were not for it. */
function isBetween(frame: Buffer, at: number, from: string, to: string): boolean {
  const addresses = Buffer.concat([addressBytes(from), addressBytes(to)]);
  return frame.subarray(at, at + addresses.length).equals(addresses);
}

function macBytes(text: string): Buffer {
  return Buffer.from(text.replaceAll(':', ''), 'hex');
}

function macText(bytes: Buffer): string {
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** Returns the bytes of an IPv4 address, or of an IPv6 literal with one "::". */
function addressBytes(text: string): Buffer {
  if (!text.includes(':')) return Buffer.from(text.split('.').map(Number));
  const [left, right] = text.split('::').map((side) => side.split(':').filter((group) => group !== ''));
  const zeros = new Array<string>(8 - left.length - right.length).fill('0');
  return Buffer.from([...left, ...zeros, ...right].map((group) => group.padStart(4, '0')).join(''), 'hex');
}
