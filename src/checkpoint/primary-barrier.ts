/**
 * The epoch barrier, primary side: one checkpoint, exactly.
 *
 * Goal: rules 3 and 6. At the moment when the PVM's state is taken, both VMs or neither have consumed each frame; when the
 * SVM owns that state, everything held is released, once, and the next epoch begins.
 *
 * Phases. The relay delays QEMU's message of each phase until it is safe to pass it on:
 *   1 gate     the gate retains input; GATE goes to the secondary after the last input; QEMU is asked to begin
 *   2 drain    until the PVM has read its input, the secondary sends GATED (so has the SVM), and REQUEST has arrived
 *     A PVM that stands for another reason is not copied: the phases 2 and 3 wait until it runs
 *   3 reply    the SVM has stopped and its output has been sent; the PVM stops when REPLY reaches it
 *   4 commit   RECEIVED: the PVM is stopped, the SVM owns the state. Read the PVM's remaining output, then commit
 *   5 loaded   the SVM runs; the PVM runs when LOADED reaches it; the gate opens
 *
 * Limits: a VM that reads no input (its receive ring is full and its guest hangs) is waited for `DRAIN_MS_MAX`. Then the
 * checkpoint is taken all the same and reported as inexact, since without it nothing would ever leave again. A secondary that makes no
 * progress at all is waited for SECONDARY_STALL_MS_MAX (stall-watch.ts): clients wait for the checkpoint.
 * Failure: `abort` (link lost, QEMU's stream closed) ends a running checkpoint; the state machine decides what happens next.
 */

import type { PrimaryPath } from '../datapath/primary-path.ts';
import { ColoError } from '../error.ts';
import { type Clock, sleep, type Timers } from '../io/clock.ts';
import type { LinkChannel } from '../link/link-channel.ts';
import { MESSAGE } from '../link/link-protocol.ts';
import type { ReverseMessage } from './colo-messages.ts';
import type { MigrationRelay } from './migration-relay.ts';
import type { CheckpointReason, CheckpointReport } from './report.ts';
import { watchForStall } from './stall-watch.ts';
import { until } from './until.ts';

const DRAIN_MS_MAX = 1000;
/**
 * QEMU forgets a request that arrives before it has finished the previous checkpoint (qemu_event_reset in
 * migration/colo.c), so a request without effect is repeated. A superfluous one only costs one more checkpoint.
 */
const ASK_AGAIN_MS = 200;
/** The PVM is stopped and its last output is in a socket: only this node's own reading is waited for. */
const EXHAUST_MS_MAX = 1000;

/** How soon a checkpoint goes on when the VM does. */
const STANDING_POLL_MS = 10;

type Step = 'request' | 'gated' | ReverseMessage;

export class PrimaryBarrier {
  private readonly path: PrimaryPath;
  private readonly relay: MigrationRelay;
  private readonly link: LinkChannel;
  private readonly requestCheckpoint: () => Promise<void>;
  private readonly standing: () => string | null;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly waiting = new Map<Step, () => void>();
  private readonly seen = new Set<Step>();
  private aborted: ColoError | null = null;
  private aborting: Promise<never> | null = null;
  private rejectRun: (cause: ColoError) => void = () => {};
  private running = false;
  /** QEMU has been told to stop the PVM, and the checkpoint is not over */
  private stopping = false;
  /** grows with every phase reached */
  private progress = 0;
  /** frames that had matched at the last commit */
  private matchedBefore = 0;
  /** the secondary's VM had not read all of its input in time */
  private undrained = 0;

  constructor(options: {
    path: PrimaryPath;
    relay: MigrationRelay;
    link: LinkChannel;
    requestCheckpoint: () => Promise<void>;
    /** why the PVM may not be copied now, or null */
    standing: () => string | null;
    clock: Clock;
    timers: Timers;
  }) {
    this.path = options.path;
    this.relay = options.relay;
    this.link = options.link;
    this.requestCheckpoint = options.requestCheckpoint;
    this.standing = options.standing;
    this.clock = options.clock;
    this.timers = options.timers;
    this.matchedBefore = options.path.comparator.counters.matched;
  }

  get isRunning(): boolean {
    return this.running;
  }

  /** The PVM stands for this checkpoint, or is about to, and QEMU's threads may hold its lock. */
  get isStopping(): boolean {
    return this.stopping;
  }

  /** The relay ('request' and QEMU's messages) or the link (`gated`) notifies of a phase. */
  reached(step: Step): void {
    this.progress++;
    this.resume(step);
  }

  /** The secondary has sent its VM all input; `drained` is false if the VM has not read all of it in time. */
  gated({ drained }: { drained: boolean }): void {
    this.undrained = drained ? 0 : 1;
    // A VM that takes no input has made no progress.
    if (drained) this.progress++;
    this.resume('gated');
  }

