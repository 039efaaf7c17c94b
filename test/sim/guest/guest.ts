/**
 * The guest of a simulated VM: a stack and services, all of it one state.
 *
 * | port | service |
 * |---|---|
 * | 7 tcp, udp | echo |
 * | 4000 tcp | counter: `next` returns 1, 2, 3 ... |
 * | 4001 udp | counted echo: `<datagrams so far> <payload>` |
 * | 4002 tcp | connect out: `connect ADDRESS PORT TEXT` (address in hex), `again TEXT`; returns the peer's line |
 * | 4003 tcp | log: `append KEY VALUE` returns `ok <entries>`; `read KEY FROM` returns `<entries> <values ...>` |
 * | 4004 tcp | download: `get SEED OFFSET LENGTH` returns LENGTH bytes of a pattern |
 * | 4005 tcp | tokens: `login` returns a random one, `use TOKEN` returns `ok <uses>` or `denied` |
 * | 4006 tcp | time: `time` returns microseconds that only grow |
 * | 4007 udp | sends bursts when the world asks for them (`burst`) |
 * | 4008 tcp | web: `get NUMBER` returns an HTTP reply with the guest's time (web.ts) |
 *
 * Two guests of equal state differ where two real VMs do: each draws processing delays (and with them the order of
 * replies), tokens, times, ports and all that TCP leaves open from its own die. What it has sent to a client is state, and
 * is therefore equal after a checkpoint.
 */
import { Alarm } from './alarm.ts';
import { BURST_PORT, burstPayload } from './burst.ts';
import { EpollProcess } from './epoll.ts';
import type { Machine, MachinePort } from './machine.ts';
import { type Address, fromHex, type Mac } from './packets.ts';
import { Stack } from './stack.ts';
import { type Archive, Loader, Saver } from './state.ts';
import type { TcpConnection } from './tcp.ts';
import type { TcpOptions } from './tcp-options.ts';
import { decode, encode, hasLine, patternAt, takeLine } from './text.ts';
import { WEB_PORT, webReply } from './web.ts';

export const SERVICE = {
  echo: 7,
  counter: 4000,
  udpCounter: 4001,
  connectOut: 4002,
  log: 4003,
  download: 4004,
  token: 4005,
  time: 4006,
  web: WEB_PORT,
} as const;

const BURST_SERVICE = 4007;
const BURST_PATTERNS = 1000;

export interface GuestOptions {
  readonly mac: Mac;
  readonly address4: Address;
  readonly address6: Address;
  readonly tcp?: Partial<TcpOptions>;
  /** Each request waits for a random time up to this, which changes the order of replies. */
  readonly delayMsMax?: number;
  /** One process serves all connections, and takes about this long for a request (epoll.ts); in place of `delayMsMax`. */
  readonly stepMs?: number;
  /** The guest opens a connection of its own every `everyMs`, sends `lines` lines, and closes it. */
  readonly dial?: {
    readonly address: Address;
    readonly port: number;
    readonly everyMs: number;
    readonly lines: number;
  };
  /** The receiver of its bursts. */
  readonly burstTo?: Address;
}

/** The guest's own state of one connection. */
type Session = {
  dueAt: number;
  /** Download: the bytes that are still to be sent. */
  seed: number;
  offset: number;
  left: number;
  /** Connect out: the other connection, and whether a reply is due there. */
  other: number;
  asking: boolean;
  /** Dialling: the number of the line that was sent, and how many lines are left. */
  number: number;
  lines: number;
};

type Datagram = { dueAt: number; source: Address; sourcePort: number; port: number; payload: Uint8Array };

const NEVER = Number.POSITIVE_INFINITY;
/** A request waits until its longest reply fits into the send buffer. */
const ANSWER_BYTES_MAX = 2048;
const WEB_ANSWER_BYTES_MAX = 4096;
const REQUEST_BYTES_MAX = 4096;
const LOG_READ_MAX = 16;
const DATAGRAMS_MAX = 512;
const CHUNK_BYTES = 8192;

export class Guest implements Machine {
  inputs = 0;
  /** What the guest found wrong with its peers. Part of the state. */
  faults: string[] = [];
  readonly stack: Stack;
  private readonly port: MachinePort;
  private readonly options: GuestOptions;
  private readonly alarm: Alarm;
  private crashed = false;
  private readonly process: EpollProcess | null;
  private sessions = new Map<number, Session>();
  private datagrams: Datagram[] = [];
  private next = 0;
  private udpCount = 0;
  private log = new Map<string, string[]>();
  private tokens = new Map<string, number>();
  private lastTime = 0;
  private dialAt: number;
  private dialled = 0;
  private burstNumber = 0;

