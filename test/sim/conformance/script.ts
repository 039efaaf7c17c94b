/**
 * One script for a real QEMU and for the simulated one. It makes a pair, takes checkpoints, breaks the pair in each phase
 * and makes it again, and notes what both QEMUs report by QMP. The facts contain no times, so two kinds of QEMU that
 * behave alike give the same list.
 *
 * The migration stream goes through the production relay, which stops each message. A fact about such a phase is what
 * both QEMUs report when their replies have not changed for a while.
 */

import { MigrationRelay } from '../../../src/checkpoint/migration-relay.ts';
import { unixEndpoint } from '../../../src/endpoint.ts';
import { ColoError } from '../../../src/error.ts';
import type { KernelStream } from '../../../src/io/byte-stream.ts';
import { sleep } from '../../../src/io/clock.ts';
import type { Surroundings } from '../../../src/io/surroundings.ts';
import { queryCapabilities } from '../../../src/qemu/capabilities.ts';
import { CHECKPOINT_DELAY_OFF_MS, ColoVm } from '../../../src/qemu/colo.ts';
import { buildCommandLine } from '../../../src/qemu/command-line.ts';
import type { QemuLauncher, QmpConnection, RunningQemu } from '../../../src/qemu/launcher.ts';
import { QmpRefusedError } from '../../../src/qemu/qmp.ts';
import { FrameCutter } from '../frame-cutter.ts';

/** The surroundings of the script. */
export type Place = Surroundings & {
  readonly launcher: QemuLauncher;
  /** How to start QEMU. */
  readonly command: readonly string[];
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** For sockets. */
  readonly directory: string;
};

const DEADLINE_MS = 10_000;
const POLL_MS = 10;
const PORT_TRIES = 100;
const PORT_RETRY_MS = 20;
/** A reply that is the same this many times in a row counts as final. */
const CALM_LOOKS = 6;
const QUERY_MS = 2000;
/** A promoted VM sends the last of its five announcements after 800 ms. */
const ANNOUNCED_MS = 1500;

const KEY = { primary: 'P', secondary: 'S' } as const;

type Vm = {
  readonly qemu: RunningQemu;
  readonly qmp: QmpConnection;
  readonly colo: ColoVm;
  readonly incomingPath: string;
  readonly migrationPath: string;
  /** Frames from its port. */
  announced: number;
};

type Pair = { readonly primary: Vm; readonly secondary: Vm; readonly stream: HeldStream };
type Held = { readonly name: string; pass(): void };

/** A migration stream through a relay that stops each message until `pass`. */
class HeldStream {
  relay: MigrationRelay | null = null;
  closed = false;
  private readonly held: Held[] = [];

  hold(name: string, pass: () => void): void {
    this.held.push({ name, pass });
  }

  get waiting(): readonly string[] {
    return this.held.map((one) => one.name);
  }

  /** Passes the oldest message. */
  pass(): void {
    this.held.shift()?.pass();
  }
}

/** Runs the script and returns the facts. Ends all QEMUs that it has started. */
export async function conform(place: Place): Promise<string[]> {
  const script = new Script(place);
  try {
    await script.run();
  } catch (cause) {
    throw new Error(`after ${script.facts.at(-1)}`, { cause });
  } finally {
    await script.end();
  }
  return script.facts;
}

class Script {
  readonly facts: string[] = [];
  private readonly place: Place;
  private readonly vms: Vm[] = [];
  private title = '';

  constructor(place: Place) {
    this.place = place;
  }

  async end(): Promise<void> {
    for (const { qemu } of this.vms) qemu.kill();
    await Promise.all(this.vms.map(({ qemu }) => qemu.exited));
  }

  async run(): Promise<void> {
    let vm = await this.start(false);
    await this.refusals(vm);
    await this.lostFirstCopies(vm);
    await this.checkpoints(vm);
    await this.requestsInEachPhase(vm);
    for (const until of ['idle', 'reply', 'received']) await this.secondaryDies(vm, until);
    for (const until of ['idle', 'reply', 'received']) vm = await this.primaryDies(vm, until);
  }

  /* The scenes. */

