/**
 * COLO's verbs on one QEMU.
 *
 * Goal: say to QEMU what a pair needs (prepare, listen, migrate, checkpoint, fail over, protect again) and know
 * that it was done. QEMU takes a `migrate` whose capabilities were refused for an ordinary one, which ends with the
 * source stopped; so every reply is checked, and each verb asks for the state that it needs first.
 *
 * The order that works, again and again, on 11.1 (a survivor of either role counts as the primary):
 *   secondary  -incoming defer; capabilities events, return-path, x-colo; parameters; migrate-incoming
 *   primary    capabilities events, return-path, x-colo; parameters; migrate; query-migrate until `colo`
 *   checkpoint migrate-set-parameters x-checkpoint-delay
 *   failover   yank (out of band), x-colo-lost-heartbeat, until query-colo-status says `none` and query-status `running`
 *   again      wait until query-yank lists no migration, then as the primary above
 * Capabilities and parameters outlive a failover in QEMU; setting them again costs 2 ms and assumes nothing.
 *
 * Checkpoints: QEMU's own timer is off for good at a delay of 49.7 days, and setting the delay, to whatever value,
 * starts a checkpoint when in COLO and does nothing otherwise. Requests that come during one are coalesced.
 * There is no event for a commit: the migration relay sees it.
 *
 * QEMU says that it is in COLO some moments before its COLO thread has made what a request for a checkpoint and a
 * failover touch; one that comes in between aborts it (qemu_event_set: `ev->initialized`, seen on 11.1), and the
 * last VM with it. READY is no sign of more: it comes from the other QEMU. So a primary is asked for either only after
 * the thread's first event: RESUME after MIGRATION `colo`, or COLO_EXIT, which a broken stream brings.
 *
 * Failover: a COLO thread may hang in a read or a write on a dead peer, on old versions with the big QEMU lock
 * held, and then no ordinary command gets through. `yank` runs out of band and breaks the stream. It also kills
 * an incoming QEMU that has not yet reached COLO: that one had no complete state to go on from.
 *
 * Parameters that matter: bandwidth, only in the first pass (a checkpoint is sent without a limit), and
 * downtime-limit, which is how long the last part of the first pass may stop the guest. Other migration
 * parameters (postcopy, multifd, throttling) play no role.
 *
 * Without KVM, QEMU loses writes: when it collects the dirty pages of a block and all of them are queued to be sent
 * already, it clears their dirty bits and leaves the vCPUs' cached translations alone, through which the guest goes
 * on to write unseen (num_dirty in physical_memory_sync_dirty_bitmap, seen on 11.1). Of a guest at work, every
 * second first copy then misses pages, and so does the secondary's guest, for ever. It is right when nothing is
 * queued at the moment of collecting, or when the guest cannot write around it. So under TCG the guest stands for
 * the first collection, when all pages are queued (some milliseconds), and a downtime-limit of 0 lets QEMU
 * collect a second time only when everything is sent: at the end, with the guest stopped. Every later collection is
 * a checkpoint's, which starts with nothing queued. KVM keeps its own log and is not concerned.
 *
 * Limits: every verb has a deadline. Failure: COLO_QEMU_FAILOVER, COLO_QEMU_MIGRATION, COLO_QEMU_STATE, each with
 * what QEMU said, or the QMP errors as they are.
 */
import { ColoError } from '../error.ts';
import { type Clock, sleep, systemClock, systemTimers, type Timers } from '../io/clock.ts';
import type { QemuCapabilities } from './capabilities.ts';
import { checkUnixPath } from './command-line.ts';
import { isObject, type JsonObject, type Qmp, type QmpEvent, QmpRefusedError } from './qmp.ts';

/** u32 milliseconds: 49.7 days. 0 would make QEMU's main loop spin. */
export const CHECKPOINT_DELAY_OFF_MS = 4294967295;
/** One TiB/s: no limit in practice; QEMU's default of 128 MiB/s is one, on any machine. */
export const BANDWIDTH_BYTES_PER_S = 2 ** 40;
/**
 * As long as TCP takes to try again: nobody notices. QEMU stops the guest as soon as it thinks that the rest fits
 * into this, so a minute here would freeze a large guest for its whole first pass.
 */
export const DOWNTIME_MS_MAX = 1000;
/**
 * So slow that the first pass cannot end while the guest stands: QEMU then sends one buffer (32 KiB) each 100 ms. It
 * counts in whole bytes per 100 ms, and 0 of them means no limit, so that less than 10 is none at all.
 */
