/**
 * A QEMU process: a VM (sim-vm.ts), QMP, and the migration that COLO rides on.
 *
 * It does what src/qemu/colo.ts and docs/architecture.md rely on, as seen from outside: the messages on the stream and
 * when the VM is stopped, which requests are merged or forgotten, what it does when the stream breaks in each phase, and
 * that a stopped VM reads one buffer of input and delivers it after the next state was loaded.
 *
 * Stages of the primary's COLO thread:
 *
 *   idle -> (migrate) finishing -> (READY) idle
 *   idle -> (request) requested -> (REPLY) stopped -> (state sent) waiting -> (RECEIVED) committed -> (LOADED) idle
 */
import type { KernelStream } from '../../src/io/byte-stream.ts';
import { COMMANDS_NEEDED } from '../../src/qemu/capabilities.ts';
import { type JsonObject, QmpRefusedError } from '../../src/qemu/qmp.ts';
import type { Die } from './guest/die.ts';
import type { Machine, MachinePort } from './guest/machine.ts';
import { type Loop, Process } from './loop.ts';
import { MESSAGE, MigrationStream, type Phase, PIECE } from './sim-migration.ts';
import type { Host } from './sim-socket.ts';
import { type Consumed, SimVm, type Sleeper } from './sim-vm.ts';
import type { Sockets } from './sockets.ts';
import { BEFORE_STOP, type Standing } from './standing.ts';

/** As QEMU 11 sends them before READY: PONG and SHUT of the return path. */
const RETURN_PATH = [
  [0, 2, 0, 4, 0, 0, 0, 1],
  [0, 1, 0, 4, 0, 0, 0, 0],
];
/** max-bandwidth is counted in whole bytes per tick, where 0 means no limit; QEMU sends at least a buffer. */
const TICKS_PER_S = 10;
const BUFFER_BYTES = 32_768;
/** From one collection of dirty pages to the next, if a page or two were dirty. */
const PASS_MS = 0.5;
/** Microseconds, unless the host is busy. */
const THREAD_BEGINS_MS_MAX = 8;

export type QemuEvents = {
  died(qemu: SimQemu): void;
  phase(qemu: SimQemu, phase: Phase): void;
  /** Its state is copied as it is now. */
  taken(qemu: SimQemu): void;
  /** The secondary has just replaced its own state, which had consumed `own`. */
  loaded(qemu: SimQemu, own: Consumed, theirs: Consumed, which: 'first' | 'later'): void;
  note(qemu: SimQemu, text: string): void;
};

export type QemuOptions = {
  loop: Loop;
  sockets: Sockets;
  host: Host;
  die: Die;
  mac: Uint8Array;
  accel: 'kvm' | 'tcg';
  sleeper: Sleeper;
  /** The longest time that the guest takes to read its input, and the node to read its output. */
  slow: { inputMs: number; outputMs: number };
  makeGuest(port: MachinePort): Machine;
  events: QemuEvents;
};

type ColoMode = 'none' | 'primary' | 'secondary';

let pids = 1000;

export class SimQemu {
  readonly process: Process;
  readonly host: Host;
  readonly pid: number;
  readonly incoming: boolean;
  readonly vm: SimVm;
  readonly qmpSocket: string;
  readonly eventListeners = new Set<(event: string, data: JsonObject) => void>();
  coloMode: ColoMode = 'none';
  /** Its state is that of a service: it was booted, or it has loaded one. */
  hasState = false;
  /** Its sockets exist. */
  greets = false;
  /** the run state in which the VM stands for another reason than a copy; null if it does not */
  standsFor: Standing | null = null;
  /** what the VM stood for when a failover resumed it, until it is stopped for that again */
  private stoodFor: Standing | null = null;
  standsSinceMs = 0;
  private readonly options: QemuOptions;
  private readonly loop: Loop;
  private readonly die: Die;
  /** The COLO mode before this one, and why it ended: 'request' after a failover. */
  private lastMode: ColoMode = 'none';
  private endReason = 'none';
  /** The primary's COLO thread runs. Before, a request or a failover aborts QEMU (src/qemu/colo.ts). */
  private threadBegun = false;
  private migration: MigrationStream | null = null;
  /** From then on it can be yanked; in COLO also when the stream has broken already. */
  private yankable = false;
  private migrationStatus = 'none';
  private bandwidth = Number.POSITIVE_INFINITY;
  /** It is the source of the stream. */
  private outgoing = false;
  private expecting: 'pieces' | 'request' | 'send' | 'size' | 'nothing' = 'nothing';
  private stage: 'idle' | 'finishing' | 'requested' | 'stopped' | 'waiting' | 'committed' = 'idle';
  /** the guest ran when QEMU ended the first pass: it does so again if that fails */
  private wasRunning = false;
  /** collections of dirty pages in the first pass, and how many it takes */
  private pass = 0;
  private passes = 1;
  private requestPending = false;
  private loading = false;
  private failoverAsked = false;
  private firstCheckpoint = true;

