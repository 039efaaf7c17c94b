/**
 * COLO's commands to one QEMU.
 *
 * Goal: make QEMU do what a pair needs (prepare, listen, migrate, checkpoint, fail over, get a new secondary), and know that it
 * did. QEMU executes a `migrate` whose capabilities were refused as an ordinary migration, which ends with the source
 * stopped. Every reply is therefore checked, and each method first checks that QEMU is in the state that it needs.
 *
 * The order of commands that works repeatedly on 11.1 (after a failover the survivor, whatever its role was, is the primary):
 *   secondary  -incoming defer; capabilities events, return-path, x-colo; parameters; migrate-incoming
 *   primary    capabilities events, return-path, x-colo; parameters; migrate; query-migrate until `colo`
 *   checkpoint migrate-set-parameters x-checkpoint-delay
 *   failover   yank (out of band), x-colo-lost-heartbeat, until query-colo-status is `none` and query-status `running`
 *   again      wait until query-yank lists no migration, then as the primary above
 * QEMU keeps capabilities and parameters across a failover. Setting them again costs 2 ms and assumes nothing.
 *
 * Disks need commands before and after these: vm-disks.ts has them, and their order. The streams of one first copy are link/copy.ts's
 * `Copy`.
 *
 * Checkpoints: a delay of 49.7 days turns QEMU's own timer off for good. Setting the delay, to whatever value, starts a
 * checkpoint when QEMU is in COLO and does nothing otherwise. QEMU merges requests that arrive during a checkpoint.
 * There is no event for a commit: the migration relay sees it.
 *
 * QEMU reports COLO some moments before its COLO thread has initialised what a checkpoint request and a failover
 * use. A command that arrives in between aborts QEMU (qemu_event_set: `ev->initialized`, seen on 11.1), and with it the
 * last VM. READY proves no more than that report: the other QEMU sends it. A primary therefore gets either command only after
 * the thread's first event: RESUME after MIGRATION `colo`, or COLO_EXIT, which a broken stream causes.
 *
 * Failover: a COLO thread may hang in a read from or a write to a dead peer. Old versions hold the big QEMU lock
 * meanwhile, and then no ordinary command is executed. `yank` runs out of band and breaks the stream. It also kills
 * an incoming QEMU that has not reached COLO: that one has no complete state to continue from.
 *
 * Parameters that matter: the bandwidth, but only in the first pass (a checkpoint is sent without a limit), and
 * downtime-limit, the time for which the last part of the first pass may stop the guest. Other migration
 * parameters (postcopy, multifd, throttling) play no role.
 *
 * Without KVM, QEMU loses writes. When it collects the dirty pages of a block, and all of them are queued for
 * sending already, it clears their dirty bits and leaves the vCPUs' cached translations alone; through these the guest
 * continues to write unseen (num_dirty in physical_memory_sync_dirty_bitmap, seen on 11.1). With a busy guest, every
 * second first copy then lacks pages, and so does the secondary's guest for good. Collecting is correct if nothing is
 * queued at that moment, or if the guest cannot write around it. Under TCG the guest is therefore stopped for
 * the first collection, when all pages are queued (some milliseconds), and a downtime-limit of 0 lets QEMU
 * collect again only when everything is sent. It then ends the first pass when it collects nothing, which a guest with a
 * processor that always writes hardly ever allows (10000 collections in 5 s, seen on 11.1, and no end). From the
 * PASSES_MAX-th collection on the guest is therefore stopped until COLO begins, which resumes it. Every later collection
 * belongs to a checkpoint, which starts with nothing queued. KVM keeps its own log and is not affected.
 *
 * Limits: every method has a deadline. Failure: COLO_QEMU_FAILOVER, COLO_QEMU_MIGRATION, COLO_QEMU_STATE, each with
 * QEMU's reason, or the QMP error itself.
 */
import { ColoError } from '../error.ts';
import { type Clock, sleep, systemClock, systemTimers, type Timers } from '../io/clock.ts';
import type { QemuCapabilities } from './capabilities.ts';
import { checkUnixPath } from './command-line.ts';
import { isObject, type JsonObject, type Qmp, type QmpEvent, QmpRefusedError } from './qmp.ts';
import { kindOf } from './vm-trouble.ts';