  constructor(port: MachinePort, options: GuestOptions) {
    this.port = port;
    this.alarm = new Alarm(port);
    this.options = options;
    this.stack = new Stack(port, options, {
      onTcp: (connection) => this.onTcp(connection),
      onUdp: (source, sourcePort, udpPort, payload) => this.onUdp(source, sourcePort, udpPort, payload),
      onEchoReply: () => {},
    });
    for (const [name, number] of Object.entries(SERVICE))
      if (name !== 'udpCounter') this.stack.listen(number);
    this.stack.bindUdp(SERVICE.echo);
    this.stack.bindUdp(SERVICE.udpCounter);
    const { stepMs } = options;
    this.process = stepMs === undefined ? null : this.newProcess(stepMs);
    this.dialAt = options.dial === undefined ? NEVER : port.now() + options.dial.everyMs;
    this.sleep();
  }

  get isIdle(): boolean {
    if (this.datagrams.length > 0) return false;
    for (const session of this.sessions.values()) if (session.dueAt !== NEVER) return false;
    return this.process === null || this.process.runAt === NEVER;
  }

  receive(frame: Uint8Array): void {
    this.inputs += 1;
    if (this.crashed) return;
    this.stack.receive(frame);
    this.sleep();
  }

  tick(): void {
    if (this.crashed) return;
    const now = this.port.now();
    this.alarm.ring();
    this.stack.tick();
    for (const [id, session] of this.sessions) {
      if (now < session.dueAt) continue;
      session.dueAt = NEVER;
      const connection = this.stack.connection(id);
      if (connection !== undefined) this.work(connection, session);
    }
    this.process?.tick();
    const due = this.datagrams.filter((datagram) => now >= datagram.dueAt);
    if (due.length > 0) {
      this.datagrams = this.datagrams.filter((datagram) => now < datagram.dueAt);
      for (const datagram of due.sort((a, b) => a.dueAt - b.dueAt)) this.reply(datagram);
    }
    if (now >= this.dialAt) this.dial(now);
    this.stack.settle();
    this.sleep();
  }

  /** From now on it consumes input and sends nothing, as a guest whose kernel has died. */
  crash(): void {
    this.crashed = true;
  }

  /** Sends numbered datagrams in one instant; `own`: with other contents than another guest of equal state. */
  burst(datagrams: number, bytes: number, own: boolean): void {
    const { burstTo } = this.options;
    if (burstTo === undefined || this.crashed) return;
    for (let i = 0; i < datagrams; i++) {
      const number = this.burstNumber++;
      const pattern = own ? Math.floor(this.port.random() * BURST_PATTERNS) : 0;
      this.stack.sendUdp(burstTo, BURST_SERVICE, BURST_PORT, burstPayload(number, pattern, bytes));
    }
    this.sleep();
  }

  save(): Uint8Array {
    const saver = new Saver();
    this.archive(saver);
    return saver.result();
  }

  load(state: Uint8Array): void {
    const loader = new Loader(state);
    this.archive(loader);
    loader.finish();
    this.alarm.reset();
    this.sleep();
  }

  private archive(a: Archive): void {
    this.inputs = a.number(this.inputs);
    this.faults = a.list(this.faults, (fault) => a.text(fault ?? ''));
    this.stack.archive(a);
    this.crashed = a.flag(this.crashed);
    const sessions = a.list([...this.sessions], (entry) => {
      const s = entry?.[1];
      return [
        a.number(entry?.[0] ?? 0),
        {
          dueAt: a.number(s?.dueAt ?? 0),
          seed: a.number(s?.seed ?? 0),
          offset: a.number(s?.offset ?? 0),
          left: a.number(s?.left ?? 0),
          other: a.number(s?.other ?? 0),
          asking: a.flag(s?.asking ?? false),
          number: a.number(s?.number ?? 0),
          lines: a.number(s?.lines ?? 0),
        },
      ] as [number, Session];
    });
    this.sessions = new Map(sessions);
    this.process?.archive(a);
    this.datagrams = a.list(this.datagrams, (d) => ({
      dueAt: a.number(d?.dueAt ?? 0),
      source: a.bytes(d?.source ?? new Uint8Array(0)),
      sourcePort: a.number(d?.sourcePort ?? 0),
      port: a.number(d?.port ?? 0),
      payload: a.bytes(d?.payload ?? new Uint8Array(0)),
    }));
    this.next = a.number(this.next);
    this.udpCount = a.number(this.udpCount);
    this.log = a.map(this.log, (entries) => a.list(entries ?? [], (entry) => a.text(entry ?? '')));
    this.tokens = a.map(this.tokens, (uses) => a.number(uses ?? 0));
    this.lastTime = a.number(this.lastTime);
    this.dialAt = a.number(this.dialAt);
    this.dialled = a.number(this.dialled);
    this.burstNumber = a.number(this.burstNumber);
  }

