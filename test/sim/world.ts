/**
 * A world: two hosts with the production code of both nodes, simulated QEMUs with a guest, clients, a network, an
 * arbiter, and what goes wrong. One seed decides all of it.
 *
 * `runWorld` runs one to its end: faults for a while, then quiet, until the pair is protected again and every client
 * has done what it came for. What must hold is in rules.ts and checked as things happen.
 */
import { type NodeConfig, parseNodeConfig } from '../../src/config/node-config.ts';
import { InvariantError } from '../../src/error.ts';
import { newSlabMemory, type SlabMemory, type SlabPool } from '../../src/frames/slabs.ts';
import { ColoNode } from '../../src/node/node.ts';
import type { PairRecord } from '../../src/pair/arbiter.ts';
import { describeFault, type Fault, planFaults, type Side } from './faults.ts';
import type { Client, ClientHost } from './guest/client.ts';
import { Die } from './guest/die.ts';
import { Guest } from './guest/guest.ts';
import { GUEST_MAC, makeMix } from './guest/mix.ts';
import { get32 } from './guest/packets.ts';
import { Injector } from './injector.ts';
import { Loop, Process } from './loop.ts';
import { Network } from './network.ts';
import { Audit } from './rules/audit.ts';
import { OutputCommit, type SaidOutput } from './rules/output-commit.ts';
import { ArbiterRecord, type Lost, SimArbiter } from './sim-arbiter.ts';
import { ARBITER_MS_MAX, type Life, type SimHost } from './sim-host.ts';
import { type Consumed, type Phase, type SimQemu, simLauncher } from './sim-qemu.ts';
import { type SimSocket, Sockets } from './sockets.ts';
import { WORLD_LIMITS } from './world-limits.ts';

export type WorldOptions = {
  /** Faults (by their place in the plan) that are left out. */
  readonly without?: ReadonlySet<number>;
  readonly trace?: (line: string) => void;
  /** Every frame on the network, with who sent it. */
  readonly onFrame?: (atMs: number, port: string, frame: Uint8Array) => void;
};

export type Violation = { atMs: number; rule: string; text: string };

export type WorldResult = {
  seed: number;
  violations: Violation[];
  /** Those that were planned, and which of them were not left out. */
  faults: string[];
  left: number[];
  virtualMs: number;
  steps: number;
  stats: Record<string, number>;
};

const FAULTS_FROM_MS = 2000;
const FAULTS_UNTIL_MS = 48_000;
const LIFE_MS_MIN = 60_000;
/** Once nothing goes wrong any more, all must be well after so long: a cold start alone may take 12 s of it. */
const RECOVERY_MS_MAX = 90_000;
/** Clients are busy for about as long as things go wrong. */
const WORK_MS = 50_000;
/** Longer than any client rests. */
const PROGRESS_MS = 5000;
const CHECK_MS = 50;
const LONG_STREAM_BYTES = 3000;
const VIOLATIONS_MAX = 20;
/** A promoted node writes what it kept at once; its VM needs a moment to be read. */
const SHOWN_AFTER_MS = 100;
/** The limits of waiting are 200 ms (schema.ts); a checkpoint and its retries take the rest. */
const WAIT_MS_MAX = 1000;
const WAIT_CALM_MS = 5000;
const STARVED_MS = 15_000;

/** Runs one world. It needs the microtask queue to itself, so it begins in a turn of its own. */
export function runWorld(seed: number, options: WorldOptions = {}): Promise<WorldResult> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      const world = new World(seed, options);
      const unhandled = (cause: unknown) => world.unhandled(cause);
      process.on('unhandledRejection', unhandled);
      InvariantError.onFailure = (failure) => world.failed(failure);
      try {
        resolve(world.run());
      } catch (cause) {
        reject(cause);
      } finally {
        process.off('unhandledRejection', unhandled);
        InvariantError.onFailure = null;
      }
    });
  });
}

/** Not in use: getting memory afresh costs more than a node's whole start. */
const slabMemories: SlabMemory[] = [];

/** The primary's VM, and what the one that got its state has said. */
type Partner = { primary: SimQemu; said: SaidOutput };