  private async refusals(vm: Vm): Promise<void> {
    this.title = 'refusals';
    const incoming = await this.start(true);
    await this.look('started', { primary: vm, secondary: incoming });
    await this.outcome('a VM in use as the secondary', vm.colo.prepare('secondary'));
    await this.outcome('an incoming VM as the primary', incoming.colo.prepare('primary'));
    await this.outcome('failover of a VM that is alone', vm.colo.failover({ deadlineMs: DEADLINE_MS }));
    await this.outcome(
      'x-colo-lost-heartbeat to a VM that is alone',
      vm.qmp.execute('x-colo-lost-heartbeat'),
    );
    await this.outcome('yank of no migration', yank(vm));
    await this.outcome('failover of a VM that never got its state', incoming.colo.failover());
    await incoming.colo.prepare('secondary');
    await incoming.colo.listenIncoming(incoming.incomingPath);
    await this.look('listening', { primary: vm, secondary: incoming });
    await this.outcome('failover of a VM that listens', incoming.colo.failover());
    await this.look('after it', { secondary: incoming });
    incoming.qemu.kill();
    await incoming.qemu.exited;
  }

  private async lostFirstCopies(vm: Vm): Promise<void> {
    this.title = 'the first copy';
    await vm.colo.prepare('primary');
    await vm.qmp.execute('migrate', { uri: `unix:${vm.incomingPath}.nobody` }).catch(() => {});
    await this.look('nobody listens', { primary: vm });

    let pair = await this.begin(vm, false);
    // On a busy machine QEMU may take a while to notice that its stream is closed.
    await this.over(vm);
    await this.look('under way', pair);
    await kill(pair.secondary);
    await this.look('the secondary has died', { primary: vm });

    pair = await this.begin(vm, false);
    await pair.primary.colo.cancel();
    await this.ended('the secondary of a copy that was cancelled', pair.secondary);
    await this.look('cancelled', pair);

    pair = await this.begin(vm, true);
    await this.held(pair, ['ready']);
    await this.look('READY is held', pair);
    await this.outcome('cont', vm.qmp.execute('cont'));
    await kill(pair.secondary);
    await this.look('the secondary has died while READY was held', { primary: vm });
    await this.outcome('failover then', vm.colo.failover());
    await this.look('after it', { primary: vm });
  }

  private async checkpoints(vm: Vm): Promise<void> {
    this.title = 'a checkpoint';
    const pair = await this.protect(vm);
    await this.look('idle', pair);
    await this.outcome('another migration', vm.colo.startMigration(pair.secondary.incomingPath));
    await this.outcome('cancel', vm.colo.cancel());
    await vm.colo.requestCheckpoint();
    for (const held of [['request'], ['reply'], ['received', 'loaded'], ['loaded']]) {
      await this.held(pair, held);
      await this.look(`held: ${pair.stream.waiting.join(' ')}`, pair);
      pair.stream.pass();
    }
    await this.look('done', pair);
    await this.finish(pair);
  }

  /** How many checkpoints follow from two requests in the middle of one? */
  private async requestsInEachPhase(vm: Vm): Promise<void> {
    this.title = 'two requests';
    const pair = await this.begin(vm, true);
    await this.held(pair, ['ready']);
    for (const during of ['ready', 'request', 'reply', 'received', 'loaded']) {
      if (during !== 'ready') await vm.colo.requestCheckpoint();
      await this.passUntil(pair, during);
      // Without colo.ts, which would wait for READY: QEMU need not.
      for (let i = 0; i < 2; i++)
        await vm.qmp.execute('migrate-set-parameters', { 'x-checkpoint-delay': CHECKPOINT_DELAY_OFF_MS });
      await this.calm(pair);
      let further = 0;
      while (pair.stream.waiting.length > 0) {
        pair.stream.pass();
        await this.calm(pair);
        if (pair.stream.waiting[0] === 'request') further++;
      }
      this.fact(`while ${during} is held: ${further} more`);
    }
    await this.finish(pair);
  }

  private async secondaryDies(vm: Vm, during: string): Promise<void> {
    this.title = `the secondary dies, ${during}`;
    const pair = await this.protect(vm);
    if (during !== 'idle') await vm.colo.requestCheckpoint();
    await this.passUntil(pair, during);
    await kill(pair.secondary);
    await this.look('then', { primary: vm });
    await this.outcome('failover', vm.colo.failover({ deadlineMs: DEADLINE_MS }));
    await this.look('after it', { primary: vm });
  }

