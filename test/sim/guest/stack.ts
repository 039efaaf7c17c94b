/**
 * A small IP host: Ethernet, ARP and NDP with a cache, IPv4 and IPv6, ICMP echo, UDP, TCP.
 *
 * Every checksum is verified; what does not hold is dropped and counted, and where no fault was injected a count is an
 * error of whoever carried the frame. All peers are on the one network, so there are no routes.
 *
 * Within one call nothing is sent before the application has looked: connections that something happened to are
 * collected (`touch`), their application is told, then their output leaves. Nothing stays collected between calls.
 */
import type { MachinePort } from './machine.ts';
import {
  type Address,
  BROADCAST,
  ETHER_ARP,
  ETHER_IPV4,
  get16,
  get32,
  IpPacket,
  ipFrame,
  type Mac,
  newFrame,
  PROTOCOL_ICMP,
  PROTOCOL_ICMPV6,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  put,
  put16,
  put32,
  READ,
  sameBytes,
  seal,
  transportAt,
} from './packets.ts';
import type { Archive } from './state.ts';
import {
  ACK,
  FIN,
  RST,
  Segment,
  SYN,
  TCP_DEFAULTS,
  TCP_STATE,
  TcpConnection,
  type TcpHost,
  type TcpOptions,
} from './tcp.ts';

export interface StackOptions {
  readonly mac: Mac;
  readonly address4: Address;
  readonly address6: Address;
  readonly tcp?: Partial<TcpOptions>;
}

/** Who uses the stack. */
export interface StackUser {
  /** Something happened to a connection. The last call for it has `connection.closed`. */
  onTcp(connection: TcpConnection): void;
  onUdp(source: Address, sourcePort: number, port: number, payload: Uint8Array): void;
  onEchoReply(source: Address, id: number, sequence: number, payload: Uint8Array): void;
}

