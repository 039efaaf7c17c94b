/**
 * A small IP host: Ethernet, a neighbour cache (neighbours.ts), IPv4 and IPv6, ICMP echo, UDP, TCP.
 *
 * Every checksum is verified. A frame with a wrong one is dropped and counted: where no fault was injected, a count above
 * zero is an error of the network or the node. All peers are on one network, so there are no routes.
 *
 * Within one call, nothing is sent before the application has looked: the stack collects connections that something
 * happened to (`touch`), notifies their application, then sends their output. No connection stays collected between
 * calls.
 */
import type { MachinePort } from './machine.ts';
import {
  NEIGHBOUR_ADVERTISEMENT,
  NEIGHBOUR_SOLICITATION,
  type NeighbourCounters,
  Neighbours,
} from './neighbours.ts';
import {
  type Address,
  ETHER_ARP,
  get16,
  get32,
  IpPacket,
  ipFrame,
  type Mac,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  put16,
  put32,
  READ,
  sameBytes,
  seal,
  transportAt,
} from './packets.ts';
import { ACK, FIN, RST, Segment, SYN } from './segment.ts';
import type { Archive } from './state.ts';
import { TCP_STATE, TcpConnection, type TcpHost } from './tcp.ts';
import { TCP_DEFAULTS, type TcpCounters, type TcpOptions } from './tcp-options.ts';

export interface StackOptions {
  readonly mac: Mac;
  readonly address4: Address;
  readonly address6: Address;
  readonly tcp?: Partial<TcpOptions>;
}

/** The application above the stack. */
export interface StackUser {
  /** Something happened to a connection. In the last call for it, `connection.closed` is true. */
  onTcp(connection: TcpConnection): void;
  onUdp(source: Address, sourcePort: number, port: number, payload: Uint8Array): void;
  onEchoReply(source: Address, id: number, sequence: number, payload: Uint8Array): void;
}

export interface StackCounters extends TcpCounters, NeighbourCounters {
  frames: number;
  badChecksum: number;
  malformed: number;
  /** for another host, or of a kind that this stack does not know */
  ignored: number;
  /** TCP segments for no connection, answered by a reset */
  unknownSegments: number;
  resetsReceived: number;
}

const NEVER = Number.POSITIVE_INFINITY;
const HOP_LIMIT = 64;
const EPHEMERAL_FIRST = 32_768;
const EPHEMERAL_COUNT = 28_232;

export class Stack implements TcpHost {
  readonly port: MachinePort;
  readonly tcp: TcpOptions;
  readonly mac: Mac;
  readonly address4: Address;
  readonly address6: Address;
  readonly counters: StackCounters = {
    frames: 0,
    badChecksum: 0,
    malformed: 0,
    ignored: 0,
    unknownSegments: 0,
    resetsReceived: 0,
    paws: 0,
    retransmits: 0,
    challengeAcks: 0,
    unresolved: 0,
  };
  private readonly user: StackUser;
  private readonly packet = new IpPacket();
  private readonly segment = new Segment();
  private readonly listening = new Set<number>();
  private readonly udpPorts = new Set<number>();
  private byId = new Map<number, TcpConnection>();
  /** All but those in TIME_WAIT, of which there can be many: `nextAt` looks at each of these. */
  private readonly busy: TcpConnection[] = [];
  /** No connection in TIME_WAIT ends before that. */
  private expiryAt = NEVER;
  /** By both ports; addresses are then compared. */
  private readonly byPorts = new Map<number, TcpConnection[]>();
  private lastId = 0;
  private ipId = 0;
  private readonly neighbours: Neighbours;
  private readonly touched: TcpConnection[] = [];

  constructor(port: MachinePort, options: StackOptions, user: StackUser) {
    this.port = port;
    this.tcp = { ...TCP_DEFAULTS, ...options.tcp };
    this.mac = options.mac;
    this.address4 = options.address4;
    this.address6 = options.address6;
    this.user = user;
    this.neighbours = new Neighbours(port, options, this.counters);
  }

