/**
 * Dials until a connection is there, and notifies of what keeps it down.
 *
 * Limits: one attempt at a time, `waitMs` between two. An aborted signal ends the wait at once; a connection that a
 * dial under way then still opens is closed. Failure: a dial never fails for good, it is repeated.
 */
import { ColoError, messageOf } from '../error.ts';
import type { Timers } from './clock.ts';

/** `per outage`: of its first cause alone. `per cause`: also of each cause that differs from the one before. */
export type NotifyOnce = 'per outage' | 'per cause';

/** Notifies of an outage once, however many attempts fail. */
export class Outage {
  private readonly once: NotifyOnce;
  private readonly notify: (message: string, code: string | null) => void;
  /** The cause of the current outage that was last notified of. */
  private known: string | null = null;

  constructor(once: NotifyOnce, notify: (message: string, code: string | null) => void) {
    this.once = once;
    this.notify = notify;
  }

  /** The connection is down because of `message`; `code`: of the error, if it has one. */
  down(message: string, code: string | null = null): void {
    if (this.known !== null && (this.once === 'per outage' || this.known === message)) return;
    this.known = message;
    this.notify(message, code);
  }

  /** The outage is over: the next one is notified of again. */
  up(): void {
    this.known = null;
  }
}

/**
 * Calls `connected` with the first connection that opens; resolves after that, or once `signal` is aborted. Rejects only
 * if `connected` throws.
 */
export async function redial<T extends { close(): void }>(options: {
  dial: () => Promise<T>;
  connected: (connection: T) => void;
  outage: Outage;
  timers: Timers;
  waitMs: number;
  /** Wait before the first attempt. */
  firstWaitMs?: number;
  signal: AbortSignal;
}): Promise<void> {
  const { outage, timers, signal } = options;
  let waitMs = options.firstWaitMs ?? 0;
  for (;;) {
    if (waitMs > 0) await pause(timers, waitMs, signal);
    waitMs = options.waitMs;
    if (signal.aborted) return;
    let connection: T;
    try {
      connection = await options.dial();
    } catch (cause) {
      if (!signal.aborted) outage.down(messageOf(cause), cause instanceof ColoError ? cause.code : null);
      continue;
    }
    if (signal.aborted) {
      connection.close();
      return;
    }
    outage.up();
    options.connected(connection);
    return;
  }
}

/** Resolves after `ms`, or when `signal` is aborted. */
function pause(timers: Timers, ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) return resolve();
    const end = () => {
      cancel();
      signal.removeEventListener('abort', end);
      resolve();
    };
    const cancel = timers.after(ms, end);
    signal.addEventListener('abort', end);
  });
}
