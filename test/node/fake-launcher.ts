/** QEMUs in memory, for tests of a role's VM: each can do COLO, replies to the queries of a start, and runs until it is killed. */
import { ColoError } from '../../src/error.ts';
import type { SleepSight } from '../../src/io/sleep-sight.ts';
import { COMMANDS_NEEDED } from '../../src/qemu/capabilities.ts';
import type { QemuLauncher, QmpConnection, RunningQemu } from '../../src/qemu/launcher.ts';
import type { QemuExit } from '../../src/qemu/process.ts';
import type { ConnectOptions, QmpEvent, QmpVersion } from '../../src/qemu/qmp.ts';
import { type FakeStream, fakePair } from '../io/fake-stream.ts';

const REPLIES: Record<string, unknown> = {
  'query-migrate-capabilities': [{ capability: 'x-colo' }],
  'query-commands': COMMANDS_NEEDED.map((name) => ({ name })),
  'query-command-line-options': [],
  'query-cpus-fast': [{ 'thread-id': 4712 }],
};

export class FakeQemu implements RunningQemu {
  readonly pid = 4711;
  readonly exited: Promise<QemuExit>;
  readonly signal: AbortSignal;
  /** QMP commands are replied to; otherwise they fail */
  replying = true;
  /** QMP commands get no reply at all */
  hangs = false;
  readonly commands: string[] = [];
  /** its run state */
  state = 'running';
  private readonly ended = new AbortController();
  private readonly exit: (exit: QemuExit) => void;
  /** its threads sleep */
  asleep = false;
  private readonly eventListeners = new Set<(event: QmpEvent) => void>();
  private readonly qmpListeners = new Set<() => void>();

  private readonly version: QmpVersion;
  private readonly kvm: { readonly enabled: boolean };

  constructor(version: QmpVersion, kvm: { readonly enabled: boolean }) {
    const { promise, resolve } = Promise.withResolvers<QemuExit>();
    this.version = version;
    this.kvm = kvm;
    this.exited = promise;
    this.exit = resolve;
    this.signal = this.ended.signal;
  }

  get hasEnded(): boolean {
    return this.signal.aborted;
  }

  sight(vcpuThreads: readonly number[]): SleepSight {
    const blindness = () => (vcpuThreads.join() === '4712' ? null : 'other threads');
    return { isAsleep: () => this.asleep, blindness };
  }

  /** QMP reports an event. */
  event(event: string): void {
    for (const listener of this.eventListeners) listener({ event, data: {}, timestampUs: 0 });
  }

  kill(): void {
    this.die('QEMU ended');
  }

  /** QEMU ends by itself; its exit says so in these words. */
  die(words: string): void {
    this.ended.abort();
    this.exit({ code: 1, signal: null, error: new ColoError('COLO_QEMU_EXITED', words) });
  }

  async stop(): Promise<QemuExit> {
    this.kill();
    return await this.exited;
  }

  closeQmp(): void {
    for (const listener of this.qmpListeners) listener();
  }

  qmp(): QmpConnection {
    const execute = async <T>(command: string) => {
      this.commands.push(command);
      if (this.hangs) return await new Promise<never>(() => {});
      if (command === 'query-status' && this.replying) return { status: this.state } as T;
      if (!this.replying) throw new ColoError('COLO_QMP_TIMEOUT', 'no reply');
      return (command === 'query-kvm' ? this.kvm : (REPLIES[command] ?? {})) as T;
    };
    return {
      version: this.version,
      execute,
      executeOob: execute,
      onEvent: (listener) => {
        this.eventListeners.add(listener);
        return () => this.eventListeners.delete(listener);
      },
      onClose: (listener) => {
        this.qmpListeners.add(listener);
        return () => this.qmpListeners.delete(listener);
      },
      close() {},
    };
  }
}

export class FakeLauncher implements QemuLauncher {
  readonly qemus: FakeQemu[] = [];
  /** of the next QEMU */
  version: QmpVersion = { major: 11, minor: 1, micro: 0, text: '11.1.0' };
  /** what the next QEMU replies to query-kvm */
  kvm = { enabled: true };
  /** the nodes' ends of the VM ports */
  readonly vmPorts: FakeStream[] = [];
  /** QMP connects when this resolves */
  qmpReady: Promise<void> = Promise.resolve();

  get latest(): FakeQemu {
    return this.qemus[this.qemus.length - 1];
  }

  readonly probeExitWithParent = async (): Promise<boolean> => true;

  readonly start = async (): Promise<RunningQemu> => {
    const qemu = new FakeQemu(this.version, this.kvm);
    this.qemus.push(qemu);
    return qemu;
  };

  readonly connectQmp = async ({ signal }: ConnectOptions): Promise<QmpConnection> => {
    const { promise: ended, reject } = Promise.withResolvers<never>();
    signal?.addEventListener('abort', () => reject(new ColoError('COLO_QMP_CONNECT', 'QEMU has ended')));
    await Promise.race([this.qmpReady, ended]);
    return this.latest.qmp();
  };

  /** Connects to a VM port. */
  readonly connect = async (): Promise<FakeStream> => {
    const [near] = fakePair();
    this.vmPorts.push(near);
    return near;
  };
}