  constructor(options: QemuOptions, argv: readonly string[]) {
    this.options = options;
    this.loop = options.loop;
    this.die = options.die;
    this.host = options.host;
    this.pid = ++pids;
    this.incoming = argv.includes('-incoming');
    this.process = new Process(options.loop, `qemu-${options.host.name}`, this.die);
    this.process.onDeath.add(() => options.events.died(this));
    const text = argv.join(' ');
    const vmSocket = /addr\.path=(\S+)/.exec(text)?.[1] ?? '';
    this.qmpSocket = /-qmp unix:([^,]+),/.exec(text)?.[1] ?? '';
    this.vm = new SimVm({
      ...options,
      process: this.process,
      onStop: () => this.emit('STOP'),
      onResume: () => {
        this.standsFor = null;
        this.emit('RESUME');
      },
    });
    this.later(this.die.within(20, 60), () => {
      this.greets = true;
      this.listen(vmSocket, (stream) => this.vm.openPort(stream));
      if (this.incoming) return;
      this.hasState = true;
      this.vm.resume();
    });
  }

  get name(): string {
    return this.process.name;
  }

  /** The VM stops for another reason than a copy. Returns false if it does not run now. */
  stand(why: Standing): boolean {
    if (!this.vm.running) return false;
    const said = BEFORE_STOP[why];
    if (said !== null) this.emit(...said);
    this.standsFor = why;
    this.standsSinceMs = this.loop.nowMs;
    this.vm.stop();
    return true;
  }

  /** Whoever had stopped the VM, or has mended what had, lets it run again. */
  standNoMore(why: Standing): void {
    this.stoodFor = null;
    if (this.standsFor === why) this.vm.resume();
  }

  private later(ms: number, run: () => void): void {
    this.loop.after(ms, this.process, run);
  }

  /** Runs `run` after `ms` if the stream is still the same and COLO has not ended. */
  private inStream(ms: number, run: () => void): void {
    const { migration } = this;
    this.later(ms, () => {
      if (this.migration === migration && this.coloMode !== 'none') run();
    });
  }

  private listen(path: string, accept: (stream: KernelStream) => void): void {
    this.host.unix.set(path, { owner: this.process, accept });
  }

  private emit(event: string, data: JsonObject = {}): void {
    for (const listener of this.eventListeners) listener(event, data);
  }

  private phase(phase: Phase): void {
    this.options.events.phase(this, phase);
  }

  /** Real QEMU aborts here. No node may ever bring it to that. */
  private abort(): never {
    throw new Error('QEMU was touched before its COLO thread began, and aborts');
  }

  /* The migration stream. */

  private openMigration(stream: KernelStream): void {
    const migration = new MigrationStream(stream);
    this.migration = migration;
    migration.start({
      received: () => {
        if (this.migration === migration) this.takeMessages();
      },
      broke: () => {
        if (this.migration === migration) this.streamBroke();
      },
    });
  }

  private takeMessages(): void {
    for (;;) {
      const { migration } = this;
      const word = migration === null ? null : migration.word(0);
      if (migration === null || word === null) return;
      const taken = this.outgoing ? this.takeBackward(migration, word) : this.takeForward(migration, word);
      if (!taken) return;
    }
  }

  private closeMigration(): void {
    this.migration?.close();
    this.migration = null;
  }

