/**
 * QMP: the JSON dialogue with one QEMU, over a unix socket that QEMU serves.
 *
 * Goal: ask QEMU for something and get its answer, its refusal, or a reason why there is none, always within
 * a time that the caller chose. A controller that waits for ever on a hung QEMU is itself hung.
 *
 * What is tracked: one partial line; the commands that QEMU has and has not answered, by id; the commands
 * that still wait here for their turn. A command that timed out stays on the list, because QEMU still has it
 * in its queue and its late answer must not be taken for another's.
 *
 * Turns: QEMU queues at most 8 commands per monitor and then stops reading, which would shut out even
 * out-of-band commands (monitor/qmp.c, QMP_REQ_QUEUE_LEN_MAX). The way out of a hung migration is an
 * out-of-band `yank`, so in-band commands take at most 4 of the 8 places and wait here beyond that.
 *
 * Events: QEMU's events go to the listeners in the order they came, between the replies they came between.
 *
 * Limits: bytes per line, commands waiting. Either one exceeded is an error, never silent loss.
 *
 * Failure: a closed socket fails every pending command with COLO_QMP_CLOSED. A peer that does not speak QMP
 * (no JSON, no known id, a line too long) is hung up on: everything pending fails with COLO_QMP_GARBLED.
 * Either way onClose tells why, once. Nothing reconnects: one client is one connection to one QEMU process.
 */
import { connect as connectSocket, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Endpoint, formatEndpoint, socketAddress } from '../endpoint.ts';
import { ColoError } from '../error.ts';

/** The largest reply in use, query-migrate-parameters or query-commands, is some 20 KB. */
export const QMP_LINE_BYTES_MAX = 1024 * 1024;
export const QMP_IN_BAND_MAX = 4;
export const QMP_WAITING_MAX = 64;
export const QMP_TIMEOUT_MS = 10_000;
/** QEMU makes its socket some 50 ms after it was started; polling costs one failed connect(2). */
const CONNECT_RETRY_MS = 10;

const LINE_FEED = 0x0a;

export type JsonObject = Record<string, unknown>;

export interface QmpEvent {
  readonly event: string;
  readonly data: JsonObject;
  /** QEMU's wall clock; for people, not for ordering. */
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

/** What the rest of this folder needs of a QMP connection; tests put a fake here. */
export interface Qmp {
  readonly version: QmpVersion;
  execute<T = unknown>(command: string, args?: JsonObject, options?: ExecuteOptions): Promise<T>;
  executeOob<T = unknown>(command: string, args?: JsonObject, options?: ExecuteOptions): Promise<T>;
  /** Returns how to stop listening. */
  onEvent(listener: (event: QmpEvent) => void): () => void;
}

export interface ConnectOptions {
  readonly endpoint: Endpoint;
  /** How long from now until QEMU must have answered the greeting. */
  readonly deadlineMs: number;
  /** Aborted when the QEMU process has died: there is nothing left to wait for. */
  readonly signal?: AbortSignal;
  readonly lineBytesMax?: number;
}

/** QEMU understood the command and said no; its own words are kept. */
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
  timer: NodeJS.Timeout | undefined;
  /** The caller has had its answer (the timeout); only QEMU's is outstanding. */
  expired: boolean;
}

export class QmpClient implements Qmp {
  readonly #socket: Socket;
  readonly #name: string;
  readonly #lineBytesMax: number;
  readonly #eventListeners = new Set<(event: QmpEvent) => void>();
  readonly #closeListeners = new Set<(reason: ColoError) => void>();
  readonly #sent = new Map<number, Command>();
  readonly #waiting: Command[] = [];
  #inBandSent = 0;
  #nextId = 1;
  #partial: Buffer[] = [];
  #partialBytes = 0;
  #closedBy: ColoError | undefined;
  #version: QmpVersion | undefined;
  #oob = false;
  #onGreeting: ((greeting: JsonObject) => void) | undefined;

