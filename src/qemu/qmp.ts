/**
 * QMP: the JSON protocol of one QEMU, over a unix socket on which QEMU listens.
 *
 * Goal: get QEMU's reply to a command, its refusal, or a reason why there is neither, always within
 * a time that the caller chose. A controller that waits without an end for a hung QEMU hangs itself.
 *
 * Tracked: one partial line; the commands that QEMU has and has not replied to, by id; the commands
 * that wait here for their turn. A command that timed out stays in the list, because QEMU still has it
 * in its queue and its late reply must not be taken for another one's.
 *
 * Turns: QEMU queues at most 8 commands per monitor and then stops reading, which would shut out even
 * out-of-band commands (monitor/qmp.c, QMP_REQ_QUEUE_LEN_MAX). The way out of a hung migration is an
 * out-of-band `yank`, so in-band commands take at most 4 of the 8 places, and the rest of them waits here.
 *
 * Events: the listeners get QEMU's events in the order of their arrival, and in their place among the replies.
 *
 * Limits: bytes per line, commands that wait. Exceeding either is an error; nothing is dropped silently.
 *
 * Failure: a closed socket fails every pending command with COLO_QMP_CLOSED. A peer that does not speak QMP
 * (no JSON, no known id, a line too long) is disconnected, and every pending command fails with COLO_QMP_GARBLED.
 * Either way `onClose` gives the reason, once. Nothing reconnects: one client is one connection to one QEMU process.
 */
import { connect as connectSocket, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Endpoint, formatEndpoint, socketAddress } from '../endpoint.ts';
import { ColoError, invariant } from '../error.ts';
import { deadline } from '../io/deadline.ts';
import { watchHost } from '../io/host-watch.ts';

/** The largest replies in use, to query-migrate-parameters and query-commands, have some 20 KB. */
export const QMP_LINE_BYTES_MAX = 1024 * 1024;
export const QMP_IN_BAND_MAX = 4;
export const QMP_WAITING_MAX = 64;
export const QMP_TIMEOUT_MS = 10_000;
/** QEMU makes its socket some 50 ms after its start; each poll costs one failed connect(2). */
const CONNECT_RETRY_MS = 10;

const LINE_FEED = 0x0a;

export type JsonObject = Record<string, unknown>;

export interface QmpEvent {
  readonly event: string;
  readonly data: JsonObject;
  /** QEMU's wall clock: for people, not for ordering */
  readonly timestampUs: number;
}

export interface QmpVersion {
  readonly major: number;
  readonly minor: number;
  readonly micro: number;
  readonly text: string;
}

export interface ExecuteOptions {
  readonly timeoutMs?: number;
}

/** The part of a QMP connection that the rest of this folder uses; tests give a fake one. */
export interface Qmp {
  readonly version: QmpVersion;
  execute<T = unknown>(command: string, args?: JsonObject, options?: ExecuteOptions): Promise<T>;
  executeOob<T = unknown>(command: string, args?: JsonObject, options?: ExecuteOptions): Promise<T>;
  /** Returns how to stop listening. */
  onEvent(listener: (event: QmpEvent) => void): () => void;
}

export interface ConnectOptions {
  readonly endpoint: Endpoint;
  /** time from now within which the greeting must be complete */
  readonly deadlineMs: number;
  /** aborts when the QEMU process has ended: there is nothing left to wait for */
  readonly signal?: AbortSignal;
  readonly lineBytesMax?: number;
}

/** QEMU understood the command and refused it; the error has QEMU's own description. */
export class QmpRefusedError extends ColoError {
  readonly command: string;
  readonly qmpClass: string;
  readonly desc: string;

  constructor(command: string, qmpClass: string, desc: string) {
    super('COLO_QMP_REFUSED', `QEMU refused ${command}: ${desc} (${qmpClass})`);
    this.command = command;
    this.qmpClass = qmpClass;
    this.desc = desc;
  }
}

interface Command {
  readonly id: number;
  readonly name: string;
  readonly line: string;
  readonly oob: boolean;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
  /** The reply has come, or nobody waits for it any more. */
  settled: () => void;
  /** the caller has got its timeout; only QEMU's reply is outstanding */
  expired: boolean;
}