class World {
  private readonly seed: number;
  private readonly options: WorldOptions;
  private readonly loop = new Loop();
  private readonly die: Die;
  private readonly sockets: Sockets;
  private readonly record = new ArbiterRecord();
  private readonly network: Network;
  private readonly outside: Process;
  private readonly hosts: Record<Side, SimHost>;
  private readonly clients: ClientHost[] = [];
  /** of these, those whose network loses frames */
  private readonly lossy = new Set<ClientHost>();
  private readonly mix: ReturnType<typeof makeMix>;
  private readonly faults: Fault[];
  private readonly violations: Violation[] = [];
  private readonly stats: Record<string, number> = {};
  private readonly outputCommit = new OutputCommit();
  /** what went with the state that was taken last */
  private taken: ReturnType<SaidOutput['snapshot']> | null = null;
  private partner: Partner | null = null;
  /** of the checkpoint that is being taken, if it may be inexact */
  private unlikeInput: string | null = null;
  private lastWasInexact = false;
  private booted = false;
  private covered = false;
  /** when it last started afresh */
  private serviceSinceMs = 0;
  private readonly injector: Injector;

  constructor(seed: number, options: WorldOptions) {
    this.seed = seed;
    this.options = options;
    this.die = new Die(seed);
    this.loop.onThrow = (owner, cause) => this.thrown(owner, cause);
    this.sockets = new Sockets(this.loop, this.newDie());
    this.outside = new Process(this.loop, 'outside', this.newDie());
    const { die } = this;
    this.network = new Network(this.loop, this.newDie(), die.chance(0.5));
    this.network.tap = options.onFrame
      ? (port, frame) => options.onFrame?.(this.loop.nowMs, port, frame)
      : null;
    this.mix = makeMix({ seed: this.nextSeed(), durationMs: WORK_MS, clients: die.within(2, 4) });
    for (const { clients } of this.mix.hosts) for (const client of clients) slowDown(client, die);
    this.faults = planFaults(this.newDie(), FAULTS_FROM_MS, FAULTS_UNTIL_MS);
    this.hosts = { a: this.makeHost('a', 'b'), b: this.makeHost('b', 'a') };
    for (const key of ['a>b', 'b>a']) {
      const route = this.sockets.route(...(key.split('>') as [string, string]));
      route.delayMs = die.pick([0.05, 0.3, 2]);
      route.jitterMs = die.pick([0.05, 1, 10]);
    }
    for (const spec of this.mix.hosts) this.addClient(spec);
    this.injector = new Injector({
      loop: this.loop,
      die,
      sockets: this.sockets,
      network: this.network,
      record: this.record,
      hosts: this.hosts,
      mix: this.mix,
      start: (host, afterMs) => this.start(host, afterMs),
      ended: (host, life, how) => this.ended(host, life, how),
      trace: (who, what) => this.trace(who, what),
      count: (what) => this.count(what),
    });
    this.record.onChange = (record, by) => this.recordChanged(record, by);
    this.record.onAsked = (record) => this.changeAsked(record);
  }

  run(): WorldResult {
    this.start(this.hosts.a, 0);
    this.start(this.hosts.b, this.die.within(0, 1500));
    this.faults.forEach((fault, i) => {
      if (this.options.without?.has(i) !== true)
        this.loop.at(fault.atMs, null, () => this.injector.inject(fault));
    });
    const endMs = FAULTS_UNTIL_MS + RECOVERY_MS_MAX;
    for (let checkMs = CHECK_MS; this.violations.length === 0; checkMs += CHECK_MS) {
      while (this.violations.length === 0 && this.loop.step(checkMs));
      this.loop.nowMs = checkMs;
      this.check();
      if (checkMs >= LIFE_MS_MIN && this.isWell()) break;
      if (checkMs >= endMs) {
        this.violation('liveness', this.whatIsMissing());
        break;
      }
    }
    for (const { life } of Object.values(this.hosts)) if (life !== null) slabMemories.push(life.slabMemory);
    return {
      seed: this.seed,
      violations: this.violations,
      faults: this.faults.map(describeFault),
      left: [...this.faults.keys()].filter((i) => this.options.without?.has(i) !== true),
      virtualMs: this.loop.nowMs,
      steps: this.loop.steps,
      stats: { ...this.stats, ...this.network.counters },
    };
  }

