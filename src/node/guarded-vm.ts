/**
 * The VM that a node guards: its QEMU process, QMP connection, COLO verbs and frame port, started and stopped as one.
 *
 * Failure: whichever part ends first, the owner's `lost` is called once with the reason, and the rest is stopped. After `stop` the
 * owner is not called any more. A VM that stands, or whose QEMU hangs, is the watch's subject (qemu/vm-watch.ts).
 */
import { join } from 'node:path';
import type { NodeConfig } from '../config/node-config.ts';
import { type Endpoint, unixEndpoint } from '../endpoint.ts';
import { ColoError } from '../error.ts';
import type { KernelStream } from '../io/byte-stream.ts';
import { sleep } from '../io/clock.ts';
import type { FramePort } from '../io/frame-port.ts';
import { LateStream } from '../io/late-stream.ts';
import type { SleepSight } from '../io/sleep-sight.ts';
import type { Surroundings } from '../io/surroundings.ts';
import type { Limits } from '../limits.ts';
import type { Copy } from '../link/copy.ts';
import { mayBeTheOne } from '../pair/vm-trouble-rules.ts';
import { type QemuCapabilities, queryCapabilities, queryVcpuThreads } from '../qemu/capabilities.ts';
import { ColoVm } from '../qemu/colo.ts';
import { buildCommandLine } from '../qemu/command-line.ts';
import type { QemuLauncher, QmpConnection, RunningQemu } from '../qemu/launcher.ts';
import { type FollowedDisk, VmDisks } from '../qemu/vm-disks.ts';
import { VmPauses } from '../qemu/vm-pauses.ts';
import { type Transfer, VmWatch, type VmWatchEvents } from '../qemu/vm-watch.ts';
import { PrimaryDisks } from './primary-disks.ts';

const QMP_DEADLINE_MS = 10_000;
const VM_PORT_TRIES = 100;
const VM_PORT_RETRY_MS = 20;
const STOP_GRACE_MS = 2000;
/** QEMU's sockets close slightly before the process ends: wait this long for its exit status. */
const EXIT_STATUS_MS = 500;
/** What a QEMU that lives says or is: these errors are explained. */
const NOT_DEATH: ReadonlySet<string> = new Set([
  'COLO_QMP_REFUSED',
  'COLO_QEMU_TOO_OLD',
  'COLO_QEMU_BROKEN',
  'COLO_QEMU_TCG_TOO_OLD',
  'COLO_QEMU_NO_COLO',
]);
/** Sockets in the run directory. The node listens on `migrateOut`, QEMU on the others; a killed QEMU does not remove them. */
const SOCKETS = {
  vmPort: 'vm.sock',
  qmp: 'qmp.sock',
  migrateOut: 'migrate-out.sock',
  migrateIn: 'migrate-in.sock',
  nbd: 'nbd.sock',
} as const;

/** `incoming`: QEMU waits for the state of another VM. */
export type VmStart = 'boot' | 'incoming';

/** What a VM tells its owner, and asks of it. */
export type VmOwner = VmWatchEvents & {
  lost(cause: string): void;
  transfer(): Transfer;
  /** The images lack a write that the guest takes for done. */
  imagesLack(): void;
};

type Parts = {
  config: NodeConfig;
  surroundings: Surroundings;
  process: RunningQemu;
  qmp: QmpConnection;
  capabilities: QemuCapabilities;
  port: FramePort;
  threads: SleepSight;
};

export class GuardedVm {
  readonly colo: ColoVm;
  readonly pauses: VmPauses;
  readonly watch: VmWatch;
  readonly capabilities: QemuCapabilities;
  /** null: the VM has none */
  readonly disks: VmDisks | null;
  private readonly config: NodeConfig;
  private readonly surroundings: Surroundings;
  private readonly process: RunningQemu;
  private readonly qmp: QmpConnection;
  private readonly port: FramePort;
  private readonly threads: SleepSight;
  private stopped = false;
  /** to the secondary, if there is one */
  private primaryDisks: PrimaryDisks | null = null;