export class QmpClient implements Qmp {
  private readonly socket: Socket;
  private readonly name: string;
  private readonly lineBytesMax: number;
  private readonly eventListeners = new Set<(event: QmpEvent) => void>();
  private readonly closeListeners = new Set<(reason: ColoError) => void>();
  private readonly sent = new Map<number, Command>();
  private readonly waiting: Command[] = [];
  private inBandSent = 0;
  private nextId = 1;
  private partial: Buffer[] = [];
  private partialBytes = 0;
  private closedBy: ColoError | undefined;
  private itsVersion: QmpVersion | undefined;
  private takesOob = false;
  private onGreeting: ((greeting: JsonObject) => void) | undefined;

  private constructor(socket: Socket, name: string, lineBytesMax: number) {
    this.socket = socket;
    this.name = name;
    this.lineBytesMax = lineBytesMax;
    socket.on('data', (chunk: Buffer) => this.read(chunk));
    socket.on('error', (error: Error) => this.end(this.closedError(error.message)));
    socket.on('close', () => this.end(this.closedError('QEMU closed the connection')));
  }

  static async connect(options: ConnectOptions): Promise<QmpClient> {
    const { endpoint, deadlineMs } = options;
    const name = formatEndpoint(endpoint);
    // Aborts at the deadline, or earlier if the process ends.
    const expiry = new AbortController();
    const settled = deadline(deadlineMs, () => expiry.abort());
    const until = options.signal ? AbortSignal.any([options.signal, expiry.signal]) : expiry.signal;
    let lastReason = 'no attempt was made';
    const failure = (): ColoError => {
      const reason: unknown = options.signal?.reason;
      if (options.signal?.aborted) {
        if (reason instanceof ColoError) return reason;
        return new ColoError('COLO_QMP_CONNECT', `QMP at ${name}: cancelled, because QEMU has ended`, {
          cause: reason,
        });
      }
      return new ColoError('COLO_QMP_CONNECT', `QMP at ${name}: no reply in ${deadlineMs} ms: ${lastReason}`);
    };
    try {
      for (;;) {
        if (until.aborted) throw failure();
        try {
          const socket = await openSocket(endpoint, until);
          lastReason = 'connected but not greeted; is another program connected to it?';
          return await QmpClient.greet(socket, options, until, failure);
        } catch (error) {
          if (until.aborted) throw failure();
          if (error instanceof ColoError) throw error;
          const code = (error as NodeJS.ErrnoException).code;
          lastReason = (error as Error).message;
          if (code !== 'ENOENT' && code !== 'ECONNREFUSED' && code !== 'EAGAIN') {
            throw new ColoError('COLO_QMP_CONNECT', `QMP at ${name}: ${lastReason}`, { cause: error });
          }
        }
        await sleep(CONNECT_RETRY_MS, undefined, { signal: until }).catch(() => undefined);
      }
    } finally {
      settled();
    }
  }

  private static async greet(
    socket: Socket,
    options: ConnectOptions,
    until: AbortSignal,
    failure: () => ColoError,
  ): Promise<QmpClient> {
    const client = new QmpClient(
      socket,
      formatEndpoint(options.endpoint),
      options.lineBytesMax ?? QMP_LINE_BYTES_MAX,
    );
    const onAbort = (): void => client.end(failure());
    until.addEventListener('abort', onAbort);
    try {
      const greeting = await new Promise<JsonObject>((resolve, reject) => {
        client.onGreeting = resolve;
        client.onClose(reject);
      });
      const parsed = parseGreeting(greeting);
      if (!parsed) throw client.garbled('its greeting names no version');
      client.itsVersion = parsed.version;
      client.takesOob = parsed.oob;
      const enable = parsed.oob ? { enable: ['oob'] } : undefined;
      await client.execute('qmp_capabilities', enable, { timeoutMs: options.deadlineMs });
      return client;
    } catch (error) {
      client.end(error instanceof ColoError ? error : failure());
      throw error;
    } finally {
      until.removeEventListener('abort', onAbort);
    }
  }

  get version(): QmpVersion {
    // Set before connect() returns the client.
    return this.itsVersion as QmpVersion;
  }

  /** whether QEMU executes out-of-band commands; every supported QEMU does */
  get oob(): boolean {
    return this.takesOob;
  }

  get closed(): boolean {
    return this.closedBy !== undefined;
  }