  /** A promise that nobody looked at: Node would end the process. */
  unhandled(cause: unknown): void {
    this.violation('assertion', `unhandled rejection: ${stackOf(cause)}`);
  }

  /** An invariant of the code does not hold, whoever catches the error. */
  failed(failure: InvariantError): void {
    this.violation('assertion', stackOf(failure));
  }

  /* Making it. */

  private nextSeed(): number {
    return Math.floor(this.die.next() * 0x1_0000_0000);
  }

  private newDie(): Die {
    return new Die(this.nextSeed());
  }

  private makeHost(side: Side, other: Side): SimHost {
    const { die } = this;
    const quality = { delayMs: die.pick([0.05, 0.5]), jitterMs: die.pick([0, 0.1]), loss: 0, duplication: 0 };
    const host: SimHost = {
      name: side,
      side,
      up: true,
      unix: new Map(),
      config: configOf(side, other, die),
      arbiterWay: { delayMsMax: die.pick([1, 5, ARBITER_MS_MAX]), cutUntilMs: 0, lossy: 0 },
      life: null,
      vmDied: false,
      qemu: null,
      guest: null,
      uplinkSocket: null,
      uplinkResets: 0,
      write: null,
      promotion: null,
      counted: { uplinkIn: 0, uplinkOut: 0 },
      slow: { inputMs: die.pick([0, 0, 1, 8]), outputMs: die.pick([0, 0, 0.5, 20]) },
      faultUntilMs: 0,
    };
    const plug = this.network.socketPort(`uplink-${side}`, quality, host.counted);
    host.unix.set('/net/uplink', {
      owner: this.outside,
      accept: (stream) => {
        const { peer } = stream as SimSocket;
        host.write = null;
        peer.onWrite = (bytes) => this.spoke(host, bytes);
        peer.onCork = () => this.aboutToWrite(host);
        peer.onUncork = () => {
          host.write = null;
        };
        host.uplinkSocket = peer;
        plug(stream);
      },
    });
    return host;
  }

  private addClient(spec: (typeof this.mix.hosts)[number]): void {
    const { die, loop } = this;
    const own = this.newDie();
    const quality = {
      delayMs: die.pick([0.1, 1, 20]),
      jitterMs: die.pick([0, 0.2, 3]),
      loss: die.pick([0, 0, 0.01]),
      duplication: die.pick([0, 0, 0.01]),
    };
    let host: ClientHost | null = null;
    const send = this.network.plug(`client-${this.clients.length}`, quality, () => host as ClientHost);
    const port = {
      send,
      now: () => loop.nowMs,
      wake: (atMs: number) => {
        if (atMs !== Number.POSITIVE_INFINITY) loop.at(atMs, null, () => host?.tick());
      },
      random: () => own.next(),
    };
    host = spec.make(port);
    this.clients.push(host);
    if (quality.loss > 0) this.lossy.add(host);
  }

  /* Nodes. */

