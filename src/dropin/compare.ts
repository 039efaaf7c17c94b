/**
 * `colo compare`: QEMU's colo-compare as a process of its own, with a source that takes the checkpoints.
 *
 * checkpoint/policy.ts decides when to ask for one, as in a node, but always at once (pacing.ts); the regular interval is left to
 * QEMU or the tool stack.
 *
 * Limits: one request per ASK_AGAIN_MS. Failure: a request that no checkpoint follows is repeated, since QEMU drops requests
 * that come during a checkpoint. Without a source, or while it has no connection, output that differs stays held. Whether
 * there is a secondary at all may not be known: standing.ts.
 */
import { MatchWatch } from '../checkpoint/match-watch.ts';
import { CheckpointPolicy } from '../checkpoint/policy.ts';
import { PolicyClock } from '../checkpoint/policy-clock.ts';
import type { CheckpointCause, CheckpointReason } from '../checkpoint/report.ts';
import type { Endpoint } from '../endpoint.ts';
import { describeFlowKey } from '../flow/key.ts';
import type { Framing } from '../frames/frame-reader.ts';
import type { Clock, Timers } from '../io/clock.ts';
import type { Surroundings } from '../io/surroundings.ts';
import type { Instant } from '../units.ts';
import type { CheckpointEvents, CheckpointSource } from './checkpoint-source.ts';
import { ComparePath } from './compare-path.ts';
import { dropEvents } from './drops.ts';
import type { CompareReport, DropInEvents, EmitDropIn } from './events.ts';
import { StandingWatch } from './standing.ts';
import { drained, keeperEvents, StreamKeeper } from './stream-keeper.ts';
import { readsFrames, WRITES } from './waiting-room.ts';

export type CompareOptions = {
  primaryIn: Endpoint;
  secondaryIn: Endpoint;
  out: Endpoint;
  framing: Framing;
};

const ASK_AGAIN_MS = 1000;
const BROKEN =
  'COLO ended by an error: what differs stays held until x-colo-lost-heartbeat makes one of the two VMs the only one';
const UNANSWERED =
  'no checkpoint follows the requests: see whether QEMU hangs, and whether COLO runs on both sides (query-colo-status)';
/** The defaults of a node (config/schema.ts), but without a regular interval. */
const WAITS = {
  intervalMsMax: Number.POSITIVE_INFINITY,
  waitMsMin: 5,
  waitMsMax: 200,
  ackWaitMsMax: 300,
} as const;

export class DropInCompare {
  readonly path: ComparePath;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly emit: EmitDropIn;
  private readonly policy = new CheckpointPolicy(WAITS);
  private readonly keepers: StreamKeeper[];
  private readonly source: CheckpointSource | null;
  /** When the checkpoint that is awaited was asked for. */
  private askedMs: number | null = null;
  private asked = 0;
  private committed = 0;
  private readonly policyClock: PolicyClock;
  private readonly matches: MatchWatch;
  private readonly standing: StandingWatch;
  private cancelAskAgain = (): void => {};

  constructor(options: {
    endpoints: CompareOptions;
    /** Makes the source of checkpoints; null: there is none. */
    source: ((events: CheckpointEvents) => CheckpointSource) | null;
    /** 'alone' if the source notifies of whether there is a secondary: until then output leaves uncompared. */
    phase: 'alone' | 'comparing';
    hashSeed: number;
    surroundings: Surroundings;
    emit: EmitDropIn;
  }) {
    const { endpoints, surroundings } = options;
    const { clock, timers } = surroundings;
    this.clock = clock;
    this.timers = timers;
    this.emit = options.emit;
    this.matches = new MatchWatch({
      unmatched: (seen) => this.emit('compare.unmatched', seen),
      over: (cause, forMs) => this.emit('compare.unmatched-over', { cause, forMs }),
    });
    this.path = new ComparePath({
      framing: endpoints.framing,
      phase: options.phase,
      clock,
      timers,
      hashSeed: options.hashSeed,
      events: {
        diverged: (divergence) => {
          this.policy.diverged(divergence);
          this.policyClock.hurry();
        },
        ...dropEvents(this.emit),
      },
    });
    this.policyClock = new PolicyClock({
      policy: this.policy,
      output: this.path,
      // Frames may wait in the path for the end of their turn: the comparator does not count those.
      isIdle: () => false,
      mayStart: (nowMs) => this.mayAsk(nowMs),
      start: (reason, nowMs) => this.ask(reason, nowMs),
      clock,
      timers,
    });
    const events = keeperEvents(this.emit);
    const { primaryIn, secondaryIn, out } = endpoints;
    const reads = readsFrames(endpoints.framing);
    this.keepers = [
      { endpoint: out, place: this.path.out, admission: WRITES },
      { endpoint: primaryIn, place: this.path.primaryIn, admission: reads },
      { endpoint: secondaryIn, place: this.path.secondaryIn, admission: reads },
    ].map((one) => new StreamKeeper({ ...one, name: one.place.name, surroundings, events }));
    this.source =
      options.source?.({
        stopped: () => this.path.pvmStopped(),
        resumed: () => this.path.pvmResumed(),
        unchanged: () => this.path.unchanged(),
        committed: () => this.onCommitted(),
        alone: () => this.onAlone(),
        primary: () => this.onPrimary(),
        unknown: () => this.standing.take('unknown'),
        broken: () => this.onBroken(),
        note: this.emit,
      }) ?? null;
    this.standing = new StandingWatch(this.source === null ? 'paired' : 'unknown', timers, (standing) =>
      this.noteStanding(standing),
    );
  }