  private streamBroke(): void {
    this.closeMigration();
    this.options.events.note(this, `migration stream broke (${this.coloMode}, ${this.stage})`);
    if (this.coloMode !== 'none') {
      // Within a checkpoint, and before the first, the thread reads the stream and notices; else at the next checkpoint.
      if (this.threadBegun && this.stage !== 'idle')
        this.emit('COLO_EXIT', { mode: 'primary', reason: 'error' });
      return;
    }
    if (this.incoming && !this.hasState) {
      // An incoming QEMU that has not received a whole state ends.
      this.process.kill();
      return;
    }
    if (this.migrationStatus === 'setup' || this.migrationStatus === 'active') {
      this.migrationStatus = 'failed';
      this.yankable = false;
      if (this.stage === 'finishing' && this.wasRunning) this.vm.resume();
      this.stage = 'idle';
    }
  }

  /* The primary: the first copy. */

  private migrate(path: string): void {
    this.migrationStatus = 'setup';
    this.outgoing = true;
    this.yankable = true;
    this.later(0.2, () => {
      const listener = this.host.unix.get(path);
      if (listener === undefined || !listener.owner.alive) {
        this.migrationStatus = 'failed';
        this.yankable = false;
        return;
      }
      this.openMigration(this.options.sockets.local(this.host, this.process, listener));
      this.migrationStatus = 'active';
      const pieces = this.die.within(2, 12);
      // A guest with a processor that always writes: without KVM QEMU collects dirty pages until it is stopped.
      const neverRests = this.options.accel === 'tcg' && pieces % 2 === 0;
      this.passes = neverRests ? Number.POSITIVE_INFINITY : 1;
      this.pass = 0;
      this.sendRam(pieces);
    });
  }

  private sendRam(pieces: number): void {
    const { migration } = this;
    if (migration === null) return;
    if (this.pass === 0) this.phase('copying');
    if (pieces > 0) {
      migration.sendPiece(PIECE.ram, new Uint8Array(this.die.within(100, 8000)));
      const perTick = Math.trunc(this.bandwidth / TICKS_PER_S);
      const ms = perTick > 0 && perTick < BUFFER_BYTES ? 1000 / TICKS_PER_S : this.die.within(1, 40);
      this.later(ms, () => {
        if (this.migration === migration) this.sendRam(pieces - 1);
      });
      return;
    }
    this.emit('MIGRATION_PASS', { pass: ++this.pass });
    if (this.pass < this.passes && this.vm.running) {
      this.later(PASS_MS, () => {
        if (this.migration === migration) this.sendRam(0);
      });
      return;
    }
    this.wasRunning = this.vm.running;
    this.vm.stop();
    this.stage = 'finishing';
    this.later(this.die.within(1, 20), () => {
      if (this.migration !== migration) return;
      migration.sendPiece(PIECE.state, this.takeState());
      this.expecting = 'request';
      this.enterColo('primary');
      this.phase('copied');
      this.later(this.die.next() * THREAD_BEGINS_MS_MAX, () => this.beginThread());
    });
  }

  private takeState(): Uint8Array {
    this.options.events.taken(this);
    return this.vm.state();
  }

  private beginThread(): void {
    this.threadBegun = true;
    this.endReason = 'none';
    if (this.migration === null) this.emit('COLO_EXIT', { mode: 'primary', reason: 'error' });
    else this.takeMessages();
  }

  private enterColo(mode: ColoMode): void {
    this.coloMode = mode;
    this.threadBegun = false;
    if (mode === 'secondary') this.endReason = 'none';
    this.migrationStatus = 'colo';
    this.emit('MIGRATION', { status: 'colo' });
  }

  private leaveColo(): void {
    this.lastMode = this.coloMode;
    this.coloMode = 'none';
    this.endReason = 'request';
    this.migrationStatus = 'completed';
    this.yankable = false;
  }

  /* The primary: a message from the secondary. Returns false if it is not complete. */

  private takeBackward(migration: MigrationStream, word: number): boolean {
    if (this.stage === 'finishing') {
      if (this.coloMode === 'primary' && !this.threadBegun) return false;
      // Return-path messages, then READY.
      if (word !== MESSAGE.ready) {
        const length = 4 + (word & 0xffff);
        if (migration.input.length < length) return false;
        migration.take(length);
        return true;
      }
      migration.take(4);
      this.endCheckpoint();
      return true;
    }
    migration.take(4);
    if (word === MESSAGE.reply && this.stage === 'requested') {
      this.stage = 'stopped';
      this.phase('reply');
      this.inStream(this.die.next() * 2, () => {
        this.vm.stop();
        this.inStream(this.die.next() * 3, () => this.sendState(migration));
      });
    } else if (word === MESSAGE.received && this.stage === 'waiting') {
      this.stage = 'committed';
      this.requestPending = false;
    } else if (word === MESSAGE.loaded && this.stage === 'committed') {
      this.endCheckpoint();
      this.phase('loaded');
    } else throw new Error(`message ${word} from the secondary in stage ${this.stage}`);
    return true;
  }