  execute<T = unknown>(command: string, args?: JsonObject, options?: ExecuteOptions): Promise<T> {
    return this.submit(command, args, false, options?.timeoutMs ?? QMP_TIMEOUT_MS) as Promise<T>;
  }

  /** Executes a command even if the main loop is stuck. QEMU has few such commands, yank and query-yank among them. */
  executeOob<T = unknown>(command: string, args?: JsonObject, options?: ExecuteOptions): Promise<T> {
    if (!this.takesOob) {
      const text = `QMP at ${this.name} offers no out-of-band execution; ${command} needs it`;
      return Promise.reject(new ColoError('COLO_QMP_REFUSED', text));
    }
    return this.submit(command, args, true, options?.timeoutMs ?? QMP_TIMEOUT_MS) as Promise<T>;
  }

  /** Returns how to stop listening. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.eventListeners.add(listener);
    return () => this.eventListeners.delete(listener);
  }

  /** Calls `listener` once; at once if the connection is closed already. Returns how to stop listening. */
  onClose(listener: (reason: ColoError) => void): () => void {
    if (this.closedBy) {
      listener(this.closedBy);
      return () => undefined;
    }
    this.closeListeners.add(listener);
    return () => this.closeListeners.delete(listener);
  }

  close(): void {
    this.end(this.closedError('closed by this node'));
  }

  private submit(
    name: string,
    args: JsonObject | undefined,
    oob: boolean,
    timeoutMs: number,
  ): Promise<unknown> {
    if (this.closedBy) return Promise.reject(this.closedBy);
    if (!oob && this.waiting.length >= QMP_WAITING_MAX) {
      const text = `QMP at ${this.name}: ${QMP_WAITING_MAX} commands wait already; ${name} was not sent`;
      return Promise.reject(new ColoError('COLO_QMP_BUSY', text));
    }
    const id = this.nextId++;
    const line = `${JSON.stringify({ [oob ? 'exec-oob' : 'execute']: name, arguments: args, id })}\n`;
    return new Promise((resolve, reject) => {
      const command: Command = { id, name, line, oob, resolve, reject, settled() {}, expired: false };
      command.settled = deadline(timeoutMs, () => this.expire(command, timeoutMs));
      if (oob || (this.inBandSent < QMP_IN_BAND_MAX && this.waiting.length === 0)) this.send(command);
      else this.waiting.push(command);
    });
  }

  private send(command: Command): void {
    this.sent.set(command.id, command);
    if (!command.oob) this.inBandSent++;
    invariant(
      this.inBandSent <= QMP_IN_BAND_MAX,
      'QEMU has more in-band commands than it leaves room for out-of-band ones',
    );
    this.socket.write(command.line);
  }

  private expire(command: Command, timeoutMs: number): void {
    command.expired = true;
    const place = this.waiting.indexOf(command);
    if (place >= 0) this.waiting.splice(place, 1);
    const text = `QMP at ${this.name}: ${command.name} got no reply in ${timeoutMs} ms; QEMU may hang`;
    command.reject(new ColoError('COLO_QMP_TIMEOUT', text));
  }

  private read(chunk: Buffer): void {
    let start = 0;
    while (!this.closedBy) {
      const end = chunk.indexOf(LINE_FEED, start);
      const piece = start === 0 && end < 0 ? chunk : chunk.subarray(start, end < 0 ? chunk.length : end);
      if (this.partialBytes + piece.length > this.lineBytesMax) {
        this.end(this.garbled(`a line is longer than ${this.lineBytesMax} bytes`));
        return;
      }
      if (end < 0) {
        if (piece.length === 0) return;
        this.partial.push(piece);
        this.partialBytes += piece.length;
        return;
      }
      let line = piece;
      if (this.partialBytes > 0) {
        this.partial.push(piece);
        line = Buffer.concat(this.partial);
        this.partial = [];
        this.partialBytes = 0;
      }
      start = end + 1;
      this.readLine(line.toString('utf8').trim());
    }
  }