  private sleep(): void {
    let at = Math.min(this.stack.nextAt, this.dialAt, this.process?.runAt ?? NEVER);
    for (const session of this.sessions.values()) at = Math.min(at, session.dueAt);
    for (const datagram of this.datagrams) at = Math.min(at, datagram.dueAt);
    this.alarm.set(at);
  }

  private delay(): number {
    const { delayMsMax = 0 } = this.options;
    return delayMsMax === 0 ? 0 : this.port.random() * delayMsMax;
  }

  // --- TCP -----------------------------------------------------------------------------------------------------

  private onTcp(connection: TcpConnection): void {
    let session = this.sessions.get(connection.id);
    if (connection.closed) {
      this.sessions.delete(connection.id);
      if (session !== undefined) this.lost(connection, session);
      return;
    }
    if (!connection.established || connection.closing) return;
    if (session === undefined) {
      session = newSession();
      this.sessions.set(connection.id, session);
    }
    if (session.dueAt !== NEVER || !this.hasWork(connection, session)) return;
    if (this.process !== null) {
      this.process.note(connection.id);
      return;
    }
    const delay = this.delay();
    if (delay === 0) this.work(connection, session);
    else session.dueAt = this.port.now() + delay;
  }

  private newProcess(stepMs: number): EpollProcess {
    const of = (id: number) => {
      const connection = this.stack.connection(id);
      const session = this.sessions.get(id);
      if (connection === undefined || session === undefined) return null;
      return connection.closed || connection.closing ? null : { connection, session };
    };
    return new EpollProcess(
      this.port,
      stepMs,
      (id) => {
        const one = of(id);
        return one !== null && this.hasWork(one.connection, one.session);
      },
      (id) => {
        const one = of(id);
        if (one !== null) this.work(one.connection, one.session);
      },
    );
  }

  private hasWork(connection: TcpConnection, session: Session): boolean {
    if (session.left > 0) return connection.room > 0;
    if (connection.active) return hasLine(connection) || connection.finished;
    if (session.asking) return false;
    if (connection.localPort === SERVICE.echo) {
      return connection.input.length > 0 ? connection.room > 0 : connection.finished;
    }
    const answerBytes = connection.localPort === SERVICE.web ? WEB_ANSWER_BYTES_MAX : ANSWER_BYTES_MAX;
    if (hasLine(connection)) return connection.room >= answerBytes;
    return connection.finished || connection.input.length > REQUEST_BYTES_MAX;
  }

  private work(connection: TcpConnection, session: Session): void {
    while (!connection.closed && !connection.closing && this.hasWork(connection, session)) {
      if (session.left > 0) this.download(connection, session);
      else if (connection.active) this.hear(connection, session);
      else if (connection.localPort === SERVICE.echo && connection.input.length > 0) echo(connection);
      else if (hasLine(connection)) this.serve(connection, session, takeLine(connection) as string);
      else if (connection.finished) connection.close();
      else connection.abort();
    }
  }

  private serve(connection: TcpConnection, session: Session, line: string): void {
    const [verb, a = '', b = '', c = ''] = line.split(' ', 4);
    let reply = 'error unknown request';
    switch (`${connection.localPort} ${verb}`) {
      case `${SERVICE.counter} next`:
        this.next += 1;
        reply = `${this.next}`;
        break;
      case `${SERVICE.log} append`: {
        const entries = this.log.get(a) ?? [];
        entries.push(b);
        this.log.set(a, entries);
        reply = `ok ${entries.length}`;
        break;
      }
      case `${SERVICE.log} read`: {
        const entries = this.log.get(a) ?? [];
        reply = [entries.length, ...entries.slice(Number(b), Number(b) + LOG_READ_MAX)].join(' ');
        break;
      }
      case `${SERVICE.download} get`:
        session.seed = Number(a);
        session.offset = Number(b);
        session.left = Number(c);
        return;
      case `${SERVICE.token} login`:
        reply = this.newToken();
        this.tokens.set(reply, 0);
        break;
      case `${SERVICE.token} use`: {
        const uses = this.tokens.get(a);
        if (uses !== undefined) this.tokens.set(a, uses + 1);
        reply = uses === undefined ? 'denied' : `ok ${uses + 1}`;
        break;
      }
      case `${SERVICE.time} time`:
        this.lastTime = Math.max(
          this.lastTime + 1,
          Math.floor((this.port.now() + this.port.random()) * 1000),
        );
        reply = `${this.lastTime}`;
        break;
      case `${SERVICE.web} get`:
        connection.write(webReply(Number(a), this.port.now(), this.port.random()));
        return;
      case `${SERVICE.connectOut} connect`:
        this.connectOut(connection, session, fromHex(a), Number(b), c);
        return;
      case `${SERVICE.connectOut} again`:
        if (session.other !== 0) {
          this.ask(connection, session, a);
          return;
        }
        reply = 'error not connected';
    }
    connection.write(encode(`${reply}\n`));
  }

