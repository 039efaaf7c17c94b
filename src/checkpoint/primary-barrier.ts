/**
 * The epoch barrier, primary side: one checkpoint, exactly.
 *
 * Goal: rules 3 and 6. At the moment when the PVM's state is taken, both VMs or neither have consumed each frame; when the
 * SVM owns that state, everything held is released, once, and the next epoch begins.
 *
 * Phases. The relay delays QEMU's message of each phase until it is safe to pass it on:
 *   1 gate     the gate retains input; GATE goes to the secondary after the last input; QEMU is asked to begin
 *   2 drain    until the PVM has read its input, the secondary sends GATED (so has the SVM), and REQUEST has arrived
 *   3 reply    the SVM has stopped and its output has been sent; the PVM stops when REPLY reaches it
 *   4 commit   RECEIVED: the PVM is stopped, the SVM owns the state. Read the PVM's remaining output, then commit
 *   5 loaded   the SVM runs; the PVM runs when LOADED reaches it; the gate opens
 *
 * Limits: a VM that reads no input (its receive ring is full and its guest hangs) is waited for `DRAIN_MS_MAX`. Then the
 * checkpoint is taken all the same and reported as inexact, since without it nothing would ever leave again.
 * Failure: `abort` (link lost, QEMU's stream closed) ends a running checkpoint; the state machine decides what happens next.
 */

import type { PrimaryPath } from '../datapath/primary-path.ts';
import { ColoError } from '../error.ts';
import type { Clock, Timers } from '../io/clock.ts';
import type { LinkChannel } from '../link/link-channel.ts';
import { MESSAGE } from '../link/link-protocol.ts';
import type { ReverseMessage } from './colo-messages.ts';
import type { MigrationRelay } from './migration-relay.ts';
import type { CheckpointReason, CheckpointReport } from './report.ts';
import { until } from './until.ts';

const DRAIN_MS_MAX = 2000;
/**
 * QEMU forgets a request that arrives before it has finished the previous checkpoint (qemu_event_reset in
 * migration/colo.c), so a request without effect is repeated. A superfluous one only costs one more checkpoint.
 */
const ASK_AGAIN_MS = 200;
/** Without a new phase or a byte of state for this long, one of the two QEMUs hangs. */
const STALL_MS_MAX = 10_000;
/** How exactly that is measured. */
const STALL_POLL_MS = 100;
/** The PVM is stopped and its last output is in a socket: only this node's own reading is waited for. */
const EXHAUST_MS_MAX = 1000;

type Step = 'request' | 'gated' | ReverseMessage;

export class PrimaryBarrier {
  private readonly path: PrimaryPath;
  private readonly relay: MigrationRelay;
  private readonly link: LinkChannel;
  private readonly requestCheckpoint: () => Promise<void>;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly waiting = new Map<Step, () => void>();
  private readonly seen = new Set<Step>();
  private aborted: ColoError | null = null;
  private aborting: Promise<never> | null = null;
  private rejectRun: (cause: ColoError) => void = () => {};
  private running = false;
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
    clock: Clock;
    timers: Timers;
  }) {
    this.path = options.path;
    this.relay = options.relay;
    this.link = options.link;
    this.requestCheckpoint = options.requestCheckpoint;
    this.clock = options.clock;
    this.timers = options.timers;
    this.matchedBefore = options.path.comparator.counters.matched;
  }

  get isRunning(): boolean {
    return this.running;
  }

  /** The relay ('request' and QEMU's messages) or the link (`gated`) notifies of a phase. */
  reached(step: Step): void {
    this.progress++;
    const resume = this.waiting.get(step);
    if (resume === undefined) this.seen.add(step);
    else {
      this.waiting.delete(step);
      resume();
    }
  }

  /** The secondary has sent its VM all input; `drained` is false if the VM has not read all of it in time. */
  gated({ drained }: { drained: boolean }): void {
    this.undrained = drained ? 0 : 1;
    this.reached('gated');
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
    const cancelWatch = this.watchForStall();
    this.aborting = new Promise<never>((_, reject) => {
      this.rejectRun = reject;
    });
    try {
      return await Promise.race([this.phases(reason, onCommit), this.aborting]);
    } finally {
      cancelWatch();
      this.running = false;
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
    const drainedMs = clock.now();
    relay.passRequest();

    await this.step('reply');
    const pausedMs = clock.now();
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

  /** Aborts when nothing has moved for STALL_MS_MAX. Time that this process itself was paused does not count. */
  private watchForStall(): () => void {
    let seen = -1;
    let stillMs = 0;
    let lastMs = this.clock.now();
    let cancel: () => void = () => {};
    const watch = () => {
      const nowMs = this.clock.now();
      const moved = this.progress + this.relay.stateBytes;
      stillMs = moved === seen ? stillMs + Math.min(nowMs - lastMs, 2 * STALL_POLL_MS) : 0;
      seen = moved;
      lastMs = nowMs;
      if (stillMs < STALL_MS_MAX) {
        cancel = this.timers.after(STALL_POLL_MS, watch);
        return;
      }
      const text = `a checkpoint made no progress for ${STALL_MS_MAX} ms: a QEMU hangs`;
      this.abort(new ColoError('COLO_CHECKPOINT_STALLED', text));
    };
    watch();
    return () => cancel();
  }

  private matchedSinceLast(): number {
    const { matched } = this.path.comparator.counters;
    const since = matched - this.matchedBefore;
    this.matchedBefore = matched;
    return since;
  }

  private step(step: Step): Promise<void> {
    if (this.seen.delete(step)) return Promise.resolve();
    return new Promise((resolve) => this.waiting.set(step, resolve));
  }
}