  private constructor(
    { config, surroundings, process, qmp, capabilities, port, threads }: Parts,
    owner: VmOwner,
  ) {
    this.config = config;
    this.surroundings = surroundings;
    this.process = process;
    this.qmp = qmp;
    this.capabilities = capabilities;
    const { clock, timers } = surroundings;
    this.colo = new ColoVm(qmp, capabilities, surroundings);
    this.port = port;
    this.threads = threads;
    const ids = config.vm.disks.map(({ id }) => id);
    const diskEvents = {
      failing: (message: string) => this.watch.fail(message),
      lacking: (message: string) => {
        owner.imagesLack();
        this.watch.fail(message);
      },
      lost: (message: string) => this.primaryDisks?.lost(message),
    };
    this.disks = ids.length === 0 ? null : new VmDisks({ qmp, ids, clock, timers, events: diskEvents });
    this.pauses = new VmPauses(clock);
    qmp.onEvent((event) => this.pauses.event(event));
    this.watch = new VmWatch({
      qmp,
      clock,
      timers,
      silenceMsMax: config.vm.silenceMsMax,
      transfer: () => owner.transfer(),
      isOwnStop: () => this.colo.isStopping,
      events: owner,
    });
  }

  /** Starts QEMU, checks what it can do, and attaches its frames to `port`. QEMU is killed if `signal` aborts meanwhile. */
  static async start(options: {
    config: NodeConfig;
    how: VmStart;
    port: FramePort;
    owner: VmOwner;
    surroundings: Surroundings;
    launcher: QemuLauncher;
    signal: AbortSignal;
  }): Promise<GuardedVm> {
    const { config, how, port, owner, surroundings, launcher, signal } = options;
    const { vm, runDirectory } = config;
    const vmPort = join(runDirectory, SOCKETS.vmPort);
    const qmpPath = join(runDirectory, SOCKETS.qmp);
    removeSockets(surroundings, runDirectory);
    const argv = buildCommandLine({
      command: vm.command,
      args: vm.args,
      name: `${config.pair}-${config.node}`,
      nic: { device: vm.nic.device, mac: vm.mac, options: vm.nic.options },
      disks: vm.disks,
      vmPort,
      qmp: qmpPath,
      incoming: how === 'incoming',
      exitWithParent: await launcher.probeExitWithParent(vm.command, vm.env),
    });
    const process = await launcher.start({ argv, env: vm.env });
    const giveUp = () => process.kill();
    if (signal.aborted) giveUp();
    signal.addEventListener('abort', giveUp);
    try {
      const qmp = await launcher.connectQmp({
        endpoint: unixEndpoint(qmpPath),
        deadlineMs: QMP_DEADLINE_MS,
        signal: process.signal,
      });
      const capabilities = await queryCapabilities(qmp);
      const threads = process.sight(await queryVcpuThreads(qmp));
      const guarded = new GuardedVm(
        { config, surroundings, process, qmp, capabilities, port, threads },
        owner,
      );
      port.onClosed = (cause) =>
        guarded.lost(`the VM port closed: ${cause?.message ?? 'QEMU ended it'}`, owner);
      port.attach(await connectRetrying(surroundings, vmPort, process.signal));
      void process.exited.then((exit) => guarded.lost(exit.error.message, owner));
      qmp.onClose(() => guarded.lost('QMP closed', owner));
      return guarded;
    } catch (cause) {
      const error = await explained(process, surroundings, cause);
      process.kill();
      removeSockets(surroundings, runDirectory);
      port.close();
      await process.stop({ graceMs: STOP_GRACE_MS });
      throw error;
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
  }

  /** Sees whether the guest sleeps. A VM that a checkpoint has stopped does not: it has work to go on with. */
  readonly sight: SleepSight = {
    isAsleep: () => !this.pauses.isStopped && this.threads.isAsleep(),
    blindness: () => this.threads.blindness(),
  };

  get pid(): number {
    return this.process.pid;
  }

  /** Makes QEMU send its state; resolves with the streams on which it comes. */
  async openCopy(): Promise<Copy<KernelStream>> {
    const path = join(this.config.runDirectory, SOCKETS.migrateOut);
    this.surroundings.transports.unlink(path);
    const { promise: stream, resolve: accepted } = Promise.withResolvers<KernelStream>();
    const endpoint: Endpoint = { kind: 'unix', mode: 'listen', path };
    const listener = await this.surroundings.transports.listen(endpoint, accepted);
    try {
      await this.colo.startMigration(path);
      return { state: await stream, disks: new Map() };
    } catch (cause) {
      throw await this.explained(cause);
    } finally {
      void listener.close();
    }
  }

  /** Takes the link's streams to the secondary's images; calls `lost` once when these do not follow any more. */
  openDisks(
    vm: VmDisks,
    streams: Copy['disks'],
    lost: (cause: string) => void,
    limits: Limits,
  ): PrimaryDisks {
    const { config, surroundings } = this;
    const socketOf = (place: number) => join(config.runDirectory, `disk${place}.sock`);
    const { disks } = config.vm;
    this.primaryDisks = new PrimaryDisks({ disks, vm, streams, socketOf, surroundings, limits, lost });
    return this.primaryDisks;
  }

  /** Makes QEMU wait for state, and its disks follow; resolves with the streams on which it takes both. */
  async openIncoming(followed: readonly FollowedDisk[]): Promise<Copy<KernelStream>> {
    const path = join(this.config.runDirectory, SOCKETS.migrateIn);
    this.surroundings.transports.unlink(path);
    const disks = new Map<string, KernelStream>();
    try {
      if (followed.length > 0) {
        const nbd = join(this.config.runDirectory, SOCKETS.nbd);
        await this.disks?.follow(followed, nbd);
        for (const { id } of followed)
          disks.set(id, await connectRetrying(this.surroundings, nbd, this.process.signal));
      }
      await this.colo.listenIncoming(path);
      const connect = () => connectRetrying(this.surroundings, path, this.process.signal);
      // The disks are copied first, and QEMU would wait for its state in its main loop.
      return { state: disks.size === 0 ? await connect() : new LateStream(connect), disks };
    } catch (cause) {
      for (const stream of disks.values()) stream.close();
      throw await this.explained(cause);
    }
  }

  /** Whether the VM may be the one VM of the service: QEMU's main loop replies within `msMax`, and the VM is in no trouble. */
  async isWell(msMax: number): Promise<boolean> {
    const { trouble } = this.watch;
    if (trouble !== null && !mayBeTheOne(trouble.kind)) return false;
    try {
      await this.qmp.execute('query-status', undefined, { timeoutMs: msMax });
      return true;
    } catch {
      return false;
    }
  }

  /**
   * Makes QEMU leave COLO and run the VM from its own state. Disks come first: a guest that waits for the other node's image, and an
   * image into which another VM writes, would stand in the way. If QEMU dies of it, the error has QEMU's last message. */
  async failover(deadlineMs: number): Promise<void> {
    const { disks } = this;
    const leaveColo = () => this.colo.failover({ deadlineMs });
    try {
      if (disks?.isFollowing === true) {
        await disks.stopServing(deadlineMs);
        await leaveColo();
      } else if (disks !== null) await disks.leave(leaveColo, deadlineMs);
      else await leaveColo();
    } catch (cause) {
      throw await this.explained(cause);
    }
  }

  /** Kills QEMU; the owner is not called any more. Resolves when QEMU has ended. */
  async stop(): Promise<void> {
    this.stopped = true;
    this.watch.stop();
    this.port.close();
    this.qmp.close();
    this.process.kill();
    // Before QEMU has ended: after that the sockets may already be the next VM's.
    removeSockets(this.surroundings, this.config.runDirectory);
    await this.process.stop({ graceMs: STOP_GRACE_MS });
  }

  private explained(cause: unknown): Promise<unknown> {
    return explained(this.process, this.surroundings, cause);
  }

  private lost(cause: string, owner: VmOwner): void {
    if (this.stopped) return;
    void this.stop();
    // QEMU's last message explains more than "its socket closed" does; it arrives a moment later.
    void this.process.exited.then((exit) => owner.lost(`${cause}; ${exit.error.message}`));
  }
}

/**
 * Returns why something failed: if QEMU has died of it, QEMU's own last words and its exit status, since a closed socket says
 * nothing. `cause` otherwise.
 */
async function explained(process: RunningQemu, { timers }: Surroundings, cause: unknown): Promise<unknown> {
  if (!mayBeItsDeath(cause)) return cause;
  const exit = await Promise.race([process.exited, sleep(timers, EXIT_STATUS_MS)]);
  return exit === undefined ? cause : exit.error;
}

/** QEMU has refused nothing and says nothing strange: it does not reply any more. */
function mayBeItsDeath(cause: unknown): boolean {
  return !(cause instanceof ColoError && NOT_DEATH.has(cause.code));
}

function removeSockets({ transports }: Surroundings, runDirectory: string): void {
  for (const name of Object.values(SOCKETS)) transports.unlink(join(runDirectory, name));
}

async function connectRetrying(
  { transports, timers }: Surroundings,
  path: string,
  signal: AbortSignal,
): Promise<KernelStream> {
  for (let tries = 1; ; tries++) {
    try {
      return await transports.connect(unixEndpoint(path));
    } catch (cause) {
      if (signal.aborted) throw signal.reason;
      if (tries === VM_PORT_TRIES) {
        throw new ColoError('COLO_QEMU_SOCKET', `QEMU does not listen on ${path}`, { cause });
      }
      await sleep(timers, VM_PORT_RETRY_MS);
    }
  }
}