  private newToken(): string {
    let token = '';
    for (let left = 8 + Math.floor(this.port.random() * 24); left > 0; left--) {
      token += Math.floor(this.port.random() * 36).toString(36);
    }
    return token;
  }

  private download(connection: TcpConnection, session: Session): void {
    const length = Math.min(session.left, connection.room, CHUNK_BYTES);
    connection.write(patternAt(session.seed, session.offset, length));
    session.offset += length;
    session.left -= length;
  }

  // --- connections that the guest opens ------------------------------------------------------------------------

  private connectOut(
    connection: TcpConnection,
    session: Session,
    address: Address,
    port: number,
    text: string,
  ): void {
    const old = this.stack.connection(session.other);
    if (old !== undefined) {
      const oldSession = this.sessions.get(old.id);
      if (oldSession !== undefined) oldSession.other = 0;
      old.close();
    }
    const out = this.stack.connect(address, port);
    const outSession = newSession();
    outSession.other = connection.id;
    this.sessions.set(out.id, outSession);
    session.other = out.id;
    this.ask(connection, session, text);
  }

  private ask(connection: TcpConnection, session: Session, text: string): void {
    const out = this.stack.connection(session.other);
    const outSession = this.sessions.get(session.other);
    if (out === undefined || outSession === undefined) {
      connection.write(encode('error closed\n'));
      return;
    }
    session.asking = true;
    outSession.asking = true;
    out.write(encode(`${text}\n`));
  }

  /** A connection that the guest has opened has a line, or has ended. */
  private hear(connection: TcpConnection, session: Session): void {
    const line = takeLine(connection);
    if (line === undefined) {
      connection.close();
      return;
    }
    if (session.other !== 0) {
      session.asking = false;
      this.passOn(session.other, line);
      return;
    }
    if (line !== `reply:hello ${session.number}`) this.faults.push(`'${line}' to hello ${session.number}`);
    session.lines -= 1;
    if (session.lines > 0) this.hello(connection, session);
    else {
      session.asking = false;
      connection.close();
    }
  }

  private passOn(id: number, line: string): void {
    const owner = this.stack.connection(id);
    const session = this.sessions.get(id);
    if (owner === undefined || session === undefined || !session.asking) return;
    session.asking = false;
    owner.write(encode(`${line}\n`));
    // The next request may have waited for that.
    this.stack.touch(owner);
  }

  private dial(now: number): void {
    const { dial } = this.options;
    if (dial === undefined) return;
    this.dialAt = now + dial.everyMs;
    const connection = this.stack.connect(dial.address, dial.port);
    const session = newSession();
    session.lines = dial.lines;
    session.asking = true;
    this.sessions.set(connection.id, session);
    this.hello(connection, session);
  }

  private hello(connection: TcpConnection, session: Session): void {
    this.dialled += 1;
    session.number = this.dialled;
    connection.write(encode(`hello ${session.number}\n`));
  }

  /** A connection is gone. */
  private lost(connection: TcpConnection, session: Session): void {
    if (connection.active) {
      if (session.other !== 0) {
        const owner = this.sessions.get(session.other);
        this.passOn(session.other, `error ${connection.error || 'closed'}`);
        if (owner !== undefined && owner.other === connection.id) owner.other = 0;
      } else if (session.asking) {
        this.faults.push(`hello ${session.number}: ${connection.error || 'closed'}`);
      }
    } else if (session.other !== 0) {
      const out = this.sessions.get(session.other);
      if (out !== undefined) out.other = 0;
      this.stack.connection(session.other)?.close();
    }
  }

  // --- UDP -----------------------------------------------------------------------------------------------------

  private onUdp(source: Address, sourcePort: number, port: number, payload: Uint8Array): void {
    const datagram = { dueAt: this.port.now() + this.delay(), source, sourcePort, port, payload };
    if (datagram.dueAt <= this.port.now()) this.reply(datagram);
    else if (this.datagrams.length < DATAGRAMS_MAX) this.datagrams.push(datagram);
  }

  private reply({ source, sourcePort, port, payload }: Datagram): void {
    if (port === SERVICE.udpCounter) {
      this.udpCount += 1;
      payload = encode(`${this.udpCount} ${decode(payload)}`);
    }
    this.stack.sendUdp(source, port, sourcePort, payload);
  }
}

function newSession(): Session {
  return { dueAt: NEVER, seed: 0, offset: 0, left: 0, other: 0, asking: false, number: 0, lines: 0 };
}

function echo(connection: TcpConnection): void {
  const length = Math.min(connection.input.length, connection.room);
  connection.write(connection.input.view(0, length));
  connection.consume(length);
}
