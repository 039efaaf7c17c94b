/**
 * A node's way to the arbiter. It passes questions on, and asks one of its own regularly, so that an arbiter that could not let the
 * pair fail over is noticed before that is needed.
 *
 * The regular question is a probe: it is refused where a change would be, and changes nothing. A protected node also looks whether the
 * record names it: another record (a wrong prefix, a store that was set up again) would refuse a failover just as well.
 *
 * Events: `arbiter.failed` once per outage and cause, `arbiter.replies` when it is over. Limits: CAUSES_MAX causes per outage;
 * a question without a reply counts as failed after REPLY_MS_MAX, though it goes on.
 */
import { ColoError, messageOf } from '../error.ts';
import type { Surroundings } from '../io/surroundings.ts';
import type { EventSink } from '../observe/events.ts';
import type { Arbiter, PairRecord, Stored } from '../pair/arbiter.ts';
import type { Instant } from '../units.ts';
import type { ArbiterHistory, Proof } from './arbiter-history.ts';
import type { Scope } from './scope.ts';

/** Often enough to be noticed before an operator would look, and little for etcd: one entry in its log. */
const PROBE_EVERY_MS = 2000;
/** More than any arbiter takes until it fails: a disk or a file system that hangs. */
const REPLY_MS_MAX = 5000;
/** In a message each of several members may fail in its own way. */
const CAUSES_MAX = 8;
/** The secondary is told of its record after that was stored, and the other way round: one look in between means nothing. */
const STRAYS_MAX = 1;

export class ArbiterWatch {
  private readonly arbiter: Arbiter;
  private readonly history: ArbiterHistory;
  private readonly events: EventSink;
  private readonly surroundings: Surroundings;
  private readonly scope: Scope;
  private readonly agrees: (stored: Stored) => boolean;
  /** of the current outage, that were reported */
  private readonly causes = new Set<string>();
  /** probes in a row whose record did not name this node */
  private strays = 0;

  constructor(options: {
    arbiter: Arbiter;
    history: ArbiterHistory;
    events: EventSink;
    surroundings: Surroundings;
    scope: Scope;
    /** Whether what is stored would let this node fail over. */
    agrees: (stored: Stored) => boolean;
  }) {
    this.arbiter = options.arbiter;
    this.history = options.history;
    this.events = options.events;
    this.surroundings = options.surroundings;
    this.scope = options.scope;
    this.agrees = options.agrees;
  }

  /** Asks regularly from now on. */
  start(): void {
    this.scope.after(this.surroundings.timers, PROBE_EVERY_MS, () => void this.probe());
  }

  read(): Promise<Stored> {
    return this.watched('read', () => this.arbiter.read());
  }

  compareAndSwap(revision: number, record: PairRecord): Promise<Stored & { won: boolean }> {
    return this.watched('change', () => this.arbiter.compareAndSwap(revision, record));
  }

  private async probe(): Promise<void> {
    try {
      await this.watched('change', async () => {
        const stored = await this.arbiter.probe();
        this.strays = this.agrees(stored) ? 0 : this.strays + 1;
        if (this.strays > STRAYS_MAX) throw strayRecord(stored);
      });
    } catch {
      // The history has it.
    }
    if (!this.scope.isOver) this.start();
  }

  private async watched<T>(proof: Proof, question: () => Promise<T>): Promise<T> {
    const { clock, timers } = this.surroundings;
    const askedMs = clock.now();
    const cancel = timers.after(REPLY_MS_MAX, () => this.failed(overdue(), askedMs));
    try {
      const reply = await question();
      this.replied(proof, askedMs);
      return reply;
    } catch (cause) {
      this.failed(cause, askedMs);
      throw cause;
    } finally {
      cancel();
    }
  }

  private replied(proof: Proof, askedMs: Instant): void {
    const forMs = this.history.replied(proof, askedMs, this.surroundings.clock.now());
    if (forMs === null) return;
    this.causes.clear();
    this.events.emit('arbiter.replies', { forMs });
  }

  private failed(cause: unknown, askedMs: Instant): void {
    const code = cause instanceof ColoError ? cause.code : 'COLO_ARBITER_UNREACHABLE';
    const message = messageOf(cause);
    this.history.failed(code, message, askedMs);
    if (this.causes.has(message) || this.causes.size === CAUSES_MAX || this.scope.isOver) return;
    this.causes.add(message);
    this.events.emit('arbiter.failed', { code, message });
  }
}

function overdue(): ColoError {
  return new ColoError(
    'COLO_ARBITER_UNREACHABLE',
    `the arbiter has not replied for ${REPLY_MS_MAX / 1000} s`,
  );
}

function strayRecord({ record }: Stored): ColoError {
  const found =
    record === null ? 'no record of this pair' : `generation ${record.generation} of ${record.primary}`;
  return new ColoError(
    'COLO_ARBITER_RECORD',
    `the arbiter has ${found}, which does not name this node: is it the arbiter of both nodes, and was it set up again?`,
  );
}