  /** Rejects with COLO_ENDPOINT_LISTEN. */
  async start(): Promise<void> {
    try {
      this.standing.start();
      for (const keeper of this.keepers) await keeper.start();
      await this.source?.start();
    } catch (cause) {
      await this.close();
      throw cause;
    }
    this.policyClock.run();
  }

  /**
   * Releases what is held, as QEMU does when the object is deleted, and closes at a frame boundary. Resolves with the last
   * report: what the consumer has not made room for by then counts as dropped.
   */
  async stop(): Promise<CompareReport> {
    this.policyClock.stop();
    this.path.goAlone();
    await drained([this.path.out], { clock: this.clock, timers: this.timers });
    await this.close();
    return this.report();
  }

  private async close(): Promise<void> {
    this.standing.close();
    this.cancelAskAgain();
    await this.source?.close();
    for (const keeper of this.keepers) await keeper.close();
    this.path.close();
  }

  report(): CompareReport {
    const { primaryFrames, secondaryFrames, releasedFrames, releasedBytes, droppedFrames } =
      this.path.counters;
    const { matched, repeated, releasedByCommit, divergences, malformed } = this.path.comparator.counters;
    const { drops } = this.path;
    const { asked, committed } = this;
    return {
      primaryFrames,
      secondaryFrames,
      releasedFrames,
      releasedBytes,
      droppedFrames,
      noRoomPrimary: drops.primary.frames,
      noRoomSecondary: drops.secondary.frames,
      noRoomOut: drops.out.frames,
      matched,
      repeated,
      releasedByCommit,
      divergences,
      asked,
      committed,
      malformed,
    };
  }

  private onCommitted(): void {
    if (this.standing.standing === 'broken') {
      // The VM was resumed, but nothing copies it any more.
      this.path.unchanged();
      return;
    }
    this.standing.take('committed');
    const nowMs = this.clock.now();
    const released = this.path.commit();
    this.committed++;
    this.policy.committed(nowMs, this.askedMs === null ? 0 : nowMs - this.askedMs);
    const tookMs = this.askedMs === null ? null : Number((nowMs - this.askedMs).toFixed(1));
    this.askedMs = null;
    this.emit('checkpoint.committed', { released, tookMs });
    const { comparator } = this.path;
    const { matched } = comparator.counters;
    const releasedByCommit = comparator.releasedWithoutMatch;
    const { secondaryFrames } = this.path.counters;
    this.matches.committed({ matched, releasedByCommit, secondaryFrames }, nowMs);
  }

  private onAlone(): void {
    this.askedMs = null;
    const isNew = this.standing.take('alone');
    const released = this.path.goAlone();
    this.matches.pairEnded(this.clock.now());
    if (isNew || released > 0) this.emit('compare.alone', { released });
  }

  private onPrimary(): void {
    if (!this.standing.take('primary')) return;
    this.beginComparing();
    this.askUntilCommitted();
  }

  private onBroken(): void {
    // Until an operator decides, the secondary may be promoted: what only this VM has sent stays held.
    if (this.standing.take('broken')) this.beginComparing();
  }

  /** From now on output is held, also if no checkpoint has been seen yet. */
  private beginComparing(): void {
    if (!this.path.isComparing) this.path.commit();
  }

  private askUntilCommitted(): void {
    this.cancelAskAgain();
    if (this.standing.standing !== 'joining') return;
    const nowMs = this.clock.now();
    if (this.untilNextMs(nowMs) === 0) this.ask('initial', nowMs);
    this.cancelAskAgain = this.timers.after(this.untilNextMs(nowMs), () => this.askUntilCommitted());
  }

  /** Returns how long the next request has to wait. */
  private untilNextMs(nowMs: Instant): number {
    return this.askedMs === null ? 0 : Math.max(0, this.askedMs + ASK_AGAIN_MS - nowMs);
  }

  private noteStanding(standing: 'unknown' | 'joining' | 'broken'): void {
    if (standing === 'unknown') this.emit('compare.unknown', this.unknownNotice());
    else if (standing === 'broken') this.emit('compare.broken', { message: BROKEN });
    else this.emit('compare.unanswered', { message: UNANSWERED });
  }

  private unknownNotice(): DropInEvents['compare.unknown'] {
    if (this.path.isComparing)
      return {
        meanwhile: 'held',
        message:
          'nothing can be asked for a checkpoint: output that differs stays held; look at qmp.down or stream.down',
      };
    return {
      meanwhile: 'released',
      message:
        'it is not known whether this VM has a secondary: its output leaves uncompared until QEMU replies over --qmp',
    };
  }

  private mayAsk(nowMs: Instant): boolean {
    if (!this.path.isComparing || this.standing.standing === 'broken') return false;
    return this.untilNextMs(nowMs) === 0;
  }

  /** Also emits the event if there is no source: it then shows once per ASK_AGAIN_MS that output is held for good. */
  private ask(reason: CheckpointReason, nowMs: Instant): void {
    this.askedMs = nowMs;
    this.asked++;
    this.emit('checkpoint.asked', { reason, ...this.causeOf(reason) });
    this.source?.ask();
  }

  /** Returns the flow that is the reason, if it is one flow, and the class of its divergence. */
  private causeOf(reason: CheckpointReason): Omit<CheckpointCause, 'reason'> {
    const { divergence } = this.policy;
    if (divergence !== null && divergence.reason === reason)
      return { flow: divergence.flow, class: divergence.class };
    if (!reason.startsWith('wait')) return {};
    const key = this.path.comparator.overdueFlow();
    return key === null ? {} : { flow: describeFlowKey(key) };
  }
}