  private sendState(migration: MigrationStream): void {
    const state = this.takeState();
    migration.send(MESSAGE.vmstateSend);
    migration.send(MESSAGE.vmstateSize, 0, state.length);
    migration.write(state);
    this.stage = 'waiting';
    this.phase('state');
  }

  private endCheckpoint(): void {
    this.stage = 'idle';
    this.vm.resume();
    if (!this.requestPending) return;
    this.requestPending = false;
    this.inStream(this.die.next() * 2, () => this.requestCheckpoint());
  }

  /** QEMU forgets a request during a checkpoint with RECEIVED; one after that leads to the next checkpoint. */
  private requestCheckpoint(): void {
    if (this.coloMode !== 'primary') return;
    if (!this.threadBegun) this.abort();
    if (this.migration === null) return;
    if (this.stage === 'idle') {
      this.stage = 'requested';
      this.migration.send(MESSAGE.request);
    } else this.requestPending = true;
  }

  /* The secondary: a message from the primary. Returns false if it is not complete. */

  private takeForward(migration: MigrationStream, word: number): boolean {
    switch (this.expecting) {
      case 'pieces': {
        const length = migration.word(1);
        if (length === null || migration.input.length < 8 + length) return false;
        const bytes = migration.take(8 + length).slice(8);
        if (word === PIECE.state) this.loadFirst(migration, bytes);
        return true;
      }
      case 'request':
        if (word !== MESSAGE.request) throw new Error(`message ${word} instead of REQUEST`);
        migration.take(4);
        this.expecting = 'nothing';
        if (this.standsFor === 'guest-panicked') {
          // There is no way from this run state to that of a checkpoint: QEMU aborts.
          this.process.kill();
          return false;
        }
        this.phase('request');
        this.inStream(this.die.next() * 2, () => {
          this.vm.stop();
          migration.send(MESSAGE.reply);
          this.expecting = 'send';
          this.takeMessages();
        });
        return true;
      case 'send':
        if (word !== MESSAGE.vmstateSend) throw new Error(`message ${word} instead of VMSTATE_SEND`);
        migration.take(4);
        this.expecting = 'size';
        return true;
      case 'size': {
        if (word !== MESSAGE.vmstateSize) throw new Error(`message ${word} instead of VMSTATE_SIZE`);
        const size = migration.word(2);
        if (size === null || migration.input.length < 12 + size) return false;
        const bytes = migration.take(12 + size).slice(12);
        this.expecting = 'nothing';
        if (migration.isBroken) {
          // It does not load a state when it cannot send RECEIVED.
          this.streamBroke();
          return false;
        }
        this.loading = true;
        migration.send(MESSAGE.received);
        this.phase('received');
        // Without the stream, too.
        this.later(this.die.next() * 3, () => this.loadNext(bytes));
        return true;
      }
      default:
        return false;
    }
  }

  private loadFirst(migration: MigrationStream, bytes: Uint8Array): void {
    this.vm.load(bytes);
    this.hasState = true;
    this.enterColo('secondary');
    for (const message of RETURN_PATH) migration.write(Uint8Array.from(message));
    migration.send(MESSAGE.ready);
    this.expecting = 'request';
    this.vm.resume();
  }

  private loadNext(bytes: Uint8Array): void {
    const own = this.vm.consumed;
    const theirs = this.vm.load(bytes);
    this.phase('loading');
    this.options.events.loaded(this, own, theirs, this.firstCheckpoint ? 'first' : 'later');
    this.firstCheckpoint = false;
    this.loading = false;
    if (this.failoverAsked) {
      this.secondaryFailsOver();
      return;
    }
    this.vm.resume();
    this.migration?.send(MESSAGE.loaded);
    this.expecting = 'request';
    this.takeMessages();
  }

  /* Failover. */