const BANDWIDTH_HELD_BYTES_PER_S = 10;
export const FAILOVER_MS = 5000;
/** Setting up takes milliseconds. */
const SETUP_MS = 5000;
/** A state change in QEMU takes 1 to 5 ms, a question 0.4 ms. */
const POLL_MS = 1;

export type ColoRole = 'primary' | 'secondary';

interface Deadline {
  /** At least 1. Throws when the time is up. */
  remainingMs(): number;
}

export class ColoVm {
  readonly #qmp: Qmp;
  readonly #capabilities: QemuCapabilities;
  readonly #clock: Clock;
  readonly #timers: Timers;
  /** The primary's last `migrate`: not in COLO, in COLO by name, with a COLO thread that has begun. */
  #thread: 'none' | 'named' | 'begun' = 'none';

  constructor(
    qmp: Qmp,
    capabilities: QemuCapabilities,
    time: { readonly clock: Clock; readonly timers: Timers } = { clock: systemClock, timers: systemTimers },
  ) {
    this.#qmp = qmp;
    this.#capabilities = capabilities;
    this.#clock = time.clock;
    this.#timers = time.timers;
    qmp.onEvent((event) => this.#onEvent(event));
  }

  /** Before listenIncoming or startMigration. Changes nothing in a VM that runs. */
  async prepare(role: ColoRole): Promise<void> {
    const status = await this.#runStatus();
    if ((status === 'inmigrate') !== (role === 'secondary')) {
      throw new ColoError('COLO_QEMU_STATE', `this QEMU cannot become the ${role}: its VM is ${status}`);
    }
    // One call: x-colo alone is refused where it requires return-path.
    await this.#qmp.execute('migrate-set-capabilities', {
      capabilities: [
        { capability: 'events', state: true },
        { capability: 'return-path', state: this.#capabilities.returnPath },
        { capability: 'x-colo', state: true },
      ],
    });
    await this.#qmp.execute('migrate-set-parameters', {
      'x-checkpoint-delay': CHECKPOINT_DELAY_OFF_MS,
      'max-bandwidth': BANDWIDTH_BYTES_PER_S,
      'downtime-limit': this.#capabilities.accel === 'tcg' ? 0 : DOWNTIME_MS_MAX,
    });
  }

  /** The secondary's side; returns when QEMU listens at the path. */
  async listenIncoming(unixPath: string): Promise<void> {
    checkUnixPath(unixPath);
    await this.#qmp.execute('migrate-incoming', { uri: `unix:${unixPath}` });
  }

  /** The primary's side; returns when QEMU has begun. See waitForColo. */
  async startMigration(unixPath: string, options: { readonly deadlineMs?: number } = {}): Promise<void> {
    checkUnixPath(unixPath);
    // A second `migrate` during COLO is refused and ends COLO all the same.
    const status = await this.#migrationStatus();
    if (!isOver(status)) {
      throw new ColoError('COLO_QEMU_STATE', `cannot start a migration: QEMU's last one is still ${status}`);
    }
    this.#thread = 'none';
    if (this.#capabilities.accel === 'kvm') await this.#migrate(unixPath);
    else await this.#migrateFromStandstill(unixPath, options.deadlineMs ?? SETUP_MS);
  }

  async #migrate(unixPath: string): Promise<void> {
    await this.#qmp.execute('migrate', { uri: `unix:${unixPath}` });
  }

  async #migrateFromStandstill(unixPath: string, deadlineMs: number): Promise<void> {
    const failure = `QEMU has not begun its migration in ${deadlineMs} ms`;
    const deadline = startDeadline(
      this.#clock,
      deadlineMs,
      () => new ColoError('COLO_QEMU_MIGRATION', failure),
    );
    // A guest that is continued while QEMU ends the first pass would run where it must stand.
    await this.#qmp.execute('migrate-set-parameters', { 'max-bandwidth': BANDWIDTH_HELD_BYTES_PER_S });
    await this.#qmp.execute('stop');
    try {
      await this.#migrate(unixPath);
      while (field(await this.#ask('query-migrate', deadline), 'status') === 'setup') {
        await sleep(this.#timers, Math.min(POLL_MS, deadline.remainingMs()));
      }
    } finally {
      await this.#qmp.execute('cont');
    }
    await this.#qmp.execute('migrate-set-parameters', { 'max-bandwidth': BANDWIDTH_BYTES_PER_S });
  }

  /** Either side: returns when the first copy is complete and the pair runs in lock-step. */
  async waitForColo(options: { readonly deadlineMs: number; readonly signal?: AbortSignal }): Promise<void> {
    const text = `the VM's state was not copied in ${options.deadlineMs} ms`;
    const deadline = startDeadline(
      this.#clock,
      options.deadlineMs,
      () => new ColoError('COLO_QEMU_MIGRATION', text),
    );
    for (;;) {
      options.signal?.throwIfAborted();
      const reply = await this.#qmp.execute('query-migrate', undefined, {
        timeoutMs: deadline.remainingMs(),
      });
      const status = field(reply, 'status') ?? 'none';
      if (status === 'colo') return;
      if (isOver(status)) {
        const why = field(reply, 'error-desc') ?? 'QEMU gives no reason';
        throw new ColoError('COLO_QEMU_MIGRATION', `the migration ended as ${status} without COLO: ${why}`);
      }
      await sleep(this.#timers, Math.min(10, deadline.remainingMs()));
    }
  }

  /**
   * The primary's side, whose stream has brought READY; returns when QEMU has been told. The checkpoint itself is seen in
   * the relayed stream.
   */
  async requestCheckpoint(options: { readonly deadlineMs?: number } = {}): Promise<void> {
    if (!this.#hasBegun()) {
      const deadlineMs = options.deadlineMs ?? SETUP_MS;
      const failure = `QEMU has not begun COLO in ${deadlineMs} ms`;
      const deadline = startDeadline(
        this.#clock,
        deadlineMs,
        () => new ColoError('COLO_QEMU_STATE', failure),
      );
      while (!this.#hasBegun()) await sleep(this.#timers, Math.min(POLL_MS, deadline.remainingMs()));
    }
    await this.#qmp.execute('migrate-set-parameters', { 'x-checkpoint-delay': CHECKPOINT_DELAY_OFF_MS });
  }

  /**
   * Either side: the other one is gone, this VM runs on alone. Returns when it runs. Harmless on a VM that
   * runs alone already.
   */
  async failover(options: { readonly deadlineMs?: number } = {}): Promise<void> {
    const deadlineMs = options.deadlineMs ?? FAILOVER_MS;
    let last = 'it answered nothing';
    const deadline = startDeadline(
      this.#clock,
      deadlineMs,
      () => new Error(`not done in ${deadlineMs} ms, ${last}`),
    );
    try {
      if (await this.#hasMigrationStream(deadline)) await this.#yank(deadline);
      let told = false;
      for (;;) {
        // In this order: the mode turns to `none` while the VM is stopped, so that `running` before is no sign.
        const mode = field(await this.#ask('query-colo-status', deadline), 'mode') ?? 'none';
        if (!told && (mode === 'secondary' || (mode === 'primary' && this.#hasBegun()))) {
          told = await this.#lostHeartbeat(deadline);
        }
        const status = field(await this.#ask('query-status', deadline), 'status') ?? '?';
        if (mode === 'none' && status === 'running') return;
        last = `COLO mode ${mode}, VM ${status}`;
        if (mode === 'none' && status === 'inmigrate') throw new Error('it never got a complete state');
        await sleep(this.#timers, Math.min(POLL_MS, deadline.remainingMs()));
      }
    } catch (error) {
      const text = `QEMU did not fail over: ${(error as Error).message}`;
      throw new ColoError('COLO_QEMU_FAILOVER', text, { cause: error });
    }
  }

  /** A survivor may become the primary of a new pair: waits until the old migration is cleaned up, then prepares. */
  async resetAfterFailover(options: { readonly deadlineMs?: number } = {}): Promise<void> {
    const deadlineMs = options.deadlineMs ?? FAILOVER_MS;
    const failure = `QEMU has not cleaned up its last migration in ${deadlineMs} ms`;
    await this.#waitUntilOver(
      startDeadline(this.#clock, deadlineMs, () => new ColoError('COLO_QEMU_MIGRATION', failure)),
    );
    await this.prepare('primary');
  }

  /**
   * Ends a first copy that has not reached COLO; the primary runs on. If COLO begins in that very moment, it fails
   * at its deadline, and failover() puts things right. It breaks the stream instead of asking with migrate_cancel:
   * on 11.1 that one, sent right after `migrate`, hangs QEMU's main loop until the stream breaks; in COLO it ends
   * the checkpoints and leaves the primary `cancelling` for good, unable to take a new secondary.
   */
  async cancel(options: { readonly deadlineMs?: number } = {}): Promise<void> {
    const deadlineMs = options.deadlineMs ?? FAILOVER_MS;
    const failure = `QEMU has not ended its migration in ${deadlineMs} ms`;
    const deadline = startDeadline(
      this.#clock,
      deadlineMs,
      () => new ColoError('COLO_QEMU_MIGRATION', failure),
    );
    const status = field(await this.#ask('query-migrate', deadline), 'status') ?? 'none';
    if (status === 'colo') {
      throw new ColoError('COLO_QEMU_STATE', 'nothing to cancel: the VM is in COLO; use failover');
    }
    if (await this.#hasMigrationStream(deadline)) await this.#yank(deadline);
    await this.#waitUntilOver(deadline);
  }

  /** QEMU ends. It may close the connection before or after it answers; its process tells when it has gone. */
  async quit(): Promise<void> {
    try {
      await this.#qmp.execute('quit');
    } catch (error) {
      if (!(error instanceof ColoError && error.code === 'COLO_QMP_CLOSED')) throw error;
    }
  }

  #onEvent({ event, data }: QmpEvent): void {
    if (event === 'MIGRATION' && data.status === 'colo') this.#thread = 'named';
    else if (event === 'COLO_EXIT' || (event === 'RESUME' && this.#thread === 'named'))
      this.#thread = 'begun';
  }

  #hasBegun(): boolean {
    return this.#thread === 'begun';
  }

  async #waitUntilOver(deadline: Deadline): Promise<void> {
    for (;;) {
      const status = field(await this.#ask('query-migrate', deadline), 'status') ?? 'none';
      if (isOver(status) && !(await this.#hasMigrationStream(deadline))) return;
      await sleep(this.#timers, Math.min(POLL_MS, deadline.remainingMs()));
    }
  }

  async #yank(deadline: Deadline): Promise<void> {
    const timeoutMs = deadline.remainingMs();
    try {
      await this.#qmp.executeOob('yank', { instances: [{ type: 'migration' }] }, { timeoutMs });
    } catch (error) {
      // It went away between the question and the command.
      if (!(error instanceof QmpRefusedError)) throw error;
    }
  }

  /** False when QEMU is not in COLO. */
  async #lostHeartbeat(deadline: Deadline): Promise<boolean> {
    try {
      await this.#ask('x-colo-lost-heartbeat', deadline);
      return true;
    } catch (error) {
      if (!(error instanceof QmpRefusedError)) throw error;
      return false;
    }
  }

  async #hasMigrationStream(deadline: Deadline): Promise<boolean> {
    // Out of band: an ordinary command would wait for the lock that the hung stream holds.
    const timeoutMs = deadline.remainingMs();
    const instances = await this.#qmp.executeOob<unknown>('query-yank', undefined, { timeoutMs });
    return Array.isArray(instances) && instances.some((entry) => field(entry, 'type') === 'migration');
  }

  async #ask(command: string, deadline: Deadline): Promise<unknown> {
    try {
      return await this.#qmp.execute(command, undefined, { timeoutMs: deadline.remainingMs() });
    } catch (error) {
      // Of a question asked in the last millisecond, the deadline has more to say than its timeout.
      if (error instanceof ColoError && error.code === 'COLO_QMP_TIMEOUT') deadline.remainingMs();
      throw error;
    }
  }

  async #runStatus(): Promise<string> {
    return field(await this.#qmp.execute('query-status'), 'status') ?? '?';
  }

  async #migrationStatus(): Promise<string> {
    return field(await this.#qmp.execute('query-migrate'), 'status') ?? 'none';
  }
}

/** Whether QEMU would take a new `migrate`. */
function isOver(status: string): boolean {
  return status === 'none' || status === 'completed' || status === 'failed' || status === 'cancelled';
}

function field(reply: unknown, name: string): string | undefined {
  const value = isObject(reply) ? (reply as JsonObject)[name] : undefined;
  return typeof value === 'string' ? value : undefined;
}

function startDeadline(clock: Clock, deadlineMs: number, failure: () => Error): Deadline {
  const endsAt = clock.now() + deadlineMs;
  return {
    remainingMs(): number {
      const remaining = Math.ceil(endsAt - clock.now());
      if (remaining <= 0) throw failure();
      return remaining;
    },
  };
}