  private start(host: SimHost, afterMs: number): void {
    this.loop.after(afterMs, null, () => {
      if (!host.up || host.life !== null) return;
      const own = this.newDie();
      const process = new Process(this.loop, `node-${host.side}`, own, 1 + (own.next() - 0.5) * 0.002);
      const events = {
        emit: (type: string, details: Readonly<Record<string, unknown>> = {}) =>
          this.noted(host, type, details),
      };
      const transports = this.sockets.transportsOf(host, process);
      const launcher = simLauncher(
        process,
        {
          loop: this.loop,
          sockets: this.sockets,
          host,
          mac: GUEST_MAC,
          slow: host.slow,
          accel: own.chance(0.8) ? 'kvm' : 'tcg',
          makeGuest: (port) => {
            host.guest = new Guest(port, this.mix.guest);
            return host.guest;
          },
          events: {
            died: (qemu) => this.vmDied(host, qemu),
            phase: (qemu, phase) => this.reached(host, qemu, phase),
            taken: (qemu) => {
              this.taken = qemu.said.snapshot();
            },
            loaded: (qemu, ownInput, theirs, first) => this.loaded(qemu, ownInput, theirs, first),
            note: (qemu, text) => this.trace(qemu.name, text),
          },
        },
        () => this.nextSeed(),
        (qemu) => this.vmStarted(host, qemu),
      );
      const slabMemory = slabMemories.pop() ?? newSlabMemory(WORLD_LIMITS.slabBytes, WORLD_LIMITS.slabsMax);
      const node = new ColoNode({
        config: host.config,
        arbiter: new SimArbiter(this.record, host.arbiterWay, process, this.newDie()),
        events,
        surroundings: { clock: process, timers: process, transports },
        launcher,
        hashSeed: own.within(0, 0x7ffffffe),
        limits: WORLD_LIMITS,
        slabMemory,
      });
      const life = { process, node, slabMemory, audit: new Audit(node, WORLD_LIMITS) };
      host.life = life;
      host.vmDied = false;
      this.trace(process.name, 'starts');
      this.loop.after(0, process, () => {
        node.start().then(
          () => {},
          (cause: unknown) => this.ended(host, life, `could not start: ${String(cause)}`),
        );
        void node.done.then((code) => this.ended(host, life, `exit ${code}`));
      });
    });
  }

  private ended(host: SimHost, life: Life, how: string): void {
    if (host.life !== life) return;
    this.trace(life.process.name, `ends: ${how}`);
    this.count('node ends');
    host.life = null;
    life.process.kill();
    slabMemories.push(life.slabMemory);
    if (host.up) this.start(host, this.die.within(300, 3000));
  }

  private thrown(owner: Process | null, cause: unknown): void {
    if (cause instanceof InvariantError) return;
    this.violation('exception', `${owner?.name ?? 'world'}: ${stackOf(cause)}`);
  }

  private noted(host: SimHost, type: string, details: Readonly<Record<string, unknown>>): void {
    this.count(type);
    if (type === 'checkpoint.committed') this.committed(details);
    if (type === 'failover.done') {
      this.promoted(host);
      host.life?.audit.tookOver(details as { sentFrames: number; deliveredFrames: number });
    }
    if (this.options.trace === undefined) return;
    const { pid: _, ...rest } = details;
    this.trace(`node-${host.side}`, `${type} ${JSON.stringify(rest)}`);
  }

  /** A checkpoint is exact, or says that it is not. */
  private committed(details: Readonly<Record<string, unknown>>): void {
    this.lastWasInexact = details.inexact !== undefined;
    if (this.lastWasInexact) this.count('inexact');
    else if (this.unlikeInput !== null) this.violation('same input', `unsaid: ${this.unlikeInput}`);
    this.unlikeInput = null;
    if (String(details.reason).startsWith('limit')) this.count(`checkpoints for ${details.reason}`);
  }

  /* VMs, and which of them carry the service. */

  private vmStarted(host: SimHost, qemu: SimQemu): void {
    host.qemu = qemu;
    host.vmDied = false;
    this.trace(qemu.name, `starts${qemu.incoming ? ', waiting for state' : ''}`);
    if (qemu.incoming) return;
    if (!this.booted) {
      this.booted = true;
      this.lineage();
      return;
    }
    this.count('cold starts');
    this.serviceSinceMs = this.loop.nowMs;
    if (this.covered) {
      this.violation('nothing lost', `${host.side} starts its VM afresh while a copy of the service lives`);
      return;
    }
    // Both copies were lost: clients are told nothing, and what they know is void. What a node that stands still in
    // the middle of a write would say of it yet must not reach them.
    for (const one of Object.values(this.hosts))
      if (one.life?.process.isMidway) this.ended(one, one.life, 'killed with the service');
    for (const client of this.clients) client.forgive();
  }

  private vmDied(host: SimHost, qemu: SimQemu): void {
    this.trace(qemu.name, 'dies');
    if (host.qemu === qemu) host.qemu = null;
    host.vmDied = true;
    const { record } = this.record.held;
    if (!this.injector.injecting && this.covered && record?.state === 'alone' && record.primary === host.side)
      this.violation('nothing lost', `${host.side} is alone by the record, and its node ended its VM`);
    this.lineage(this.injector.injecting ? null : `${host.side}'s node ended its VM`, host);
  }