  private primaryFailsOver(): void {
    this.closeMigration();
    this.later(1 + this.die.next() * 2, () => {
      this.leaveColo();
      this.stage = 'idle';
      this.requestPending = false;
      this.stoodFor = this.standsFor;
      this.vm.resume();
    });
  }

  private secondaryFailsOver(): void {
    this.closeMigration();
    this.failoverAsked = false;
    this.vm.stop();
    this.vm.revive();
    this.leaveColo();
    this.later(0.3 + this.die.next(), () => {
      this.vm.announce();
      this.vm.resume();
    });
  }

  private failOver(): void {
    const name = 'x-colo-lost-heartbeat';
    if (this.coloMode === 'none') throw new QmpRefusedError(name, 'GenericError', 'VM is not in COLO mode');
    if (this.coloMode === 'primary' && !this.threadBegun) {
      // An earlier failover has left its mark, which only the thread removes.
      if (this.endReason === 'request')
        throw new QmpRefusedError(name, 'GenericError', 'COLO failover is already activated');
      this.abort();
    } else if (this.coloMode === 'primary') this.primaryFailsOver();
    else if (this.loading) this.failoverAsked = true;
    else this.secondaryFailsOver();
  }

  /* QMP. */

  /** Carries out a QMP command and returns its result; throws QmpRefusedError as QEMU refuses it. */
  command(name: string, args: JsonObject | undefined): unknown {
    switch (name) {
      case 'query-kvm':
        return { enabled: this.options.accel === 'kvm', present: true };
      case 'query-migrate-capabilities':
        return [{ capability: 'x-colo', state: false }];
      case 'query-commands':
        return COMMANDS_NEEDED.map((one) => ({ name: one }));
      case 'query-command-line-options':
        return [{ option: 'run-with', parameters: [{ name: 'exit-with-parent' }] }];
      case 'query-cpus-fast':
        return [{ 'thread-id': this.pid }];
      case 'query-status':
        return { status: this.runStatus(), running: this.vm.running };
      case 'migrate-set-capabilities':
        return {};
      case 'migrate-set-parameters':
        if (typeof args?.['max-bandwidth'] === 'number') this.bandwidth = args['max-bandwidth'];
        if (args?.['x-checkpoint-delay'] !== undefined) this.requestCheckpoint();
        return {};
      case 'migrate-incoming':
        this.awaitMigration(String(args?.uri).slice('unix:'.length));
        return {};
      case 'migrate':
        this.migrate(String(args?.uri).slice('unix:'.length));
        return {};
      case 'query-migrate':
        return { status: this.migrationStatus };
      case 'stop':
        this.vm.stop();
        this.standsFor ??= this.stoodFor;
        this.stoodFor = null;
        return {};
      case 'cont':
        if (this.stage === 'finishing')
          throw new QmpRefusedError(name, 'GenericError', 'Migration is not finalized yet');
        this.vm.resume();
        return {};
      case 'query-colo-status':
        return { mode: this.coloMode, 'last-mode': this.lastMode, reason: this.endReason };
      case 'x-colo-lost-heartbeat':
        this.failOver();
        return {};
      case 'query-yank':
        return this.yankable ? [{ type: 'migration' }] : [];
      case 'yank':
        if (!this.yankable) throw new QmpRefusedError(name, 'GenericError', 'Instance not found');
        // A QEMU that only listens has nothing to break.
        if (!this.incoming || this.migration !== null || this.coloMode !== 'none') this.streamBroke();
        return {};
      case 'quit':
        this.process.kill();
        return {};
      default:
        throw new QmpRefusedError(name, 'CommandNotFound', `The command ${name} has not been found`);
    }
  }

  private awaitMigration(path: string): void {
    this.migrationStatus = 'setup';
    this.yankable = true;
    this.listen(path, (stream) => {
      if (this.migration !== null) {
        stream.close();
        return;
      }
      this.expecting = 'pieces';
      this.migrationStatus = 'active';
      this.openMigration(stream);
    });
  }

  private runStatus(): string {
    if (this.incoming && !this.hasState) return 'inmigrate';
    if (this.vm.running) return 'running';
    if (this.standsFor !== null) return this.standsFor;
    if (this.stage === 'finishing') return 'finish-migrate';
    return this.coloMode === 'none' ? 'paused' : 'colo';
  }
}