  private readLine(text: string): void {
    if (text === '') return;
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      this.end(this.garbled(`not JSON: ${excerpt(text)}`));
      return;
    }
    if (!isObject(message)) {
      this.end(this.garbled(`not an object: ${excerpt(text)}`));
    } else if (isObject(message.QMP) && this.onGreeting) {
      const greet = this.onGreeting;
      this.onGreeting = undefined;
      greet(message.QMP);
    } else if (typeof message.event === 'string') {
      this.deliver(message.event, message);
    } else if ('return' in message || isObject(message.error)) {
      this.onReply(message, text);
    } else {
      this.end(this.garbled(`neither reply nor event: ${excerpt(text)}`));
    }
  }

  private deliver(name: string, message: JsonObject): void {
    const stamp = isObject(message.timestamp) ? message.timestamp : {};
    const event: QmpEvent = {
      event: name,
      data: isObject(message.data) ? message.data : {},
      timestampUs: numberOr(stamp.seconds, 0) * 1e6 + numberOr(stamp.microseconds, 0),
    };
    for (const listener of [...this.eventListeners]) listener(event);
  }

  private onReply(message: JsonObject, text: string): void {
    const command = typeof message.id === 'number' ? this.sent.get(message.id) : undefined;
    if (!command) {
      this.end(this.garbled(`a reply to no command: ${excerpt(text)}`));
      return;
    }
    this.sent.delete(command.id);
    command.settled();
    if (!command.oob) this.inBandSent--;
    invariant(this.inBandSent >= 0, 'more replies to in-band commands were counted than commands');
    while (this.inBandSent < QMP_IN_BAND_MAX && this.waiting.length > 0) {
      this.send(this.waiting.shift() as Command);
    }
    // Does nothing if the timeout has settled the promise already.
    if (isObject(message.error)) {
      const { class: qmpClass, desc } = message.error;
      command.reject(new QmpRefusedError(command.name, stringOr(qmpClass, '?'), stringOr(desc, '?')));
    } else {
      command.resolve(message.return);
    }
  }

  private end(reason: ColoError): void {
    if (this.closedBy) return;
    this.closedBy = reason;
    this.socket.destroy();
    this.partial = [];
    this.partialBytes = 0;
    const pending = [...this.sent.values(), ...this.waiting];
    this.sent.clear();
    this.waiting.length = 0;
    for (const command of pending) {
      command.settled();
      if (!command.expired) command.reject(reason);
    }
    for (const listener of [...this.closeListeners]) listener(reason);
    this.closeListeners.clear();
    this.eventListeners.clear();
  }

  private closedError(why: string): ColoError {
    return new ColoError('COLO_QMP_CLOSED', `QMP at ${this.name}: ${why}`);
  }

  private garbled(what: string): ColoError {
    return new ColoError('COLO_QMP_GARBLED', `QMP at ${this.name}: the peer does not speak QMP: ${what}`);
  }
}

function openSocket(endpoint: Endpoint, until: AbortSignal): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket(socketAddress(endpoint));
    const settle = (error?: unknown): void => {
      until.removeEventListener('abort', onAbort);
      socket.removeAllListeners();
      if (error === undefined) {
        resolve(socket);
      } else {
        socket.on('error', () => undefined);
        socket.destroy();
        reject(error);
      }
    };
    const onAbort = (): void => settle(new Error('cancelled'));
    until.addEventListener('abort', onAbort);
    socket.once('connect', () => {
      settle();
      watchHost(socket, endpoint);
    });
    socket.once('error', (error) => settle(error));
  });
}

function parseGreeting(qmp: JsonObject): { version: QmpVersion; oob: boolean } | undefined {
  const version = isObject(qmp.version) ? qmp.version : {};
  const qemu = isObject(version.qemu) ? version.qemu : {};
  const { major, minor, micro } = qemu;
  if (typeof major !== 'number' || typeof minor !== 'number' || typeof micro !== 'number') return undefined;
  const packaged = stringOr(version.package, '').trim();
  const text = `${major}.${minor}.${micro}${packaged === '' ? '' : ` (${packaged})`}`;
  const oob = Array.isArray(qmp.capabilities) && qmp.capabilities.includes('oob');
  return { version: { major, minor, micro, text }, oob };
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function numberOr(value: unknown, otherwise: number): number {
  return typeof value === 'number' ? value : otherwise;
}

function stringOr(value: unknown, otherwise: string): string {
  return typeof value === 'string' ? value : otherwise;
}

function excerpt(text: string): string {
  return text.length <= 80 ? text : `${text.slice(0, 80)}...`;
}