/** The largest u32 of milliseconds: 49.7 days. 0 would make QEMU's main loop spin. */
export const CHECKPOINT_DELAY_OFF_MS = 4294967295;
/** One TiB/s: no limit in practice. QEMU's default, 128 MiB/s, is a limit on any machine. */
export const BANDWIDTH_BYTES_PER_S = 2 ** 40;
/**
 * As long as TCP takes to retransmit: clients do not notice. QEMU stops the guest as soon as it expects that the rest
 * takes no longer than this, so a minute here would stop a large guest for its whole first pass.
 */
export const DOWNTIME_MS_MAX = 1000;
/**
 * So slow that the first pass cannot end while the guest is stopped: QEMU then sends one buffer (32 KiB) each 100 ms. QEMU
 * counts whole bytes per 100 ms and takes 0 of them for no limit, so less than 10 here would be no limit at all.
 */
const BANDWIDTH_LEAST_BYTES_PER_S = 10;
/** QEMU's collections in a first pass before the guest is stopped. A guest that rests now and then allows the end after a few. */
const PASSES_MAX = 20;
export const FAILOVER_MS = 5000;
/** QEMU resumes a VM that leaves COLO within milliseconds: one that stands for longer stands for a reason of its own. */
const STANDS_MS = 100;
/** Setting up takes milliseconds. */
const SETUP_MS = 5000;
/** A state change in QEMU takes 1 to 5 ms, a query 0.4 ms. */
const POLL_MS = 1;

export type ColoRole = 'primary' | 'secondary';

interface Deadline {
  /** Returns at least 1; throws when the time is over. */
  remainingMs(): number;
}

export class ColoVm {
  private readonly qmp: Qmp;
  private readonly capabilities: QemuCapabilities;
  private readonly clock: Clock;
  private readonly timers: Timers;
  /** the primary's last `migrate`: not in COLO, reported as COLO, or with a COLO thread that has begun */
  private thread: 'none' | 'named' | 'begun' = 'none';
  /** how many stops of the guest by this object are not over */
  private stops = 0;
  /** settled unless the guest is being stopped for the end of its first pass */
  private endOfFirstPass: Promise<void> = Promise.resolve();

  constructor(
    qmp: Qmp,
    capabilities: QemuCapabilities,
    time: { readonly clock: Clock; readonly timers: Timers } = { clock: systemClock, timers: systemTimers },
  ) {
    this.qmp = qmp;
    this.capabilities = capabilities;
    this.clock = time.clock;
    this.timers = time.timers;
    qmp.onEvent((event) => this.onEvent(event));
  }

  /** Whether this object has stopped the guest, and resumes it. */
  get isStopping(): boolean {
    return this.stops > 0;
  }

  /** Sets what `listenIncoming` and `startMigration` need. Changes nothing in a VM that runs. */
  async prepare(role: ColoRole): Promise<void> {
    const status = await this.runStatus();
    if ((status === 'inmigrate') !== (role === 'secondary')) {
      throw new ColoError('COLO_QEMU_STATE', `this QEMU cannot become the ${role}: its VM is ${status}`);
    }
    // One call: x-colo alone is refused where it requires return-path.
    await this.qmp.execute('migrate-set-capabilities', {
      capabilities: [
        { capability: 'events', state: true },
        { capability: 'return-path', state: this.capabilities.returnPath },
        { capability: 'x-colo', state: true },
      ],
    });
    await this.qmp.execute('migrate-set-parameters', {
      'x-checkpoint-delay': CHECKPOINT_DELAY_OFF_MS,
      'max-bandwidth': BANDWIDTH_BYTES_PER_S,
      'downtime-limit': this.capabilities.accel === 'tcg' ? 0 : DOWNTIME_MS_MAX,
    });
  }

  /** On a secondary: makes QEMU listen at the path for state; resolves when it does. */
  async listenIncoming(unixPath: string): Promise<void> {
    checkUnixPath(unixPath);
    await this.qmp.execute('migrate-incoming', { uri: `unix:${unixPath}` });
  }