  archive(a: Archive): void {
    const connections = a.list([...this.byId.values()], (item) => this.archiveConnection(a, item));
    this.byId.clear();
    this.byPorts.clear();
    this.busy.length = 0;
    this.expiryAt = NEVER;
    for (const connection of connections) this.index(connection);
    this.lastId = a.number(this.lastId);
    this.ipId = a.number(this.ipId);
    this.neighbours.archive(a);
  }

  /** Most connections are in TIME_WAIT and unchanged since the last checkpoint: their archive is copied. */
  private archiveConnection(a: Archive, item: TcpConnection | undefined): TcpConnection {
    const known = item ?? this.byId.get(a.peek(0));
    if (known !== undefined && known.archived !== null && a.repeat(known.archived)) return known;
    const connection = item ?? new TcpConnection(this);
    const { place } = a;
    connection.archive(a);
    if (connection.over) connection.archived = a.since(place);
    return connection;
  }

  // --- for the application -------------------------------------------------------------------------------------

  listen(port: number): void {
    this.listening.add(port);
  }

  bindUdp(port: number): void {
    this.udpPorts.add(port);
  }

  get connections(): Iterable<TcpConnection> {
    return this.byId.values();
  }

  connection(id: number): TcpConnection | undefined {
    return this.byId.get(id);
  }

  /** Opens a connection from a random port. */
  connect(remote: Address, remotePort: number): TcpConnection {
    let localPort: number;
    do {
      localPort = EPHEMERAL_FIRST + Math.floor(this.port.random() * EPHEMERAL_COUNT);
    } while (this.find(localPort, remotePort, remote) !== undefined);
    const connection = this.add(remote, localPort, remotePort);
    connection.connect();
    this.touch(connection);
    return connection;
  }

  sendUdp(destination: Address, port: number, destinationPort: number, payload: Uint8Array): void {
    const frame = this.ipFrame(destination, PROTOCOL_UDP, 8 + payload.length);
    const at = transportAt(destination);
    put16(frame, at, port);
    put16(frame, at + 2, destinationPort);
    put16(frame, at + 4, 8 + payload.length);
    frame.set(payload, at + 8);
    seal(frame, PROTOCOL_UDP, 6);
    this.neighbours.send(destination, frame);
  }

  sendEcho(destination: Address, id: number, sequence: number, payload: Uint8Array): void {
    this.sendIcmp(destination, destination.length === 4 ? 8 : 128, (id << 16) | sequence, payload);
  }

  // --- for the machine -----------------------------------------------------------------------------------------

  receive(frame: Uint8Array): void {
    this.counters.frames += 1;
    if (!this.isForMe(frame)) {
      this.counters.ignored += 1;
      return;
    }
    const packet = this.packet;
    switch (packet.read(frame)) {
      case READ.ok:
        this.receiveIp(packet);
        break;
      case READ.notIp:
        if (get16(frame, 12) === ETHER_ARP) this.neighbours.receiveArp(frame);
        else this.counters.ignored += 1;
        break;
      case READ.badChecksum:
        this.counters.badChecksum += 1;
        break;
      case READ.malformed:
        this.counters.malformed += 1;
        break;
      default:
        this.counters.ignored += 1;
    }
    this.settle();
  }

  tick(): void {
    const now = this.port.now();
    for (const connection of this.busy) connection.tick(now);
    if (now >= this.expiryAt) {
      this.expiryAt = NEVER;
      for (const connection of this.byId.values()) {
        if (connection.state !== TCP_STATE.timeWait) continue;
        connection.tick(now);
        if (!connection.closed) this.expiryAt = Math.min(this.expiryAt, connection.nextAt);
      }
    }
    this.neighbours.tick(now);
    this.settle();
  }