  private recordChanged(record: PairRecord, by: string): void {
    this.trace('arbiter', `${JSON.stringify(record)} by ${by}`);
    this.count('generations');
    this.checkVoices();
    if (record.state === 'alone' && by === `node-${record.primary}`)
      this.watchPromotion(this.hosts[record.primary as Side]);
    this.lineage(`${by} changed the record`, this.hosts[record.primary as Side]);
  }

  /** Whoever asks to go on alone must have what goes on, however many faults there are: the other's copy may be the last. */
  private changeAsked(record: PairRecord): Lost {
    if (record.state !== 'alone') return null;
    if (this.covered && this.hosts[record.primary as Side].vmDied)
      this.violation('nothing lost', `${record.primary} asks to go on alone, and its VM is dead`);
    return this.injector.lostOfClaim(record);
  }

  /** Does a VM live that may carry on? If there was one and now there is none, somebody must be to blame. */
  private lineage(decision: string | null = null, host: SimHost | null = null): void {
    const { record } = this.record.held;
    const carries = (side: string | null): boolean => {
      const one = side === null ? undefined : this.hosts[side as Side];
      return one?.qemu?.process.alive === true && (one.qemu.hasState || !one.qemu.incoming);
    };
    const before = this.covered;
    this.covered =
      record !== null && (carries(record.primary) || (record.state === 'pair' && carries(record.secondary)));
    if (!before || this.covered) return;
    this.count('services lost');
    this.trace('world', `no copy of the service is left (${decision ?? 'a fault'})`);
    if (decision === null) return;
    const recently = this.loop.nowMs - 15_000;
    if (Object.values(this.hosts).some((one) => one.faultUntilMs > recently)) return;
    this.violation(
      'nothing lost',
      `the last copy of the service was given up: ${decision} (${host?.side ?? '?'})`,
    );
  }

  private loaded(qemu: SimQemu, own: Consumed, theirs: Consumed, first: boolean): void {
    this.count('checkpoints loaded');
    this.unlikeInput = null;
    if (first || (own.frames === theirs.frames && own.digest === theirs.digest)) return;
    const text = `${qemu.name} had consumed ${own.frames} frames (${own.digest}), the primary's VM ${theirs.frames} (${theirs.digest})`;
    // What the SVM had not taken in time, it takes in the next epoch.
    if (this.lastWasInexact) this.count('after an inexact one');
    else if (this.loop.nowMs < this.injector.inexactUntilMs) this.unlikeInput = text;
    else this.violation('same input', text);
  }

  /** The node has looked at its clock. */
  private aboutToWrite(host: SimHost): void {
    // Of one that stands still, what comes after is another write.
    if (host.write !== null) return;
    host.write = { bytes: 0, runs: 0, said: null };
    this.injector.aboutToWrite(host, this.partner?.said ?? null);
  }

  /**
   * Rule 2, seen from outside: who writes to the network is who the record names. A process that stood still before a
   * write may make that one late, which is short, and was true when it was decided.
   */
  private spoke(host: SimHost, bytes: Uint8Array): void {
    const { record } = this.record.held;
    const { write } = host;
    const late = record?.primary !== host.side;
    if (late && write?.said == null)
      this.violation('one voice', `${host.side} speaks while the record is ${JSON.stringify(record)}`);
    else if (late && write?.bytes === 0) this.count('late writes');
    if (write !== null) {
      write.bytes += bytes.length;
      if (++write.runs > 1 && write.bytes > WORLD_LIMITS.uplinkWriteBytesMax)
        this.violation('one voice', `${host.side} gives ${write.bytes} bytes to its uplink at once`);
    }
    const bound = record?.state === 'pair' && this.partner?.primary === host.qemu;
    const said = write?.said ?? (bound ? (this.partner as Partner).said : (host.qemu?.said ?? null));
    for (let at = 4; at < bytes.length; ) {
      const end = at + get32(bytes, at - 4);
      host.counted.uplinkOut++;
      const text = this.outputCommit.released(bytes, at, end, said);
      if (text !== null) this.violation('output commit', `${host.side}: ${text}`);
      at = end + 4;
    }
  }

