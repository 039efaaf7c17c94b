/**
 * The epoch barrier, secondary side.
 *
 * GATE: the SVM has been sent all input before it. The barrier sends GATED when the SVM has read that, or after DRAIN_MS_MAX.
 * REPLY: the SVM has stopped. The barrier reads its remaining output, sends it, and only then passes REPLY on. Until RECEIVED
 *   it reads no more: QEMU continues after RECEIVED without waiting, and the SVM's next output belongs to the next epoch.
 * RECEIVED: the SVM owns the PVM's state. This is the commit: from here on this node's SVM is what clients know.
 * LOADED: the SVM runs; nothing has to be waited for.
 *
 * If the link is lost between RECEIVED and LOADED, only QEMU knows whether the SVM continues from its own state or from the
 * PVM's. The relay reads its stream to the end before it closes (migration-relay.ts), so a RECEIVED still arrives here.
 *
 * Limits and failure as on the primary's side (primary-barrier.ts), but for one: output that cannot be read in time ends the
 * session. In the next epoch it would pass for output from the PVM's state.
 */

import type { SecondaryPath } from '../datapath/secondary-path.ts';
import { ColoError } from '../error.ts';
import type { Clock, Timers } from '../io/clock.ts';
import type { LinkChannel } from '../link/link-channel.ts';
import { MESSAGE } from '../link/link-protocol.ts';
import type { ReverseMessage } from './colo-messages.ts';
import type { MigrationRelay } from './migration-relay.ts';
import { SECONDARY_STALL_MS_MAX } from './stall-watch.ts';
import { until } from './until.ts';

/** Half of what the primary's clients wait for a secondary at most, so that its wait for GATED ends by a message. */
const DRAIN_MS_MAX = SECONDARY_STALL_MS_MAX / 2;
const EXHAUST_MS_MAX = 1000;
const OUTPUT_UNREAD = `the stopped VM's last output could not be read in ${EXHAUST_MS_MAX} ms: the link takes too little`;

export class SecondaryBarrier {
  private readonly path: SecondaryPath;
  private readonly link: LinkChannel;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly standing: () => string | null;
  private readonly onCommit: () => void;
  private readonly stateBytes: () => number;
  /** what had come from the primary when QEMU began to wait for its next message; null: no checkpoint is under way */
  private waitsAtBytes: number | null = null;

  constructor(options: {
    path: SecondaryPath;
    link: LinkChannel;
    clock: Clock;
    timers: Timers;
    /** why the SVM may get no state now, or null */
    standing: () => string | null;
    /** bytes that have come from the primary for the SVM's QEMU */
    stateBytes: () => number;
    onCommit: () => void;
  }) {
    this.path = options.path;
    this.link = options.link;
    this.clock = options.clock;
    this.timers = options.timers;
    this.standing = options.standing;
    this.stateBytes = options.stateBytes;
    this.onCommit = options.onCommit;
  }

  /**
   * QEMU stops the SVM or loads the state, and its threads may hold its lock. They do not while it waits for REQUEST or for the state:
   * a PVM that an operator has stopped delays both for any time (primary-barrier.ts), and a QEMU that hangs meanwhile is noticed.
   */
  get isCheckpointing(): boolean {
    return this.waitsAtBytes !== null && this.stateBytes() !== this.waitsAtBytes;
  }

  async gate(epoch: number): Promise<void> {
    this.path.endOfEpoch(epoch);
    const { clock, timers } = this;
    // A QEMU whose VM stands for another reason may abort. Its node then ends the pair, or the primary does for want of GATED.
    if (!(await until(clock, timers, DRAIN_MS_MAX, () => this.standing() === null))) return;
    this.waitsAtBytes = this.stateBytes();
    this.path.linkBatchEnd();
    const drained = await until(clock, timers, DRAIN_MS_MAX, () => this.path.inputDrained);
    this.link.send(MESSAGE.gated, { epoch, drained });
  }

  async message(relay: MigrationRelay, message: ReverseMessage): Promise<void> {
    if (message === 'reply') {
      this.path.readRest();
      const all = await until(this.clock, this.timers, EXHAUST_MS_MAX, () => this.path.outputExhausted);
      if (!all) throw new ColoError('COLO_CHECKPOINT_STALLED', OUTPUT_UNREAD);
      this.path.stop();
      this.link.flush();
      this.waitsAtBytes = this.stateBytes();
    } else if (message === 'received') {
      this.path.commit();
      this.onCommit();
    }
    if (message === 'loaded') this.waitsAtBytes = null;
    relay.pass(message);
  }
}