  private async primaryDies(vm: Vm, during: string): Promise<Vm> {
    this.title = `the primary dies, ${during}`;
    const pair = await this.protect(vm);
    const { secondary } = pair;
    if (during !== 'idle') await vm.colo.requestCheckpoint();
    await this.passUntil(pair, during);
    await kill(vm);
    await this.look('then', { secondary });
    await this.outcome('failover', secondary.colo.failover({ deadlineMs: DEADLINE_MS }));
    await this.look('after it', { secondary });
    if (during === 'idle') {
      await this.sleep(ANNOUNCED_MS);
      this.fact(`frames from its port: ${secondary.announced}`);
    }
    return secondary;
  }

  /* What the scenes are made of. */

  private async start(incoming: boolean): Promise<Vm> {
    const { place } = this;
    const path = `${place.directory}/${this.vms.length}`;
    const argv = buildCommandLine({
      command: [...place.command],
      args: [...place.args],
      name: 'conformance',
      nic: { mac: '52:54:00:12:34:56' },
      vmPort: `${path}.port`,
      qmp: `${path}.qmp`,
      incoming,
      exitWithParent: await place.launcher.probeExitWithParent(place.command, place.env),
    });
    const qemu = await place.launcher.start({ argv, env: place.env });
    const qmp = await place.launcher.connectQmp({
      endpoint: unixEndpoint(`${path}.qmp`),
      deadlineMs: DEADLINE_MS,
      signal: qemu.signal,
    });
    const colo = new ColoVm(qmp, await queryCapabilities(qmp), place);
    const vm = {
      qemu,
      qmp,
      colo,
      incomingPath: `${path}.incoming`,
      migrationPath: `${path}.migration`,
      announced: 0,
    };
    this.vms.push(vm);
    const port = await this.connectPort(`${path}.port`);
    const buffer = new Uint8Array(4096);
    const cutter = new FrameCutter(() => {
      vm.announced++;
    });
    port.start({
      buffer: () => buffer,
      read: (bytes) => cutter.feed(buffer, bytes),
      closed: () => {},
    });
    return vm;
  }

  /** On a busy machine QEMU greets on QMP before it listens on the port. */
  private async connectPort(path: string): Promise<KernelStream> {
    const { transports, timers } = this.place;
    for (let tries = 1; ; tries++) {
      try {
        return await transports.connect(unixEndpoint(path));
      } catch (cause) {
        if (tries === PORT_TRIES) throw cause;
        await sleep(timers, PORT_RETRY_MS);
      }
    }
  }

  /** Starts a secondary and its first copy, through a relay that passes no message unless it `flows`. */
  private async begin(primary: Vm, flows: boolean): Promise<Pair> {
    const { transports } = this.place;
    const secondary = await this.start(true);
    await secondary.colo.prepare('secondary');
    await secondary.colo.listenIncoming(secondary.incomingPath);
    await primary.colo.resetAfterFailover();
    const stream = new HeldStream();
    const path = secondary.migrationPath;
    const listener = await transports.listen({ kind: 'unix', mode: 'listen', path }, async (qemu) => {
      const relay = new MigrationRelay(
        'primary',
        qemu,
        await transports.connect(unixEndpoint(secondary.incomingPath)),
        {
          request: () => stream.hold('request', () => relay.passRequest()),
          message: (message) => stream.hold(message, () => relay.pass(message)),
          closed: () => {
            stream.closed = true;
          },
        },
      );
      stream.relay = relay;
      relay.start();
      if (!flows) relay.close();
    });
    await primary.colo.startMigration(path);
    await listener.close();
    return { primary, secondary, stream };
  }

  private async protect(primary: Vm): Promise<Pair> {
    const pair = await this.begin(primary, true);
    await this.held(pair, ['ready']);
    pair.stream.pass();
    await primary.colo.waitForColo({ deadlineMs: DEADLINE_MS });
    await pair.secondary.colo.waitForColo({ deadlineMs: DEADLINE_MS });
    await this.calm(pair);
    return pair;
  }

  /** Ends the secondary. */
  private async finish(pair: Pair): Promise<void> {
    await kill(pair.secondary);
    await pair.primary.colo.failover({ deadlineMs: DEADLINE_MS });
  }