  /**
   * Notifies applications, sends, and removes closed connections. An application calls it after whatever it did outside
   * of a notification.
   */
  settle(): void {
    const touched = this.touched;
    // An application may touch further connections; their output leaves in the same round.
    for (let i = 0; i < touched.length; i++) this.user.onTcp(touched[i]);
    for (let i = 0; i < touched.length; i++) {
      touched[i].flush();
      if (touched[i].closed) this.remove(touched[i]);
      else if (touched[i].state === TCP_STATE.timeWait) this.retire(touched[i]);
    }
    touched.length = 0;
  }

  get nextAt(): number {
    let at = Math.min(this.expiryAt, this.neighbours.nextAt);
    for (const connection of this.busy) at = Math.min(at, connection.nextAt);
    return at;
  }

  // --- for connections -----------------------------------------------------------------------------------------

  tcpFrame(connection: TcpConnection, bytes: number): Uint8Array {
    return this.ipFrame(connection.remote, PROTOCOL_TCP, bytes);
  }

  transmit(connection: TcpConnection, frame: Uint8Array): void {
    seal(frame, PROTOCOL_TCP, 16);
    this.neighbours.send(connection.remote, frame);
  }

  touch(connection: TcpConnection): void {
    connection.archived = null;
    if (!this.touched.includes(connection)) this.touched.push(connection);
  }

  // --- IP ------------------------------------------------------------------------------------------------------

  private isForMe(frame: Uint8Array): boolean {
    if (frame.length < 14) return false;
    // Multicast and broadcast are accepted; the addresses inside then decide.
    if ((frame[0] & 1) !== 0) return true;
    for (let i = 0; i < 6; i++) if (frame[i] !== this.mac[i]) return false;
    return true;
  }

  private receiveIp(packet: IpPacket): void {
    const { frame, at, end, source, destination, protocol } = packet;
    const own = source.length === 4 ? this.address4 : this.address6;
    if (protocol === PROTOCOL_ICMPV6 && frame[at] === NEIGHBOUR_SOLICITATION) {
      this.neighbours.receiveSolicitation(packet);
    } else if (!sameBytes(destination, own)) {
      this.counters.ignored += 1;
    } else if (protocol === PROTOCOL_TCP) {
      this.segment.read(frame, at, end);
      this.receiveTcp(source);
    } else if (protocol === PROTOCOL_UDP) {
      const port = get16(frame, at + 2);
      if (!this.udpPorts.has(port)) this.counters.ignored += 1;
      else this.user.onUdp(source.slice(), get16(frame, at), port, frame.slice(at + 8, end));
    } else {
      this.receiveIcmp(packet);
    }
  }

  private receiveIcmp(packet: IpPacket): void {
    const { frame, at, end, source } = packet;
    const four = source.length === 4;
    const type = frame[at];
    if (frame[at + 1] !== 0) {
      this.counters.ignored += 1;
    } else if (type === (four ? 8 : 128)) {
      this.sendIcmp(source, four ? 0 : 129, get32(frame, at + 4), frame.subarray(at + 8, end));
    } else if (type === (four ? 0 : 129)) {
      this.user.onEchoReply(
        source.slice(),
        get16(frame, at + 4),
        get16(frame, at + 6),
        frame.slice(at + 8, end),
      );
    } else if (type !== NEIGHBOUR_ADVERTISEMENT || four || !this.neighbours.receiveAdvertisement(packet)) {
      this.counters.ignored += 1;
    }
  }

  private ipFrame(destination: Address, protocol: number, bytes: number): Uint8Array {
    const four = destination.length === 4;
    if (four) this.ipId = (this.ipId + 1) & 0xffff;
    const source = four ? this.address4 : this.address6;
    return ipFrame(this.mac, source, destination, protocol, bytes, this.ipId, HOP_LIMIT);
  }