  /** The link or a QEMU is gone: a running checkpoint rejects, and no other begins. */
  abort(cause: ColoError): void {
    this.aborted ??= cause;
    this.rejectRun(cause);
  }

  /** Takes one checkpoint. `onCommit` runs after the commit and before the PVM continues. */
  async run(reason: CheckpointReason, onCommit: () => void): Promise<CheckpointReport> {
    if (this.running) throw new ColoError('COLO_CHECKPOINT_RUNNING', 'a checkpoint is under way already');
    if (this.aborted !== null) throw this.aborted;
    this.running = true;
    const { clock, timers } = this;
    const stopWatching = watchForStall({
      clock,
      timers,
      progress: () => this.progress + this.relay.movedBytes,
      waitsForSecondary: () => this.waitsForSecondary,
      stalled: (why) => this.abort(new ColoError('COLO_CHECKPOINT_STALLED', why)),
    });
    this.aborting = new Promise<never>((_, reject) => {
      this.rejectRun = reject;
    });
    try {
      return await Promise.race([this.phases(reason, onCommit), this.aborting]);
    } finally {
      stopWatching();
      this.running = false;
      this.stopping = false;
      this.rejectRun = () => {};
      this.waiting.clear();
    }
  }

  private async phases(reason: CheckpointReason, onCommit: () => void): Promise<CheckpointReport> {
    const { path, relay, clock } = this;
    const startMs = clock.now();
    const stateBytes = relay.stateBytes;
    // QEMU may have begun a checkpoint by itself: after a request that arrived while the previous one ended.
    const begun = this.seen.has('request');
    this.seen.clear();
    if (begun) this.seen.add('request');

    path.closeGate();
    this.link.send(MESSAGE.gate, { epoch: path.epoch });

    const [drained] = await Promise.all([
      until(clock, this.timers, DRAIN_MS_MAX, () => this.aborted !== null || path.inputDrained),
      this.step('gated'),
      begun ? this.step('request') : this.ask(),
    ]);
    const inexact = (drained ? 0 : 1) + this.undrained;
    await this.untilPvmRuns();
    const drainedMs = clock.now();
    relay.passRequest();

    await this.step('reply');
    await this.untilPvmRuns();
    const pausedMs = clock.now();
    this.stopping = true;
    relay.pass('reply');

    await this.step('received');
    path.readRest();
    await until(clock, this.timers, EXHAUST_MS_MAX, () => this.aborted !== null || path.outputExhausted);
    if (this.aborted !== null) throw this.aborted;
    const matchedFrames = this.matchedSinceLast();
    const releasedFrames = path.commit(this.link);
    onCommit();
    relay.pass('received');

    await this.step('loaded');
    relay.pass('loaded');
    path.openGate();
    const endMs = clock.now();
    return {
      epoch: path.epoch,
      reason,
      totalMs: endMs - startMs,
      drainMs: drainedMs - startMs,
      pauseMs: endMs - pausedMs,
      ...(inexact > 0 ? { inexact } : {}),
      stateBytes: relay.stateBytes - stateBytes,
      releasedFrames,
      matchedFrames,
      atMs: clock.wall(),
    };
  }

  /** An operator may have stopped the PVM since the checkpoint began; QEMU would resume it at the end of the checkpoint. */
  private async untilPvmRuns(): Promise<void> {
    while (this.standing() !== null && this.aborted === null) {
      this.progress++;
      await sleep(this.timers, STANDING_POLL_MS);
    }
    if (this.aborted !== null) throw this.aborted;
  }

  /** Asks QEMU to begin, until it does. */
  private async ask(): Promise<void> {
    let cancel: () => void = () => {};
    const again = () => {
      cancel = this.timers.after(ASK_AGAIN_MS, () => {
        // A QEMU that is gone ends the relay, and that ends the checkpoint.
        this.requestCheckpoint().catch(() => {});
        again();
      });
    };
    const begun = this.step('request');
    await this.requestCheckpoint();
    again();
    try {
      await Promise.race([begun, this.aborting]);
    } finally {
      cancel();
    }
  }

  /** Whether nothing but the secondary is waited for, or the PVM's state on its way there. */
  private get waitsForSecondary(): boolean {
    const { waiting } = this;
    return waiting.has('gated') || waiting.has('reply') || waiting.has('received') || waiting.has('loaded');
  }

  private matchedSinceLast(): number {
    const { matched } = this.path.comparator.counters;
    const since = matched - this.matchedBefore;
    this.matchedBefore = matched;
    return since;
  }

  private resume(step: Step): void {
    const resume = this.waiting.get(step);
    if (resume === undefined) this.seen.add(step);
    else {
      this.waiting.delete(step);
      resume();
    }
  }

  private step(step: Step): Promise<void> {
    if (this.seen.delete(step)) return Promise.resolve();
    return new Promise((resolve) => this.waiting.set(step, resolve));
  }
}