  /** Waits until the relay has stopped exactly these messages. */
  private async held(pair: Pair, names: readonly string[]): Promise<void> {
    const { stream } = pair;
    for (let ms = 0; stream.waiting.length < names.length && ms < DEADLINE_MS; ms += POLL_MS) {
      if (stream.closed) break;
      await this.sleep(POLL_MS);
    }
    if (stream.waiting.join() !== names.join())
      this.fact(`held: ${stream.waiting.join(' ')} where ${names.join(' ')} should be`);
  }

  private async passUntil(pair: Pair, name: string): Promise<void> {
    if (name === 'idle' || pair.stream.waiting[0] === name) return;
    await this.held(pair, ['request']);
    for (const next of ['reply', 'received', 'loaded']) {
      if (pair.stream.waiting[0] === name) break;
      pair.stream.pass();
      await this.held(pair, next === 'received' ? ['received', 'loaded'] : [next]);
    }
    await this.calm(pair);
  }

  /** Returns what both report when it does not change any more. */
  private async calm(vms: Partial<Pair>): Promise<string[]> {
    let last: string[] = [];
    let same = 0;
    for (let ms = 0; same < CALM_LOOKS && ms < DEADLINE_MS; ms += POLL_MS) {
      const now: string[] = [];
      for (const role of ['primary', 'secondary'] as const) {
        const vm = vms[role];
        if (vm !== undefined) now.push(`${KEY[role]} ${await this.describe(vm)}`);
      }
      now.push(vms.stream?.waiting.join() ?? '');
      same = now.join() === last.join() ? same + 1 : 0;
      last = now;
      await this.sleep(POLL_MS);
    }
    return last.slice(0, -1);
  }

  private async look(when: string, vms: Partial<Pair>): Promise<void> {
    for (const line of await this.calm(vms)) this.fact(`${when}: ${line}`);
  }

  private async describe(vm: Vm): Promise<string> {
    if (vm.qemu.signal.aborted) return 'has ended';
    const ask = <T>(command: string) => vm.qmp.execute<T>(command, undefined, { timeoutMs: QUERY_MS });
    try {
      const { status, running } = await ask<{ status: string; running: boolean }>('query-status');
      const colo = await ask<Record<string, string>>('query-colo-status');
      const migration = await ask<{ status?: string }>('query-migrate');
      const instances = await ask<{ type: string }[]>('query-yank');
      const yankable = instances.some((one) => one.type === 'migration') ? 'a stream' : 'no stream';
      const modes = `COLO ${colo.mode}, before ${colo['last-mode']}, ${colo.reason}`;
      return `${running ? 'runs' : 'stands'}, ${status}; ${modes}; migration ${migration.status ?? 'none'}, ${yankable}`;
    } catch (error) {
      if (error instanceof ColoError && error.code === 'COLO_QMP_CLOSED') return 'has ended';
      return `does not answer: ${(error as Error).message}`;
    }
  }

  private async outcome(what: string, done: Promise<unknown>): Promise<void> {
    try {
      await done;
      this.fact(`${what}: done`);
    } catch (error) {
      if (error instanceof QmpRefusedError) this.fact(`${what}: refused`);
      else this.fact(`${what}: ${error instanceof ColoError ? error.code : String(error)}`);
    }
  }

  /** Waits until no migration is in progress. */
  private async over(vm: Vm): Promise<void> {
    for (let ms = 0; ms < DEADLINE_MS; ms += POLL_MS) {
      const { status } = await vm.qmp.execute<{ status?: string }>('query-migrate');
      if (status !== 'setup' && status !== 'active') return;
      await this.sleep(POLL_MS);
    }
  }

  private async ended(what: string, vm: Vm): Promise<void> {
    for (let ms = 0; !vm.qemu.signal.aborted && ms < DEADLINE_MS; ms += POLL_MS) await this.sleep(POLL_MS);
    this.fact(`${what}: ${vm.qemu.signal.aborted ? 'has ended' : 'lives'}`);
  }

  private fact(text: string): void {
    this.facts.push(`${this.title}; ${text}`);
  }

  private sleep(ms: number): Promise<void> {
    return sleep(this.place.timers, ms);
  }
}

async function kill(vm: Vm): Promise<void> {
  vm.qemu.kill();
  await vm.qemu.exited;
}

function yank(vm: Vm): Promise<unknown> {
  return vm.qmp.executeOob('yank', { instances: [{ type: 'migration' }] });
}