  /** On a primary: makes QEMU send its state to the path; resolves when it has begun. See `waitForColo`. */
  async startMigration(unixPath: string, options: { readonly deadlineMs?: number } = {}): Promise<void> {
    checkUnixPath(unixPath);
    // QEMU refuses a second `migrate` during COLO, and ends COLO all the same.
    const status = await this.migrationStatus();
    if (!isOver(status)) {
      throw new ColoError('COLO_QEMU_STATE', `cannot start a migration: QEMU's last one is still ${status}`);
    }
    await this.endOfFirstPass;
    this.thread = 'none';
    if (this.capabilities.accel === 'kvm') await this.migrate(unixPath);
    else await this.migrateStopped(unixPath, options.deadlineMs ?? SETUP_MS);
  }

  private async migrate(unixPath: string): Promise<void> {
    await this.qmp.execute('migrate', { uri: `unix:${unixPath}` });
  }

  private async migrateStopped(unixPath: string, deadlineMs: number): Promise<void> {
    const failure = `QEMU has not begun its migration in ${deadlineMs} ms`;
    const deadline = startDeadline(
      this.clock,
      deadlineMs,
      () => new ColoError('COLO_QEMU_MIGRATION', failure),
    );
    // A guest that is resumed while QEMU ends the first pass would run where it must be stopped.
    await this.qmp.execute('migrate-set-parameters', { 'max-bandwidth': BANDWIDTH_LEAST_BYTES_PER_S });
    this.stops++;
    try {
      await this.qmp.execute('stop');
      await this.migrate(unixPath);
      while (field(await this.ask('query-migrate', deadline), 'status') === 'setup') {
        await sleep(this.timers, Math.min(POLL_MS, deadline.remainingMs()));
      }
    } finally {
      await this.qmp.execute('cont').finally(() => this.stops--);
    }
    await this.qmp.execute('migrate-set-parameters', { 'max-bandwidth': BANDWIDTH_BYTES_PER_S });
  }

  /** Without KVM: stops the guest so that QEMU's next collection finds nothing. The guest runs again when this resolves. */
  private async endFirstPass(): Promise<void> {
    this.stops++;
    try {
      await this.qmp.execute('stop');
      // COLO resumes the guest when it begins: unless it had begun before QEMU stopped, or never will.
      const mustResume = this.hasBegun();
      while (!mustResume && !this.hasBegun() && !isOver(await this.migrationStatus()))
        await sleep(this.timers, POLL_MS);
      if (mustResume || !this.hasBegun()) await this.resume();
    } catch {
      // QEMU is gone or hangs, which whoever waits for COLO or for a failover finds out.
    } finally {
      this.stops--;
    }
  }

  /** Resumes the guest; QEMU refuses that for a moment while it ends a migration that failed. */
  private async resume(): Promise<void> {
    const failure = `QEMU has not resumed the VM in ${SETUP_MS} ms`;
    const deadline = startDeadline(this.clock, SETUP_MS, () => new ColoError('COLO_QEMU_STATE', failure));
    for (;;) {
      try {
        await this.ask('cont', deadline);
        return;
      } catch (error) {
        if (!(error instanceof QmpRefusedError)) throw error;
        await sleep(this.timers, Math.min(POLL_MS, deadline.remainingMs()));
      }
    }
  }

  /** On either side: resolves when the first copy is complete and the pair runs in COLO. */
  async waitForColo(options: { readonly deadlineMs: number; readonly signal?: AbortSignal }): Promise<void> {
    const text = `the VM's state was not copied in ${options.deadlineMs} ms`;
    const deadline = startDeadline(
      this.clock,
      options.deadlineMs,
      () => new ColoError('COLO_QEMU_MIGRATION', text),
    );
    for (;;) {
      options.signal?.throwIfAborted();
      const reply = await this.qmp.execute('query-migrate', undefined, {
        timeoutMs: deadline.remainingMs(),
      });
      const status = field(reply, 'status') ?? 'none';
      if (status === 'colo') return;
      if (isOver(status)) {
        const why = field(reply, 'error-desc') ?? 'QEMU gives no reason';
        throw new ColoError('COLO_QEMU_MIGRATION', `the migration ended as ${status} without COLO: ${why}`);
      }
      await sleep(this.timers, Math.min(10, deadline.remainingMs()));
    }
  }