  /** Also who has nothing to say just then must not be able to. */
  private checkVoices(): void {
    const { record } = this.record.held;
    for (const host of Object.values(this.hosts)) {
      const { life } = host;
      if (life === null || record?.primary === host.side || !life.audit.maySpeak(life.process.now()))
        continue;
      this.violation('one voice', `${host.side} may speak while the record is ${JSON.stringify(record)}`);
    }
  }

  /** The record has just been given to a secondary: what its VM has said is what clients will have been told. */
  private watchPromotion(host: SimHost): void {
    const { qemu } = host;
    if (qemu === null || qemu.said !== this.partner?.said) return;
    host.promotion = { qemu, said: qemu.said.sinceCommit(), uplinkResets: host.uplinkResets };
  }

  private promoted(host: SimHost): void {
    const { promotion } = host;
    host.promotion = null;
    if (promotion === null) return;
    this.loop.after(SHOWN_AFTER_MS, null, () => {
      const gone = host.qemu !== promotion.qemu || host.uplinkResets !== promotion.uplinkResets;
      if (gone || host.faultUntilMs > this.loop.nowMs - SHOWN_AFTER_MS || host.life?.audit.hasUplink !== true)
        return;
      const text = this.outputCommit.missing(promotion.said, promotion.qemu.said);
      if (text !== null) this.violation('nothing lost', `${host.side}: ${text}`);
    });
  }

  /** A secondary has a whole state: what its VM has said is what the primary may release. */
  private received(host: SimHost, qemu: SimQemu): void {
    const primary = this.other(host).qemu;
    if (this.taken === null) return;
    qemu.said.become(this.taken);
    this.partner = primary === null ? null : { primary, said: qemu.said };
  }

  /* Faults. */

  private reached(host: SimHost, qemu: SimQemu, phase: Phase): void {
    this.trace(qemu.name, `phase ${phase}`);
    if (phase === 'received') this.received(host, qemu);
    this.injector.reached(host, phase);
  }

  private other(host: SimHost): SimHost {
    return host.side === 'a' ? this.hosts.b : this.hosts.a;
  }

  /* Is all well? */

  private check(): void {
    this.checkVoices();
    for (const host of this.clients) {
      for (const { name, violations } of host.clients)
        for (const text of violations) this.violation('client', `${name}: ${text}`);
    }
    for (const host of Object.values(this.hosts)) {
      const slabs = (host.life?.node as unknown as { slabs: SlabPool } | undefined)?.slabs;
      if (slabs !== undefined) this.stats.slabs = Math.max(this.stats.slabs ?? 0, slabs.inUse);
      const { life } = host;
      if (life === null) continue;
      const wrong = life.process.isMidway ? null : life.audit.check(host.qemu, host.counted);
      if (wrong !== null) this.violation(wrong[0], `${host.side}: ${wrong[1]}`);
      this.stats.slabsIdle = Math.max(this.stats.slabsIdle ?? 0, life.audit.slabsIdleMax);
      this.checkWait(host, life);
    }
    this.checkClients();
  }

  /** Retransmissions may be seconds apart; then whoever is not done gets on, unless one after the other was lost. */
  private checkClients(): void {
    const sinceMs = this.loop.nowMs - STARVED_MS;
    if (this.serviceSinceMs > sinceMs) return;
    for (const host of this.clients) {
      if (this.lossy.has(host)) continue;
      for (const client of host.clients) {
        if (client.lastProgressMs >= sinceMs || client.finished()) continue;
        if (!this.isCalm(STARVED_MS) || !this.isProtected) return;
        this.violation('liveness', `${client.name} has got nowhere for ${STARVED_MS} ms, and all is well`);
      }
    }
  }

