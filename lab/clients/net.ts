/**
 * What the clients share: a clock, a target, one way to open a TCP connection, and one way to describe how a
 * connection ended. A connection that the client did not close itself, in order, is broken; nothing is retried.
 *
 * Measured times come from the injected clock. Timeouts are real timers: they only bound how long a client
 * waits for a dead service, and enter no figure.
 */
import { connect, type OnReadOpts, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import { messageOf } from '../../src/error.ts';
import { Findings } from './findings.ts';

/** Monotonic milliseconds. Clients whose figures are compared must share one clock. */
export type Clock = () => number;

export const monotonicMs: Clock = () => performance.now();

export interface Target {
  readonly host: string;
  readonly port: number;
}

export type BreakKind = 'refused' | 'reset' | 'timeout' | 'early-close' | 'error';

/** One connection that ended in an error, as the summary counts it. */
export interface Break {
  readonly atMs: number;
  readonly kind: BreakKind;
  /** The client, and what it was doing. */
  readonly where: string;
  readonly detail: string;
}

/** The error of the connection helpers; clients record it as a `Break`. */
export class BrokenConnection extends Error {
  readonly kind: BreakKind;

  constructor(kind: BreakKind, message: string) {
    super(message);
    this.name = 'BrokenConnection';
    this.kind = kind;
  }
}

const KIND_BY_CODE: Readonly<Record<string, BreakKind>> = {
  ECONNREFUSED: 'refused',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
  ETIMEDOUT: 'timeout',
};

export function brokenBy(error: unknown): BrokenConnection {
  if (error instanceof BrokenConnection) return error;
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const message = messageOf(error);
  return new BrokenConnection(KIND_BY_CODE[code] ?? 'error', message);
}

/** The broken connections: their count, and the first ones in full. */
export class Breaks extends Findings<Break> {
  note(error: unknown, where: string, atMs: number): void {
    const broken = brokenBy(error);
    this.add({ atMs, kind: broken.kind, where, detail: broken.message });
  }
}

/** Opens a connection, or rejects with `BrokenConnection`. `onread` is node:net's: read into one buffer. */
export function open(target: Target, timeoutMs: number, onread?: OnReadOpts): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const socket = connect({ ...target, noDelay: true, ...(onread && { onread }) });
  const timer = setTimeout(() => {
    socket.destroy();
    reject(new BrokenConnection('timeout', `no connection to ${name(target)} within ${timeoutMs} ms`));
  }, timeoutMs);
  // This listener stays, so that a late error is handled; rejecting a settled promise does nothing.
  socket.on('error', (error) => {
    clearTimeout(timer);
    reject(brokenBy(error));
  });
  socket.once('connect', () => {
    clearTimeout(timer);
    resolve(socket);
  });
  return promise;
}

export function name(target: Target): string {
  return target.host.includes(':') ? `[${target.host}]:${target.port}` : `${target.host}:${target.port}`;
}

/** Waits, or returns early when aborted. Never rejects. */
export async function rest(ms: number, signal: AbortSignal): Promise<void> {
  await delay(ms, undefined, { signal }).catch(() => undefined);
}

/** Calls `then` once when the signal aborts, at once if it has. Returns a function that cancels this. */
export function whenAborted(signal: AbortSignal, then: () => void): () => void {
  if (signal.aborted) {
    then();
    return () => undefined;
  }
  signal.addEventListener('abort', then, { once: true });
  return () => signal.removeEventListener('abort', then);
}