  private constructor(socket: Socket, name: string, lineBytesMax: number) {
    this.#socket = socket;
    this.#name = name;
    this.#lineBytesMax = lineBytesMax;
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', (error: Error) => this.#end(this.#closedError(error.message)));
    socket.on('close', () => this.#end(this.#closedError('QEMU closed the connection')));
  }

  static async connect(options: ConnectOptions): Promise<QmpClient> {
    const { endpoint, deadlineMs } = options;
    const name = formatEndpoint(endpoint);
    // A signal that fires at the deadline, or earlier because the process died.
    const expiry = new AbortController();
    const timer = setTimeout(() => expiry.abort(), deadlineMs);
    const until = options.signal ? AbortSignal.any([options.signal, expiry.signal]) : expiry.signal;
    let lastReason = 'no attempt was made';
    const failure = (): ColoError => {
      const reason: unknown = options.signal?.reason;
      if (options.signal?.aborted) {
        if (reason instanceof ColoError) return reason;
        return new ColoError('COLO_QMP_CONNECT', `QMP at ${name}: given up, because QEMU has ended`, {
          cause: reason,
        });
      }
      return new ColoError(
        'COLO_QMP_CONNECT',
        `QMP at ${name}: no answer in ${deadlineMs} ms: ${lastReason}`,
      );
    };
    try {
      for (;;) {
        if (until.aborted) throw failure();
        try {
          const socket = await openSocket(endpoint, until);
          lastReason = 'connected but not greeted; is another program connected to it?';
          return await QmpClient.#greet(socket, options, until, failure);
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
      clearTimeout(timer);
    }
  }

  static async #greet(
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
    const onAbort = (): void => client.#end(failure());
    until.addEventListener('abort', onAbort);
    try {
      const greeting = await new Promise<JsonObject>((resolve, reject) => {
        client.#onGreeting = resolve;
        client.onClose(reject);
      });
      const parsed = parseGreeting(greeting);
      if (!parsed) throw client.#garbled('its greeting names no version');
      client.#version = parsed.version;
      client.#oob = parsed.oob;
      const enable = parsed.oob ? { enable: ['oob'] } : undefined;
      await client.execute('qmp_capabilities', enable, { timeoutMs: options.deadlineMs });
      return client;
    } catch (error) {
      client.#end(error instanceof ColoError ? error : failure());
      throw error;
    } finally {
      until.removeEventListener('abort', onAbort);
    }
  }

  get version(): QmpVersion {
    // Set before connect() hands out the client.
    return this.#version as QmpVersion;
  }

  /** Whether QEMU takes out-of-band commands; every QEMU that we support does. */
  get oob(): boolean {
    return this.#oob;
  }

  get closed(): boolean {
    return this.#closedBy !== undefined;
  }

  execute<T = unknown>(command: string, args?: JsonObject, options?: ExecuteOptions): Promise<T> {
    return this.#submit(command, args, false, options?.timeoutMs ?? QMP_TIMEOUT_MS) as Promise<T>;
  }

  /** Runs beside whatever the main loop is stuck in. QEMU takes few commands this way, yank and query-yank among them. */
  executeOob<T = unknown>(command: string, args?: JsonObject, options?: ExecuteOptions): Promise<T> {
    if (!this.#oob) {
      const text = `QMP at ${this.#name} offers no out-of-band execution; ${command} needs it`;
      return Promise.reject(new ColoError('COLO_QMP_REFUSED', text));
    }
    return this.#submit(command, args, true, options?.timeoutMs ?? QMP_TIMEOUT_MS) as Promise<T>;
  }

  /** Returns how to stop listening. */
  onEvent(listener: (event: QmpEvent) => void): () => void {
    this.#eventListeners.add(listener);
    return () => this.#eventListeners.delete(listener);
  }

  /** Called once; at once when the connection has gone already. Returns how to stop listening. */
  onClose(listener: (reason: ColoError) => void): () => void {
    if (this.#closedBy) {
      listener(this.#closedBy);
      return () => undefined;
    }
    this.#closeListeners.add(listener);
    return () => this.#closeListeners.delete(listener);
  }

  close(): void {
    this.#end(this.#closedError('closed by us'));
  }

  #submit(name: string, args: JsonObject | undefined, oob: boolean, timeoutMs: number): Promise<unknown> {
    if (this.#closedBy) return Promise.reject(this.#closedBy);
    if (!oob && this.#waiting.length >= QMP_WAITING_MAX) {
      const text = `QMP at ${this.#name}: ${QMP_WAITING_MAX} commands wait already; ${name} was not sent`;
      return Promise.reject(new ColoError('COLO_QMP_BUSY', text));
    }
    const id = this.#nextId++;
    const line = `${JSON.stringify({ [oob ? 'exec-oob' : 'execute']: name, arguments: args, id })}\n`;
    return new Promise((resolve, reject) => {
      const command: Command = { id, name, line, oob, resolve, reject, timer: undefined, expired: false };
      command.timer = setTimeout(() => this.#expire(command, timeoutMs), timeoutMs);
      if (oob || (this.#inBandSent < QMP_IN_BAND_MAX && this.#waiting.length === 0)) this.#send(command);
      else this.#waiting.push(command);
    });
  }

  #send(command: Command): void {
    this.#sent.set(command.id, command);
    if (!command.oob) this.#inBandSent++;
    this.#socket.write(command.line);
  }

  #expire(command: Command, timeoutMs: number): void {
    command.expired = true;
    const place = this.#waiting.indexOf(command);
    if (place >= 0) this.#waiting.splice(place, 1);
    const text = `QMP at ${this.#name}: ${command.name} got no answer in ${timeoutMs} ms; QEMU may hang`;
    command.reject(new ColoError('COLO_QMP_TIMEOUT', text));
  }

  #read(chunk: Buffer): void {
    let start = 0;
    while (!this.#closedBy) {
      const end = chunk.indexOf(LINE_FEED, start);
      const piece = start === 0 && end < 0 ? chunk : chunk.subarray(start, end < 0 ? chunk.length : end);
      if (this.#partialBytes + piece.length > this.#lineBytesMax) {
        this.#end(this.#garbled(`a line is longer than ${this.#lineBytesMax} bytes`));
        return;
      }
      if (end < 0) {
        if (piece.length === 0) return;
        this.#partial.push(piece);
        this.#partialBytes += piece.length;
        return;
      }
      let line = piece;
      if (this.#partialBytes > 0) {
        this.#partial.push(piece);
        line = Buffer.concat(this.#partial);
        this.#partial = [];
        this.#partialBytes = 0;
      }
      start = end + 1;
      this.#readLine(line.toString('utf8').trim());
    }
  }

  #readLine(text: string): void {
    if (text === '') return;
    let message: unknown;
    try {
      message = JSON.parse(text);
    } catch {
      this.#end(this.#garbled(`not JSON: ${excerpt(text)}`));
      return;
    }
    if (!isObject(message)) {
      this.#end(this.#garbled(`not an object: ${excerpt(text)}`));
    } else if (isObject(message.QMP) && this.#onGreeting) {
      const greet = this.#onGreeting;
      this.#onGreeting = undefined;
      greet(message.QMP);
    } else if (typeof message.event === 'string') {
      this.#deliver(message.event, message);
    } else if ('return' in message || isObject(message.error)) {
      this.#answer(message, text);
    } else {
      this.#end(this.#garbled(`neither reply nor event: ${excerpt(text)}`));
    }
  }

  #deliver(name: string, message: JsonObject): void {
    const stamp = isObject(message.timestamp) ? message.timestamp : {};
    const event: QmpEvent = {
      event: name,
      data: isObject(message.data) ? message.data : {},
      timestampUs: numberOr(stamp.seconds, 0) * 1e6 + numberOr(stamp.microseconds, 0),
    };
    for (const listener of [...this.#eventListeners]) listener(event);
  }

  #answer(message: JsonObject, text: string): void {
    const command = typeof message.id === 'number' ? this.#sent.get(message.id) : undefined;
    if (!command) {
      this.#end(this.#garbled(`an answer to nothing asked: ${excerpt(text)}`));
      return;
    }
    this.#sent.delete(command.id);
    clearTimeout(command.timer);
    if (!command.oob) this.#inBandSent--;
    while (this.#inBandSent < QMP_IN_BAND_MAX && this.#waiting.length > 0) {
      this.#send(this.#waiting.shift() as Command);
    }
    // Settles nothing when the timeout already has.
    if (isObject(message.error)) {
      const { class: qmpClass, desc } = message.error;
      command.reject(new QmpRefusedError(command.name, stringOr(qmpClass, '?'), stringOr(desc, '?')));
    } else {
      command.resolve(message.return);
    }
  }

  #end(reason: ColoError): void {
    if (this.#closedBy) return;
    this.#closedBy = reason;
    this.#socket.destroy();
    this.#partial = [];
    this.#partialBytes = 0;
    const unanswered = [...this.#sent.values(), ...this.#waiting];
    this.#sent.clear();
    this.#waiting.length = 0;
    for (const command of unanswered) {
      clearTimeout(command.timer);
      if (!command.expired) command.reject(reason);
    }
    for (const listener of [...this.#closeListeners]) listener(reason);
    this.#closeListeners.clear();
    this.#eventListeners.clear();
  }

  #closedError(why: string): ColoError {
    return new ColoError('COLO_QMP_CLOSED', `QMP at ${this.#name}: ${why}`);
  }

  #garbled(what: string): ColoError {
    return new ColoError('COLO_QMP_GARBLED', `QMP at ${this.#name}: the peer does not speak QMP: ${what}`);
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
    const onAbort = (): void => settle(new Error('given up'));
    until.addEventListener('abort', onAbort);
    socket.once('connect', () => settle());
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
