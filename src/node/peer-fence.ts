/**
 * Cuts the peer off, when the machine asks for it: this node has won the record against its former primary.
 *
 * One run of the command at a time. A run that succeeds dispatches `peerFenced`, any other `fenceFailed`: the machine then asks
 * again after a while, for as long as it takes, and the node does not go on meanwhile. The end of the node ends a run.
 */
import { ColoError, errorText, invariant } from '../error.ts';
import type { Clock } from '../io/clock.ts';
import type { EventSink } from '../observe/events.ts';
import type { FenceStatus } from '../observe/status.ts';
import type { PairEvent } from '../pair/machine.ts';
import type { Instant } from '../units.ts';
import type { Scope } from './scope.ts';

/** Resolves when `peer` is cut off for sure; rejects if it may not be. Ends when `signal` aborts. */
export type Fencer = (peer: string, signal: AbortSignal) => Promise<void>;

export class PeerFence {
  private readonly fencer: Fencer;
  private readonly events: EventSink;
  private readonly clock: Clock;
  private readonly scope: Scope;
  private readonly dispatch: (event: PairEvent) => void;
  private running = false;
  private sinceMs: Instant | null = null;
  private done = 0;
  private failed = 0;
  private message: string | null = null;

  constructor(options: {
    fencer: Fencer;
    events: EventSink;
    clock: Clock;
    scope: Scope;
    dispatch: (event: PairEvent) => void;
  }) {
    this.fencer = options.fencer;
    this.events = options.events;
    this.clock = options.clock;
    this.scope = options.scope;
    this.dispatch = options.dispatch;
  }

  status(nowMs: Instant): FenceStatus {
    const { sinceMs, done, failed, message } = this;
    return {
      waitingMs: sinceMs === null ? null : nowMs - sinceMs,
      running: this.running,
      done,
      failed,
      message,
    };
  }

  async run(peer: string): Promise<void> {
    invariant(!this.running, 'a fence command was started while another one ran');
    const startMs = this.clock.now();
    this.running = true;
    this.sinceMs ??= startMs;
    this.events.emit('fence.started', { peer });
    let failure: unknown = null;
    try {
      await this.fencer(peer, this.scope.signal);
    } catch (cause) {
      failure = cause ?? new ColoError('COLO_FENCE_FAILED', 'the fence failed');
    }
    this.running = false;
    if (this.scope.isOver) return;
    const tookMs = this.clock.now() - startMs;
    if (failure === null) {
      this.done++;
      this.sinceMs = null;
      this.message = null;
      this.events.emit('fence.done', { peer, tookMs });
      this.dispatch({ type: 'peerFenced' });
    } else {
      this.failed++;
      this.message = errorText(failure);
      this.events.emit('fence.failed', { peer, tookMs, message: this.message });
      this.dispatch({ type: 'fenceFailed' });
    }
  }
}
