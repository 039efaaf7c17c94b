/**
 * Watches whether a QEMU replies, and whether its VM stands for another reason than a checkpoint.
 *
 * Goal: a VM that is of no use is noticed in a stated time, also when nobody asks it for anything; and none that stands is copied
 * over one that runs. QEMU's process lives in all these cases, and its sockets are open.
 *
 * Tracked: one question (`query-status`), and for how long QEMU has not replied to it; the run state; what QEMU has reported
 * of its reasons.
 *
 * | what happens                                      | then                                                                |
 * |---------------------------------------------------|---------------------------------------------------------------------|
 * | `silenceMsMax` / ASKS_PER_SILENCE are over         | asks, unless a question is open                                     |
 * | a question has been open for `silenceMsMax`        | `hung`                                                              |
 * | a reply                                           | its run state is what the VM does                                   |
 * | STOP, SUSPEND                                     | asks why; until the reply comes the VM may not be copied            |
 * | RESUME, WAKEUP                                    | there is no trouble                                                 |
 * | BLOCK_IO_ERROR, SHUTDOWN                          | remembers the reason for the run state that follows                 |
 *
 * Silence that counts. While state is copied QEMU's threads hold its lock, and QMP waits legitimately: in a checkpoint
 * (`Transfer.isCheckpointing`), and in a first copy as long as bytes move (`Transfer.bytes`). Then nothing is asked or counted: a
 * checkpoint that makes no progress ends by a limit of its own (checkpoint/primary-barrier.ts). A checkpoint that waits for a PVM which
 * an operator has stopped has no such limit: there silence counts, on both nodes. Time that this process itself was paused does not
 * count.
 *
 * Limits: one question at a time, for QEMU queues few commands and a late reply must find its question. Failure: a connection
 * that closes ends the watch, as `stop` does; whoever has the connection notices that.
 */
import type { Clock, Timers } from '../io/clock.ts';
import type { Instant } from '../units.ts';
import { isObject, type JsonObject, type Qmp, type QmpEvent } from './qmp.ts';
import { hung, troubleOf, type VmTrouble } from './vm-trouble.ts';

/** Silence is noticed an eighth of `silenceMsMax` late at most. A question takes QEMU half a millisecond. */
const ASKS_PER_SILENCE = 8;
/** The watch itself judges silence: a question that QMP gave up would leave its place to the next one, and QEMU has few. */
const QUESTION_MS_MAX = 24 * 3600 * 1000;

/** What this node copies from or to the VM just now. */
export type Transfer = {
  /** a checkpoint has stopped the VM, or is about to: by a message that its QEMU has got, or gets next */
  readonly isCheckpointing: boolean;
  /** bytes of state so far: they move while QEMU lives */
  readonly bytes: number;
};

export type VmWatchEvents = {
  /** The trouble has changed; null: it is over. */
  changed(trouble: VmTrouble | null): void;
  /** A trouble lasts; called with each question that would be due. */
  lasts(trouble: VmTrouble): void;
  /** The guest has rebooted; its VM runs on. */
  rebooted(): void;
};

export class VmWatch {
  private readonly qmp: Qmp;
  private readonly clock: Clock;
  private readonly timers: Timers;
  private readonly silenceMsMax: number;
  private readonly transfer: () => Transfer;
  /** this node itself has stopped the VM, and resumes it */
  private readonly isOwnStop: () => boolean;
  private readonly events: VmWatchEvents;
  private readonly stopListening: () => void;
  private cancelTick = (): void => {};
  private over = false;
  private current: VmTrouble | null = null;
  private question: 'none' | 'open' | 'again' = 'none';
  /** it has stopped, and it is not known why */
  private isUnexplained = false;
  /** what QEMU has said of the reason for which it is about to stop */
  private why: string | null = null;
  /** what is wrong with it although it runs */
  private broken: VmTrouble | null = null;
  private silentMs = 0;
  private tickMs: Instant;
  private bytes = 0;

  constructor(options: {
    qmp: Qmp;
    clock: Clock;
    timers: Timers;
    silenceMsMax: number;
    transfer: () => Transfer;
    isOwnStop: () => boolean;
    events: VmWatchEvents;
  }) {
    this.qmp = options.qmp;
    this.clock = options.clock;
    this.timers = options.timers;
    this.silenceMsMax = options.silenceMsMax;
    this.transfer = options.transfer;
    this.isOwnStop = options.isOwnStop;
    this.events = options.events;
    this.tickMs = this.clock.now();
    this.stopListening = this.qmp.onEvent((event) => this.onEvent(event));
    this.later();
  }