  /** Held output waits for its counterpart or for a checkpoint, and for nothing else. */
  private checkWait(host: SimHost, { node }: Life): void {
    // A status is dear.
    if (this.stats.heldMs !== undefined && !this.isCalm(WAIT_CALM_MS)) return;
    const { phase, held } = node.status();
    if (phase !== 'protected') return;
    const calm = this.isCalm(WAIT_CALM_MS);
    this.stats.heldMs = Math.max(this.stats.heldMs ?? 0, Math.round(calm ? held.oldestMs : 0));
    if (held.oldestMs > WAIT_MS_MAX && calm)
      this.violation('waiting', `${host.side} has held a frame for ${held.oldestMs.toFixed(0)} ms`);
  }

  /** Nothing was wrong with either host for so long. */
  private isCalm(ms: number): boolean {
    const sinceMs = this.loop.nowMs - ms;
    return this.hosts.a.faultUntilMs < sinceMs && this.hosts.b.faultUntilMs < sinceMs;
  }

  private get isProtected(): boolean {
    const phases = Object.values(this.hosts).map((host) => host.life?.node.status().phase);
    return this.record.held.record?.state === 'pair' && phases.every((phase) => phase === 'protected');
  }

  /** Whoever is not done is getting on. */
  private isWell(): boolean {
    const sinceMs = this.loop.nowMs - PROGRESS_MS;
    return (
      this.isProtected &&
      this.clients.every(({ clients }) =>
        clients.every((client) => client.finished() || client.lastProgressMs > sinceMs),
      )
    );
  }

  private whatIsMissing(): string {
    const clients = this.clients
      .flatMap((host) => host.clients)
      .filter((client) => !client.finished())
      .map((client) => `${client.name}: last progress at ${client.lastProgressMs.toFixed(0)} ms`);
    const nodes = Object.values(this.hosts).map(
      (host) => `${host.side} ${host.life?.node.status().phase ?? 'down'}`,
    );
    return [...nodes, ...clients].join('; ');
  }

  private violation(rule: string, text: string): void {
    this.trace('VIOLATION', `${rule}: ${text}`);
    if (this.violations.length < VIOLATIONS_MAX) this.violations.push({ atMs: this.loop.nowMs, rule, text });
  }

  private count(what: string): void {
    this.stats[what] = (this.stats[what] ?? 0) + 1;
  }

  private trace(who: string, what: string): void {
    this.options.trace?.(`${this.loop.nowMs.toFixed(3).padStart(11)} ${who.padEnd(10)} ${what}`);
  }
}

/**
 * What clients do is spread over a world's life: a thousand worlds find more than one that is thirty times as busy.
 */
function slowDown(client: Client, die: Die): void {
  const { options } = client as unknown as {
    options?: {
      restMsMax?: number;
      requests?: number;
      bytesMax?: number;
      everyMs?: number;
      datagrams?: number;
    };
  };
  // Of long streams one in 3 s is more frames than all else.
  const restMs = die.pick((options?.bytesMax ?? 0) > LONG_STREAM_BYTES ? [3000] : [200, 1000, 3000]);
  if (options?.requests !== undefined) {
    options.restMsMax = restMs;
    options.requests = Math.round(WORK_MS / (restMs / 2 + 20));
  } else if (options?.datagrams !== undefined) {
    options.everyMs = restMs / 2;
    options.datagrams = Math.round(WORK_MS / options.everyMs);
  }
}

const configs = new Map<string, NodeConfig>();

function configOf(side: Side, other: Side, die: Die): NodeConfig {
  const checkpointMs = die.pick([500, 2000, 5000]);
  const text = `
node: ${side}
pair: sim
link: { listen: "tcp-listen:${side}:7000", peer: "tcp:${other}:7000" }
uplink: "unix:/net/uplink"
arbiter: { directory: /arbiter }
vm: { command: [qemu], args: [], mac: "52:54:00:12:34:56", addresses: ["10.0.2.15", "fd00::15"] }
runDirectory: /run/${side}
checkpoint: { intervalMsMax: ${checkpointMs} }
`;
  const known = configs.get(text);
  if (known !== undefined) return known;
  const config = parseNodeConfig(text, '/sim.yaml');
  configs.set(text, config);
  return config;
}

function stackOf(cause: unknown): string {
  return cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
}