  private sendIcmp(destination: Address, type: number, word: number, payload: Uint8Array): void {
    const protocol = destination.length === 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6;
    const frame = this.ipFrame(destination, protocol, 8 + payload.length);
    const at = transportAt(destination);
    frame[at] = type;
    put32(frame, at + 4, word);
    frame.set(payload, at + 8);
    seal(frame, protocol, 2);
    this.neighbours.send(destination, frame);
  }

  // --- TCP -----------------------------------------------------------------------------------------------------

  private receiveTcp(source: Address): void {
    const s = this.segment;
    if ((s.flags & RST) !== 0) this.counters.resetsReceived += 1;
    let connection = this.find(s.destinationPort, s.sourcePort, source);
    const syn = (s.flags & (SYN | ACK | RST | FIN)) === SYN;
    if (connection?.state === TCP_STATE.timeWait && syn && connection.precedes(s.seq)) {
      // A new connection may begin after the old one's numbers (RFC 9293 section 3.10.7.4).
      connection.expire();
      this.remove(connection);
      connection = undefined;
    }
    if (connection !== undefined) {
      connection.receive(s);
    } else if (syn && this.listening.has(s.destinationPort)) {
      connection = this.add(source.slice(), s.destinationPort, s.sourcePort);
      connection.accept(s);
    } else if ((s.flags & RST) === 0) {
      this.counters.unknownSegments += 1;
      this.reset(source.slice());
    }
  }

  private reset(destination: Address): void {
    const s = this.segment;
    const frame = this.ipFrame(destination, PROTOCOL_TCP, 20);
    const at = transportAt(destination);
    put16(frame, at, s.destinationPort);
    put16(frame, at + 2, s.sourcePort);
    frame[at + 12] = 0x50;
    if ((s.flags & ACK) !== 0) {
      put32(frame, at + 4, s.ack);
      frame[at + 13] = RST;
    } else {
      const length = s.payloadBytes + ((s.flags & SYN) !== 0 ? 1 : 0) + ((s.flags & FIN) !== 0 ? 1 : 0);
      put32(frame, at + 8, (s.seq + length) | 0);
      frame[at + 13] = RST | ACK;
    }
    seal(frame, PROTOCOL_TCP, 16);
    this.neighbours.send(destination, frame);
  }

  private find(localPort: number, remotePort: number, remote: Address): TcpConnection | undefined {
    const list = this.byPorts.get(localPort * 65_536 + remotePort);
    if (list !== undefined) for (const c of list) if (sameBytes(c.remote, remote)) return c;
    return undefined;
  }

  private add(remote: Address, localPort: number, remotePort: number): TcpConnection {
    const connection = new TcpConnection(this);
    this.lastId += 1;
    connection.id = this.lastId;
    connection.remote = remote;
    connection.local = remote.length === 4 ? this.address4 : this.address6;
    connection.localPort = localPort;
    connection.remotePort = remotePort;
    this.index(connection);
    return connection;
  }

  private index(connection: TcpConnection): void {
    const key = connection.localPort * 65_536 + connection.remotePort;
    const list = this.byPorts.get(key);
    if (list === undefined) this.byPorts.set(key, [connection]);
    else list.push(connection);
    this.byId.set(connection.id, connection);
    this.busy.push(connection);
    if (connection.state === TCP_STATE.timeWait) this.retire(connection);
  }

  private retire(connection: TcpConnection): void {
    const at = this.busy.indexOf(connection);
    if (at >= 0) this.busy.splice(at, 1);
    this.expiryAt = Math.min(this.expiryAt, connection.nextAt);
  }

  private remove(connection: TcpConnection): void {
    const key = connection.localPort * 65_536 + connection.remotePort;
    const list = (this.byPorts.get(key) ?? []).filter((other) => other !== connection);
    if (list.length > 0) this.byPorts.set(key, list);
    else this.byPorts.delete(key);
    this.byId.delete(connection.id);
    const at = this.busy.indexOf(connection);
    if (at >= 0) this.busy.splice(at, 1);
  }
}