  /**
   * On a primary, after READY: asks QEMU for a checkpoint; resolves when QEMU has accepted that. The checkpoint itself
   * shows in the relayed stream.
   */
  async requestCheckpoint(options: { readonly deadlineMs?: number } = {}): Promise<void> {
    if (!this.hasBegun()) {
      const deadlineMs = options.deadlineMs ?? SETUP_MS;
      const failure = `QEMU has not begun COLO in ${deadlineMs} ms`;
      const deadline = startDeadline(this.clock, deadlineMs, () => new ColoError('COLO_QEMU_STATE', failure));
      while (!this.hasBegun()) await sleep(this.timers, Math.min(POLL_MS, deadline.remainingMs()));
    }
    // A guest that is resumed in a checkpoint would change what QEMU is sending.
    await this.endOfFirstPass;
    await this.qmp.execute('migrate-set-parameters', { 'x-checkpoint-delay': CHECKPOINT_DELAY_OFF_MS });
  }

  /**
   * On either side, when the other one is gone: makes this VM continue alone; resolves when it runs. Does no harm to a VM
   * that runs alone already.
   */
  async failover(options: { readonly deadlineMs?: number } = {}): Promise<void> {
    const deadlineMs = options.deadlineMs ?? FAILOVER_MS;
    let last = 'it replied to nothing';
    const deadline = startDeadline(
      this.clock,
      deadlineMs,
      () => new Error(`not done in ${deadlineMs} ms, ${last}`),
    );
    try {
      if (await this.hasMigrationStream(deadline)) await this.yank(deadline);
      let left = false;
      let standsMs: number | null = null;
      for (;;) {
        // The mode first: it becomes `none` while the VM is stopped, so a `running` from before proves nothing.
        const mode = field(await this.ask('query-colo-status', deadline), 'mode') ?? 'none';
        if (!left && (mode === 'secondary' || (mode === 'primary' && this.hasBegun()))) {
          left = await this.lostHeartbeat(deadline);
        }
        const status = field(await this.ask('query-status', deadline), 'status') ?? '?';
        if (mode === 'none' && status === 'running') return;
        // One that stood before COLO began, or that fails again at once.
        standsMs ??= this.clock.now();
        if (mode !== 'none' || kindOf(status) === null) standsMs = null;
        else if (this.clock.now() - standsMs >= STANDS_MS) return;
        last = `COLO mode ${mode}, VM ${status}`;
        if (mode === 'none' && status === 'inmigrate') throw new Error('it never got a complete state');
        await sleep(this.timers, Math.min(POLL_MS, deadline.remainingMs()));
      }
    } catch (error) {
      const text = `QEMU did not fail over: ${(error as Error).message}`;
      throw new ColoError('COLO_QEMU_FAILOVER', text, { cause: error });
    }
  }

  /** Stops the VM, as an operator had before this object resumed it. */
  async stopAgain(): Promise<void> {
    await this.qmp.execute('stop');
  }

  /** Starts a VM that its guest has switched off. */
  async restart(): Promise<void> {
    await this.qmp.execute('system_reset');
    await this.qmp.execute('cont');
  }

  /** Prepares a survivor to be the primary of a new pair, when QEMU has cleaned up its last migration. */
  async resetAfterFailover(options: { readonly deadlineMs?: number } = {}): Promise<void> {
    const deadlineMs = options.deadlineMs ?? FAILOVER_MS;
    const failure = `QEMU has not cleaned up its last migration in ${deadlineMs} ms`;
    await this.waitUntilOver(
      startDeadline(this.clock, deadlineMs, () => new ColoError('COLO_QEMU_MIGRATION', failure)),
    );
    await this.prepare('primary');
  }