export interface StackCounters {
  frames: number;
  badChecksum: number;
  malformed: number;
  /** for another host, or of a kind that this stack does not know */
  ignored: number;
  /** TCP segments for no connection, answered by a reset */
  unknownSegments: number;
  resetsReceived: number;
  /** segments whose timestamp ran backwards */
  paws: number;
  retransmits: number;
  challengeAcks: number;
  /** frames dropped because the peer's MAC did not become known */
  unresolved: number;
}

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
const HOP_LIMIT = 64;
const EPHEMERAL_FIRST = 32_768;
const EPHEMERAL_COUNT = 28_232;
const UNKNOWN_MAC: Mac = new Uint8Array(6);
const NEIGHBOUR_SOLICITATION = 135;
const NEIGHBOUR_ADVERTISEMENT = 136;

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
  readonly #user: StackUser;
  readonly #packet = new IpPacket();
  readonly #segment = new Segment();
  readonly #listening = new Set<number>();
  readonly #udpPorts = new Set<number>();
  #connections = new Map<number, TcpConnection>();
  /** Those that are not in TIME_WAIT, where there can be many; their next timer is asked for again and again. */
  readonly #busy: TcpConnection[] = [];
  /** No connection in TIME_WAIT is over before that. */
  #expiryAt = NEVER;
  /** By both ports; addresses are then compared. */
  readonly #byPorts = new Map<number, TcpConnection[]>();
  #lastId = 0;
  #ipId = 0;
  #neighbours: Neighbour[] = [];
  readonly #touched: TcpConnection[] = [];

  constructor(port: MachinePort, options: StackOptions, user: StackUser) {
    this.port = port;
    this.tcp = { ...TCP_DEFAULTS, ...options.tcp };
    this.mac = options.mac;
    this.address4 = options.address4;
    this.address6 = options.address6;
    this.#user = user;
  }

  archive(a: Archive): void {
    const connections = a.list([...this.#connections.values()], (item) => this.#archiveConnection(a, item));
    this.#connections.clear();
    this.#byPorts.clear();
    this.#busy.length = 0;
    this.#expiryAt = NEVER;
    for (const connection of connections) this.#index(connection);
    this.#lastId = a.number(this.#lastId);
    this.#ipId = a.number(this.#ipId);
    this.#neighbours = a.list(this.#neighbours, (neighbour) => ({
      address: a.bytes(neighbour?.address ?? UNKNOWN_MAC),
      mac: a.bytes(neighbour?.mac ?? UNKNOWN_MAC),
      knownAtMs: a.number(neighbour?.knownAtMs ?? 0),
      askedAtMs: a.number(neighbour?.askedAtMs ?? 0),
      asked: a.number(neighbour?.asked ?? 0),
      waiting: a.list(neighbour?.waiting ?? [], (frame) => a.bytes(frame ?? UNKNOWN_MAC)),
    }));
  }

  /** Most are in TIME_WAIT, and as they were at the checkpoint before. */
  #archiveConnection(a: Archive, item: TcpConnection | undefined): TcpConnection {
    const known = item ?? this.#connections.get(a.peek(0));
    if (known !== undefined && known.archived !== null && a.repeat(known.archived)) return known;
    const connection = item ?? new TcpConnection(this);
    const { place } = a;
    connection.archive(a);
    if (connection.over) connection.archived = a.since(place);
    return connection;
  }

  // --- for the application -------------------------------------------------------------------------------------

  listen(port: number): void {
    this.#listening.add(port);
  }

  bindUdp(port: number): void {
    this.#udpPorts.add(port);
  }

  get connections(): Iterable<TcpConnection> {
    return this.#connections.values();
  }

  connection(id: number): TcpConnection | undefined {
    return this.#connections.get(id);
  }

  /** From a port that the die chooses. */
  connect(remote: Address, remotePort: number): TcpConnection {
    let localPort: number;
    do {
      localPort = EPHEMERAL_FIRST + Math.floor(this.port.random() * EPHEMERAL_COUNT);
    } while (this.#find(localPort, remotePort, remote) !== undefined);
    const connection = this.#add(remote, localPort, remotePort);
    connection.open(true);
    this.touch(connection);
    return connection;
  }

  sendUdp(destination: Address, port: number, destinationPort: number, payload: Uint8Array): void {
    const frame = this.#ipFrame(destination, PROTOCOL_UDP, 8 + payload.length, HOP_LIMIT);
    const at = transportAt(destination);
    put16(frame, at, port);
    put16(frame, at + 2, destinationPort);
    put16(frame, at + 4, 8 + payload.length);
    frame.set(payload, at + 8);
    seal(frame, PROTOCOL_UDP, 6);
    this.#sendTo(destination, frame);
  }

  sendEcho(destination: Address, id: number, sequence: number, payload: Uint8Array): void {
    this.#sendIcmp(
      destination,
      destination.length === 4 ? 8 : 128,
      (id << 16) | sequence,
      payload,
      HOP_LIMIT,
    );
  }

  // --- for the machine -----------------------------------------------------------------------------------------

  receive(frame: Uint8Array): void {
    this.counters.frames += 1;
    if (!this.#isForMe(frame)) {
      this.counters.ignored += 1;
      return;
    }
    const packet = this.#packet;
    switch (packet.read(frame)) {
      case READ.ok:
        this.#receiveIp(packet);
        break;
      case READ.notIp:
        if (get16(frame, 12) === ETHER_ARP) this.#receiveArp(frame);
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
    for (const connection of this.#busy) connection.tick(now);
    if (now >= this.#expiryAt) {
      this.#expiryAt = NEVER;
      for (const connection of this.#connections.values()) {
        if (connection.state !== TCP_STATE.timeWait) continue;
        connection.tick(now);
        if (!connection.closed) this.#expiryAt = Math.min(this.#expiryAt, connection.nextAt);
      }
    }
    for (const neighbour of this.#neighbours) {
      if (neighbour.waiting.length > 0 && now >= neighbour.askedAtMs + ASK_EVERY_MS) this.#ask(neighbour);
    }
    this.settle();
  }

  /** Tells applications, sends, removes what is closed. To be called after anything that the application did by itself. */
  settle(): void {
    const touched = this.#touched;
    // Applications may touch further connections, and what they write is sent in the same round.
    for (let i = 0; i < touched.length; i++) this.#user.onTcp(touched[i]);
    for (let i = 0; i < touched.length; i++) {
      touched[i].flush();
      if (touched[i].closed) this.#remove(touched[i]);
      else if (touched[i].state === TCP_STATE.timeWait) this.#retire(touched[i]);
    }
    touched.length = 0;
  }

  get nextAt(): number {
    let at = this.#expiryAt;
    for (const connection of this.#busy) at = Math.min(at, connection.nextAt);
    for (const neighbour of this.#neighbours) {
      if (neighbour.waiting.length > 0) at = Math.min(at, neighbour.askedAtMs + ASK_EVERY_MS);
    }
    return at;
  }

  // --- for connections -----------------------------------------------------------------------------------------

  tcpFrame(connection: TcpConnection, bytes: number): Uint8Array {
    return this.#ipFrame(connection.remote, PROTOCOL_TCP, bytes, HOP_LIMIT);
  }

  transmit(connection: TcpConnection, frame: Uint8Array): void {
    seal(frame, PROTOCOL_TCP, 16);
    this.#sendTo(connection.remote, frame);
  }

  touch(connection: TcpConnection): void {
    connection.archived = null;
    if (!this.#touched.includes(connection)) this.#touched.push(connection);
  }

  // --- IP ------------------------------------------------------------------------------------------------------

  #isForMe(frame: Uint8Array): boolean {
    if (frame.length < 14) return false;
    // Multicast and broadcast are looked into; the addresses inside then decide.
    if ((frame[0] & 1) !== 0) return true;
    for (let i = 0; i < 6; i++) if (frame[i] !== this.mac[i]) return false;
    return true;
  }

  #receiveIp(packet: IpPacket): void {
    const { frame, at, end, source, destination, protocol } = packet;
    const own = source.length === 4 ? this.address4 : this.address6;
    if (protocol === PROTOCOL_ICMPV6 && frame[at] === NEIGHBOUR_SOLICITATION) {
      this.#receiveSolicitation(packet);
    } else if (!sameBytes(destination, own)) {
      this.counters.ignored += 1;
    } else if (protocol === PROTOCOL_TCP) {
      this.#segment.read(frame, at, end);
      this.#receiveTcp(source);
    } else if (protocol === PROTOCOL_UDP) {
      const port = get16(frame, at + 2);
      if (!this.#udpPorts.has(port)) this.counters.ignored += 1;
      else this.#user.onUdp(source.slice(), get16(frame, at), port, frame.slice(at + 8, end));
    } else {
      this.#receiveIcmp(packet);
    }
  }

  #receiveIcmp({ frame, at, end, source }: IpPacket): void {
    const four = source.length === 4;
    const type = frame[at];
    if (frame[at + 1] !== 0) {
      this.counters.ignored += 1;
    } else if (type === (four ? 8 : 128)) {
      this.#sendIcmp(source, four ? 0 : 129, get32(frame, at + 4), frame.subarray(at + 8, end), HOP_LIMIT);
    } else if (type === (four ? 0 : 129)) {
      this.#user.onEchoReply(
        source.slice(),
        get16(frame, at + 4),
        get16(frame, at + 6),
        frame.slice(at + 8, end),
      );
    } else if (type === NEIGHBOUR_ADVERTISEMENT && !four && end - at >= 32 && frame[at + 24] === 2) {
      this.#learn(frame.slice(at + 8, at + 24), frame.slice(at + 26, at + 32), (frame[at + 4] & 0x40) !== 0);
    } else {
      this.counters.ignored += 1;
    }
  }

  #ipFrame(destination: Address, protocol: number, bytes: number, hopLimit: number): Uint8Array {
    const four = destination.length === 4;
    if (four) this.#ipId = (this.#ipId + 1) & 0xffff;
    const source = four ? this.address4 : this.address6;
    return ipFrame(this.mac, source, destination, protocol, bytes, this.#ipId, hopLimit);
  }

  #icmpFrame(
    destination: Address,
    type: number,
    word: number,
    payload: Uint8Array,
    hopLimit: number,
  ): Uint8Array {
    const protocol = destination.length === 4 ? PROTOCOL_ICMP : PROTOCOL_ICMPV6;
    const frame = this.#ipFrame(destination, protocol, 8 + payload.length, hopLimit);
    const at = transportAt(destination);
    frame[at] = type;
    put32(frame, at + 4, word);
    frame.set(payload, at + 8);
    seal(frame, protocol, 2);
    return frame;
  }

  #sendIcmp(destination: Address, type: number, word: number, payload: Uint8Array, hopLimit: number): void {
    this.#sendTo(destination, this.#icmpFrame(destination, type, word, payload, hopLimit));
  }

  // --- neighbours ----------------------------------------------------------------------------------------------

  #sendTo(destination: Address, frame: Uint8Array): void {
    const now = this.port.now();
    let neighbour = this.#neighbour(destination);
    if (neighbour === undefined) {
      neighbour = {
        address: destination.slice(),
        mac: UNKNOWN_MAC,
        knownAtMs: -NEVER,
        askedAtMs: -NEVER,
        asked: 0,
        waiting: [],
      };
      this.#neighbours.push(neighbour);
    }
    if (neighbour.knownAtMs === -NEVER) {
      if (neighbour.waiting.length < WAITING_MAX) neighbour.waiting.push(frame);
      else this.counters.unresolved += 1;
      if (now >= neighbour.askedAtMs + ASK_EVERY_MS) this.#ask(neighbour);
      return;
    }
    // An old entry is used, and refreshed at the side.
    const stale = now >= neighbour.knownAtMs + NEIGHBOUR_STALE_MS;
    if (stale && now >= neighbour.askedAtMs + ASK_EVERY_MS) this.#ask(neighbour);
    put(frame, 0, neighbour.mac);
    this.port.send(frame);
  }

  #ask(neighbour: Neighbour): void {
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
      this.#sendArp(1, BROADCAST, UNKNOWN_MAC, address);
      return;
    }
    // Solicited-node multicast (RFC 4861 section 2.3).
    const group = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, ...address.subarray(13));
    const body = Uint8Array.of(...address, 1, 1, ...this.mac);
    const frame = this.#icmpFrame(group, NEIGHBOUR_SOLICITATION, 0, body, 255);
    frame.set([0x33, 0x33, ...group.subarray(12)]);
    this.port.send(frame);
  }

  #neighbour(address: Address): Neighbour | undefined {
    for (const neighbour of this.#neighbours) if (sameBytes(neighbour.address, address)) return neighbour;
    return undefined;
  }

  #learn(address: Address, mac: Mac, asked: boolean): void {
    const neighbour = this.#neighbour(address);
    // Nobody here talks to that address; an announcement then teaches nothing.
    if (neighbour === undefined) return;
    // What is announced unasked replaces what is known, and is not relied on for what is not (RFC 4861 section 7.2.5).
    if (!asked && neighbour.knownAtMs === -NEVER) return;
    neighbour.mac = mac;
    neighbour.knownAtMs = this.port.now();
    neighbour.asked = 0;
    const waiting = neighbour.waiting;
    neighbour.waiting = [];
    for (const frame of waiting) {
      frame.set(mac, 0);
      this.port.send(frame);
    }
  }

  #receiveSolicitation({ frame, at, end, source }: IpPacket): void {
    if (end - at < 24 || !sameBytes(frame.subarray(at + 8, at + 24), this.address6)) {
      this.counters.ignored += 1;
      return;
    }
    if (end - at < 32 || frame[at + 24] !== 1) return;
    const peer = source.slice();
    const mac = frame.slice(at + 26, at + 32);
    this.#learn(peer, mac, true);
    const body = Uint8Array.of(...this.address6, 2, 1, ...this.mac);
    // Solicited, override.
    const answer = this.#icmpFrame(peer, NEIGHBOUR_ADVERTISEMENT, 0x60000000, body, 255);
    answer.set(mac, 0);
    this.port.send(answer);
  }

  #receiveArp(frame: Uint8Array): void {
    if (
      frame.length < 42 ||
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
    const forMe = sameBytes(frame.subarray(38, 42), this.address4);
    this.#learn(sender, mac, forMe);
    if (operation === 1 && forMe) this.#sendArp(2, mac, mac, sender);
    else if (!forMe) this.counters.ignored += 1;
  }

  #sendArp(operation: number, destination: Mac, targetMac: Mac, target: Address): void {
    const frame = newFrame(42);
    frame.set(destination, 0);
    frame.set(this.mac, 6);
    put16(frame, 12, ETHER_ARP);
    put16(frame, 14, 1);
    put16(frame, 16, ETHER_IPV4);
    put16(frame, 18, 0x0604);
    put16(frame, 20, operation);
    frame.set(this.mac, 22);
    frame.set(this.address4, 28);
    frame.set(targetMac, 32);
    frame.set(target, 38);
    this.port.send(frame);
  }

  // --- TCP -----------------------------------------------------------------------------------------------------

  #receiveTcp(source: Address): void {
    const s = this.#segment;
    if ((s.flags & RST) !== 0) this.counters.resetsReceived += 1;
    let connection = this.#find(s.destinationPort, s.sourcePort, source);
    const syn = (s.flags & (SYN | ACK | RST | FIN)) === SYN;
    if (connection?.state === TCP_STATE.timeWait && syn && connection.precedes(s.seq)) {
      // A new incarnation may begin beyond the old one (RFC 9293 section 3.10.7.4).
      connection.expire();
      this.#remove(connection);
      connection = undefined;
    }
    if (connection !== undefined) {
      connection.receive(s);
    } else if (syn && this.#listening.has(s.destinationPort)) {
      connection = this.#add(source.slice(), s.destinationPort, s.sourcePort);
      connection.open(false);
      connection.answerSyn(s);
    } else if ((s.flags & RST) === 0) {
      this.counters.unknownSegments += 1;
      this.#reset(source.slice());
    }
  }

  #reset(destination: Address): void {
    const s = this.#segment;
    const frame = this.#ipFrame(destination, PROTOCOL_TCP, 20, HOP_LIMIT);
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
    this.#sendTo(destination, frame);
  }

  #find(localPort: number, remotePort: number, remote: Address): TcpConnection | undefined {
    const list = this.#byPorts.get(localPort * 65_536 + remotePort);
    if (list !== undefined) for (const c of list) if (sameBytes(c.remote, remote)) return c;
    return undefined;
  }

  #add(remote: Address, localPort: number, remotePort: number): TcpConnection {
    const connection = new TcpConnection(this);
    this.#lastId += 1;
    connection.id = this.#lastId;
    connection.remote = remote;
    connection.local = remote.length === 4 ? this.address4 : this.address6;
    connection.localPort = localPort;
    connection.remotePort = remotePort;
    this.#index(connection);
    return connection;
  }

  #index(connection: TcpConnection): void {
    const key = connection.localPort * 65_536 + connection.remotePort;
    const list = this.#byPorts.get(key);
    if (list === undefined) this.#byPorts.set(key, [connection]);
    else list.push(connection);
    this.#connections.set(connection.id, connection);
    this.#busy.push(connection);
    if (connection.state === TCP_STATE.timeWait) this.#retire(connection);
  }

  #retire(connection: TcpConnection): void {
    const at = this.#busy.indexOf(connection);
    if (at >= 0) this.#busy.splice(at, 1);
    this.#expiryAt = Math.min(this.#expiryAt, connection.nextAt);
  }

  #remove(connection: TcpConnection): void {
    const key = connection.localPort * 65_536 + connection.remotePort;
    const list = (this.#byPorts.get(key) ?? []).filter((other) => other !== connection);
    if (list.length > 0) this.#byPorts.set(key, list);
    else this.#byPorts.delete(key);
    this.#connections.delete(connection.id);
    const at = this.#busy.indexOf(connection);
    if (at >= 0) this.#busy.splice(at, 1);
  }
}