  stop(): void {
    this.over = true;
    this.cancelTick();
    this.stopListening();
  }

  /** The VM seems to run, and may not be the one VM of the service any more: its disk fails, and QEMU hides that from the guest. */
  fail(message: string): void {
    if (this.over || this.broken !== null) return;
    this.broken = { kind: 'failing', state: null, message, sinceMs: this.clock.now() };
    if (this.current === null) this.change(null);
  }

  get trouble(): VmTrouble | null {
    return this.current;
  }

  /** For how long QEMU has not replied to the open question. */
  get silenceMs(): number {
    return this.silentMs;
  }

  /** Why the VM may not be copied now, or null. */
  get standing(): string | null {
    if (this.current !== null) return this.current.message;
    return this.isUnexplained ? 'the VM has just stopped' : null;
  }

  /** The same for a state that is to replace the VM's: a guest that sleeps may get one. */
  get unloadable(): string | null {
    return this.current?.kind === 'asleep' ? null : this.standing;
  }

  private onEvent({ event, data }: QmpEvent): void {
    switch (event) {
      case 'STOP':
      case 'SUSPEND':
        if (this.transfer().isCheckpointing || this.isOwnStop()) return;
        this.isUnexplained = true;
        this.ask();
        return;
      case 'RESUME':
      case 'WAKEUP':
        this.isUnexplained = false;
        this.why = null;
        this.replied();
        this.change(null);
        return;
      case 'RESET':
        if (data.guest === true) this.events.rebooted();
        return;
      case 'SHUTDOWN':
        this.why = typeof data.reason === 'string' ? data.reason : null;
        return;
      case 'BLOCK_IO_ERROR':
        if (data.action === 'stop') this.why = ioError(data);
        return;
      default:
    }
  }

  private ask(): void {
    if (this.question !== 'none') {
      // Its reply may be older than what has happened.
      this.question = 'again';
      return;
    }
    this.question = 'open';
    this.qmp.execute('query-status', undefined, { timeoutMs: QUESTION_MS_MAX }).then(
      (reply) => this.onReply(reply),
      () => {
        // The connection is closed.
        this.question = 'none';
      },
    );
  }

  private onReply(reply: unknown): void {
    const { question } = this;
    this.question = 'none';
    if (this.over) return;
    this.replied();
    if (question === 'again') {
      this.ask();
      return;
    }
    const state = isObject(reply) && typeof reply.status === 'string' ? reply.status : '';
    // In both cases the VM is about to run again.
    if (this.transfer().isCheckpointing || (state === 'paused' && this.isOwnStop())) return;
    this.isUnexplained = false;
    if (this.current?.state !== state) this.change(troubleOf(state, this.why, this.clock.now()));
  }

  private replied(): void {
    this.silentMs = 0;
    if (this.current?.kind === 'hung') this.change(null);
  }

  private change(next: VmTrouble | null): void {
    const trouble = next ?? this.broken;
    if (trouble === this.current) return;
    this.current = trouble;
    this.events.changed(trouble);
  }

  private later(): void {
    this.cancelTick = this.timers.after(this.silenceMsMax / ASKS_PER_SILENCE, () => this.tick());
  }

  private tick(): void {
    const nowMs = this.clock.now();
    const passedMs = Math.min(nowMs - this.tickMs, (2 * this.silenceMsMax) / ASKS_PER_SILENCE);
    this.tickMs = nowMs;
    this.later();
    const { isCheckpointing, bytes } = this.transfer();
    const hasMoved = bytes !== this.bytes;
    this.bytes = bytes;
    if (isCheckpointing || hasMoved) this.silentMs = 0;
    else if (this.question !== 'none') this.silentMs += passedMs;
    if (this.silentMs >= this.silenceMsMax && this.current?.kind !== 'hung')
      this.change(hung(this.silentMs, nowMs));
    else if (this.current !== null) this.events.lasts(this.current);
    if (!isCheckpointing && this.question === 'none') this.ask();
  }
}

/** Returns what BLOCK_IO_ERROR says, for people. */
function ioError({ device, 'qom-path': path, operation, nospace }: JsonObject): string {
  const name = [device, path].find((one) => typeof one === 'string' && one !== '') ?? 'a disk';
  return `${operation === 'write' ? 'write to' : 'read from'} ${String(name)}${nospace === true ? ', no space left' : ''}`;
}