  /**
   * Ends a first copy that has not reached COLO; the primary continues. If COLO begins at that very moment, this rejects
   * at its deadline, and `failover` repairs it. It breaks the stream and does not use migrate_cancel:
   * on 11.1 that command, right after `migrate`, hangs QEMU's main loop until the stream breaks; in COLO it ends
   * the checkpoints and leaves the primary `cancelling` for good, unable to take a new secondary.
   */
  async cancel(options: { readonly deadlineMs?: number } = {}): Promise<void> {
    const deadlineMs = options.deadlineMs ?? FAILOVER_MS;
    const failure = `QEMU has not ended its migration in ${deadlineMs} ms`;
    const deadline = startDeadline(
      this.clock,
      deadlineMs,
      () => new ColoError('COLO_QEMU_MIGRATION', failure),
    );
    const status = field(await this.ask('query-migrate', deadline), 'status') ?? 'none';
    if (status === 'colo') {
      throw new ColoError('COLO_QEMU_STATE', 'nothing to cancel: the VM is in COLO; use failover');
    }
    if (await this.hasMigrationStream(deadline)) await this.yank(deadline);
    await this.waitUntilOver(deadline);
  }

  /** Ends QEMU. It may close the connection before or after it replies; `QemuProcess.exited` resolves when it is gone. */
  async quit(): Promise<void> {
    try {
      await this.qmp.execute('quit');
    } catch (error) {
      if (!(error instanceof ColoError && error.code === 'COLO_QMP_CLOSED')) throw error;
    }
  }

  private onEvent({ event, data }: QmpEvent): void {
    if (event === 'MIGRATION' && data.status === 'colo') this.thread = 'named';
    else if (event === 'COLO_EXIT' || (event === 'RESUME' && this.thread === 'named')) this.thread = 'begun';
    else if (event === 'MIGRATION_PASS' && data.pass === PASSES_MAX && this.mustStopToEnd)
      this.endOfFirstPass = this.endFirstPass();
  }

  private get mustStopToEnd(): boolean {
    return this.capabilities.accel !== 'kvm' && this.thread === 'none';
  }

  private hasBegun(): boolean {
    return this.thread === 'begun';
  }

  private async waitUntilOver(deadline: Deadline): Promise<void> {
    for (;;) {
      const status = field(await this.ask('query-migrate', deadline), 'status') ?? 'none';
      if (isOver(status) && !(await this.hasMigrationStream(deadline))) return;
      await sleep(this.timers, Math.min(POLL_MS, deadline.remainingMs()));
    }
  }

  private async yank(deadline: Deadline): Promise<void> {
    const timeoutMs = deadline.remainingMs();
    try {
      await this.qmp.executeOob('yank', { instances: [{ type: 'migration' }] }, { timeoutMs });
    } catch (error) {
      // The stream ended between the query and the command.
      if (!(error instanceof QmpRefusedError)) throw error;
    }
  }

  /** Makes QEMU leave COLO; returns false if it is not in COLO. */
  private async lostHeartbeat(deadline: Deadline): Promise<boolean> {
    try {
      await this.ask('x-colo-lost-heartbeat', deadline);
      return true;
    } catch (error) {
      if (!(error instanceof QmpRefusedError)) throw error;
      return false;
    }
  }

  private async hasMigrationStream(deadline: Deadline): Promise<boolean> {
    // Out of band: an ordinary command would wait for the lock that the hung thread has.
    const timeoutMs = deadline.remainingMs();
    const instances = await this.qmp.executeOob<unknown>('query-yank', undefined, { timeoutMs });
    return Array.isArray(instances) && instances.some((entry) => field(entry, 'type') === 'migration');
  }

  private async ask(command: string, deadline: Deadline): Promise<unknown> {
    try {
      return await this.qmp.execute(command, undefined, { timeoutMs: deadline.remainingMs() });
    } catch (error) {
      // For a query in the last millisecond the deadline's error says more than the query's timeout.
      if (error instanceof ColoError && error.code === 'COLO_QMP_TIMEOUT') deadline.remainingMs();
      throw error;
    }
  }

  private async runStatus(): Promise<string> {
    return field(await this.qmp.execute('query-status'), 'status') ?? '?';
  }

  private async migrationStatus(): Promise<string> {
    return field(await this.qmp.execute('query-migrate'), 'status') ?? 'none';
  }
}

/** Returns whether QEMU would accept a new `migrate`. */
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
