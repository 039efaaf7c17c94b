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
import { LIMITS, type Limits } from '../../src/limits.ts';
import { ColoNode } from '../../src/node/node.ts';
import type { PairRecord } from '../../src/pair/arbiter.ts';
import { type Broken, describeFault, type Fault, planFaults, type Side } from './faults.ts';
import type { Client, ClientHost } from './guest/client.ts';
import { Die } from './guest/die.ts';
import { Guest } from './guest/guest.ts';
import { GUEST_MAC, makeMix } from './guest/mix.ts';
import { get32 } from './guest/packets.ts';
import { Loop, Process } from './loop.ts';
import { Network } from './network.ts';
import { Audit, type Counted } from './rules/audit.ts';
import { OutputCommit, type Said, type SaidOutput } from './rules/output-commit.ts';
import { ArbiterRecord, type ArbiterWay, type Lost, SimArbiter } from './sim-arbiter.ts';
import { type Consumed, type Phase, type SimQemu, simLauncher } from './sim-qemu.ts';
import { type Host, type Route, type SimSocket, Sockets } from './sockets.ts';

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
const ARBITER_MS_MAX = 30;
const CONTEST_ARBITER_MS = 400;
/** A promoted node writes what it kept at once; its VM needs a moment to be read. */
const SHOWN_AFTER_MS = 100;
/** A primary that has nothing to say for so long is not stopped any more. */
const STALL_WITHIN_MS = 3000;
/** Held until the commit, and then more than one write takes. */
const LONG_WRITE: BurstAt = {
  kind: 'burst-at',
  phase: 'reply',
  who: 'primary',
  datagrams: 60,
  bytes: 1400,
  own: true,
};
/** A network that hands on what a node said long after another has taken over is beyond what the pair can heal. */
const UPLINK_STALL_MS_MAX = 800;
const UPLINK_AFTER_DEATH_MS = 50;
/** Of 1400 bytes: more than the socket takes. */
const UPLINK_FULL_DATAGRAMS = 250;
/** Handshakes are under way. */
const MUTE_CONNECTIONS = 20;
const MUTE_WITHIN_MS = 20;
/** Several heartbeats. */
const HALF_RESET_AFTER_MS = 500;
/** The limits of waiting are 200 ms (schema.ts); a checkpoint and its retries take the rest. */
const WAIT_MS_MAX = 1000;
const WAIT_CALM_MS = 5000;
const STARVED_MS = 15_000;

/** Small enough that little traffic reaches them. */
const WORLD_LIMITS: Limits = {
  ...LIMITS,
  slabBytes: 128 * 1024,
  slabsMax: 64,
  heldSlabsMax: 12,
  heldFramesMax: 2048,
  heldFramesCheckpoint: 512,
  heldSecondaryMax: 256,
  flowFramesMax: 192,
  flowBytesMax: 1152 * 1024,
  flowsMax: 96,
  translationsMax: 512,
  silentUplinkBytesMax: 256 * 1024,
  passedOnMax: 512,
  gatedBytesMax: 128 * 1024,
  earlyFramesMax: 128,
  uplinkWriteBytesMax: 16 * 1024,
  unsentBytesMax: 128 * 1024,
  pipeSlabBytes: 64 * 1024,
  pipeSlabsMax: 4,
};

/** Runs one world. It needs the microtask queue to itself, so it begins in a turn of its own. */
export function runWorld(seed: number, options: WorldOptions = {}): Promise<WorldResult> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      const world = new World(seed, options);
      const unhandled = (cause: unknown) => world.unhandled(cause);
      process.on('unhandledRejection', unhandled);
      try {
        resolve(world.run());
      } catch (cause) {
        reject(cause);
      } finally {
        process.off('unhandledRejection', unhandled);
      }
    });
  });
}

/** Not in use: getting memory afresh costs more than a node's whole start. */
const slabMemories: SlabMemory[] = [];

type Life = {
  readonly process: Process;
  readonly node: ColoNode;
  readonly slabMemory: SlabMemory;
  readonly audit: Audit;
};

/** The primary's VM, and what the one that got its state has said. */
type Partner = { primary: SimQemu; said: SaidOutput };

/** One call to the kernel; `said` is what it was compared with, if the process stood still before it. */
type UplinkWrite = { bytes: number; runs: number; said: SaidOutput | null };

type SimHost = Host & {
  readonly side: Side;
  readonly config: NodeConfig;
  readonly arbiterWay: ArbiterWay;
  life: Life | null;
  qemu: SimQemu | null;
  /** what runs in it */
  guest: Guest | null;
  /** since this life of its node began */
  vmDied: boolean;
  uplinkSocket: SimSocket | null;
  readonly counted: Counted;
  uplinkResets: number;
  /** under way now */
  write: UplinkWrite | null;
  promotion: { qemu: SimQemu; said: Said; uplinkResets: number } | null;
  readonly slow: { inputMs: number; outputMs: number };
  /** when something was last wrong with it */
  faultUntilMs: number;
};

type BurstAt = Extract<Fault['what'], { kind: 'burst-at' }>;

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
  private readonly mix: ReturnType<typeof makeMix>;
  private readonly faults: Fault[];
  private readonly violations: Violation[] = [];
  private readonly stats: Record<string, number> = {};
  private readonly traps: Extract<Fault['what'], { kind: 'crash-at' }>[] = [];
  /** what is lost of the next claims to be promoted */
  private lostClaims: { lost: Lost; left: number; untilMs: number } = { lost: null, left: 0, untilMs: 0 };
  private readonly bursts: (BurstAt & { untilMs: number })[] = [];
  /**
   * The next primary that writes to its uplink, but so many times, stops between its look at the clock and the write;
   * `long`: when it has more to say than one write takes.
   */
  private stall: { ms: number; skip: number; long: boolean; untilMs: number } | null = null;
  private readonly outputCommit = new OutputCommit();
  /** what went with the state that was taken last */
  private taken: ReturnType<SaidOutput['snapshot']> | null = null;
  private partner: Partner | null = null;
  private booted = false;
  private covered = false;
  private injecting = false;
  private inexactUntilMs = 0;

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
    this.record.onChange = (record, by) => this.recordChanged(record, by);
    this.record.onAsked = (record) => this.changeAsked(record);
  }

  run(): WorldResult {
    this.start(this.hosts.a, 0);
    this.start(this.hosts.b, this.die.within(0, 1500));
    this.faults.forEach((fault, i) => {
      if (this.options.without?.has(i) !== true)
        this.loop.at(fault.atMs, null, () => {
          this.injecting = true;
          this.inject(fault);
          this.injecting = false;
        });
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

  private crash(host: SimHost): void {
    const { life } = host;
    if (life === null) return;
    this.ended(host, life, 'killed');
  }

  private thrown(owner: Process | null, cause: unknown): void {
    this.violation(
      cause instanceof InvariantError ? 'assertion' : 'exception',
      `${owner?.name ?? 'world'}: ${stackOf(cause)}`,
    );
  }

  private noted(host: SimHost, type: string, details: Readonly<Record<string, unknown>>): void {
    this.count(type);
    if (type === 'checkpoint.committed' && details.inexact !== undefined) this.count('inexact');
    if (type === 'checkpoint.committed' && String(details.reason).startsWith('limit'))
      this.count(`checkpoints for ${details.reason}`);
    if (type === 'failover.done') {
      this.promoted(host);
      host.life?.audit.tookOver(details as { sentFrames: number; deliveredFrames: number });
    }
    if (this.options.trace === undefined) return;
    const { pid: _, ...rest } = details;
    this.trace(`node-${host.side}`, `${type} ${JSON.stringify(rest)}`);
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
    if (this.covered) {
      this.violation('nothing lost', `${host.side} starts its VM afresh while a copy of the service lives`);
      return;
    }
    // Both copies were lost: clients are told nothing, and what they know is void.
    for (const client of this.clients) client.forgive();
  }

  private vmDied(host: SimHost, qemu: SimQemu): void {
    this.trace(qemu.name, 'dies');
    if (host.qemu === qemu) host.qemu = null;
    host.vmDied = true;
    const { record } = this.record.held;
    if (!this.injecting && this.covered && record?.state === 'alone' && record.primary === host.side)
      this.violation('nothing lost', `${host.side} is alone by the record, and its node ended its VM`);
    this.lineage(this.injecting ? null : `${host.side}'s node ended its VM`, host);
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
    const { held } = this.record;
    const { lostClaims } = this;
    const promotion = held.record?.state === 'pair' && held.record.secondary === record.primary;
    if (!promotion || lostClaims.left === 0 || this.loop.nowMs > lostClaims.untilMs) return null;
    lostClaims.left--;
    this.count(`claims whose ${lostClaims.lost} was lost`);
    this.trace('fault', `the ${lostClaims.lost} of ${record.primary}'s claim is lost`);
    return lostClaims.lost;
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
    if (first || (own.frames === theirs.frames && own.digest === theirs.digest)) return;
    if (this.loop.nowMs < this.inexactUntilMs) {
      this.count('inexact, excused');
      return;
    }
    this.violation(
      'same input',
      `${qemu.name} had consumed ${own.frames} frames (${own.digest}), the primary's VM ${theirs.frames} (${theirs.digest})`,
    );
  }

  /** The node has looked at its clock. */
  private aboutToWrite(host: SimHost): void {
    // Of one that stands still, what comes after is another write.
    if (host.write !== null) return;
    host.write = { bytes: 0, runs: 0, said: null };
    const { stall } = this;
    const { record } = this.record.held;
    if (stall === null || record?.state !== 'pair' || record.primary !== host.side) return;
    const releasedBytes = host.life?.audit.releasedBytes ?? 0;
    if (this.loop.nowMs > stall.untilMs) this.stall = null;
    else if (stall.long && releasedBytes <= WORLD_LIMITS.uplinkWriteBytesMax) return;
    else if (stall.skip > 0) stall.skip--;
    else {
      this.stall = null;
      this.count(stall.long ? 'stalled long writes' : 'stalled writes');
      this.trace('fault', `${host.side} stops before a write to its uplink for ${stall.ms} ms`);
      this.markFault(host, stall.ms);
      host.write.said = this.partner?.said ?? null;
      host.life?.process.stopHere(stall.ms);
    }
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
    for (const burst of this.bursts)
      if (burst.phase === phase && burst.untilMs >= this.loop.nowMs) this.burst(burst);
    const i = this.traps.findIndex((trap) => trap.phase === phase);
    if (i < 0) return;
    const [trap] = this.traps.splice(i, 1);
    const { record } = this.record.held;
    const isPrimary = record?.primary === host.side;
    const victim = (trap.role === 'primary') === isPrimary ? host : this.other(host);
    // What both streams bring while a node stands still, it sees in whatever order.
    if (this.die.chance(0.5)) this.other(victim).life?.process.pause(this.die.within(2, 30));
    this.loop.after(this.die.next() * 2, null, () => {
      this.injecting = true;
      this.trace('fault', `crash ${trap.part} ${victim.side} at ${phase}`);
      this.markFault(victim, 0);
      if (trap.part === 'node') this.crash(victim);
      else victim.qemu?.process.kill();
      this.injecting = false;
    });
  }

  private other(host: SimHost): SimHost {
    return host.side === 'a' ? this.hosts.b : this.hosts.a;
  }

  private markFault(host: SimHost, ms: number): void {
    host.faultUntilMs = Math.max(host.faultUntilMs, this.loop.nowMs + ms);
  }

  private inject(fault: Fault): void {
    const { what, ms } = fault;
    const { loop, hosts } = this;
    this.count('faults');
    this.trace('fault', describeFault(fault));
    const untilMs = loop.nowMs + ms;
    const both = Object.values(hosts);
    const host = 'side' in what ? hosts[what.side] : null;
    for (const one of host === null ? both : [host]) this.markFault(one, ms);
    switch (what.kind) {
      case 'node-crash':
        this.crash(hosts[what.side]);
        return;
      case 'vm-crash':
        host?.qemu?.process.kill();
        return;
      case 'both-crash':
        host?.qemu?.process.kill();
        this.crash(hosts[what.side]);
        return;
      case 'host-crash':
        this.crashHost(hosts[what.side], ms);
        return;
      case 'node-pause':
        host?.life?.process.pause(ms);
        return;
      case 'vm-pause':
        host?.qemu?.process.pause(ms);
        // A VM that takes no input for so long gets its checkpoint all the same.
        if (ms > 1000) this.inexactUntilMs = untilMs + 5000;
        return;
      case 'stalled-write':
        this.stall = { ...what, ms, untilMs: loop.nowMs + STALL_WITHIN_MS };
        if (!what.long) return;
        this.bursts.push({ ...LONG_WRITE, untilMs: loop.nowMs + STALL_WITHIN_MS });
        this.command('checkpoint');
        return;
      case 'crash-at':
        this.traps.push(what);
        return;
      case 'kill-primary':
        this.killPrimary(what.part, ms);
        return;
      case 'mute-primary':
        this.mutePrimary(what, ms);
        return;
      case 'uplink-stall':
        this.stallUplink(what, ms);
        return;
      case 'lost-claim':
        this.lostClaims = { lost: what.lost, left: what.times, untilMs };
        if (what.part === 'link') {
          this.cut('a>b', untilMs);
          this.cut('b>a', untilMs);
        } else this.killPrimary(what.part, ms);
        return;
      case 'burst-at':
        this.bursts.push({ ...what, untilMs });
        this.command('checkpoint');
        return;
      case 'flood':
        this.mix.flood.flood(what.connections, what.atOnce);
        return;
      case 'contest': {
        // Both ask the arbiter, and either may be first.
        for (const { arbiterWay } of both) {
          const { delayMsMax } = arbiterWay;
          arbiterWay.delayMsMax = CONTEST_ARBITER_MS;
          loop.at(untilMs + CONTEST_ARBITER_MS, null, () => {
            arbiterWay.delayMsMax = Math.min(delayMsMax, ARBITER_MS_MAX);
          });
        }
        for (const socket of this.sockets.between) if (socket.isOpen) socket.reset();
        return;
      }
      case 'half-reset':
        this.halfReset(what.lateMs, what.arbiterMs, ms);
        return;
      case 'partition':
        this.cut('a>b', untilMs);
        this.cut('b>a', untilMs);
        return;
      case 'one-way':
        this.cut(what.from === 'a' ? 'a>b' : 'b>a', untilMs);
        return;
      case 'clog':
        for (const route of this.sockets.routes.values()) {
          route.rate = what.bytesPerMs;
          loop.at(untilMs, null, () => this.unclog(route));
        }
        return;
      case 'link-reset':
        for (const socket of this.sockets.between) if (socket.isOpen) socket.reset();
        return;
      case 'arbiter-cut':
        hosts[what.side].arbiterWay.cutUntilMs = untilMs;
        return;
      case 'arbiter-lossy': {
        const { arbiterWay } = hosts[what.side];
        arbiterWay.lossy = 0.5;
        loop.at(untilMs, null, () => {
          arbiterWay.lossy = 0;
        });
        return;
      }
      case 'uplink-reset':
        host?.life?.process.loop.after(0, null, () => this.resetUplink(hosts[what.side]));
        return;
      case 'bad-network':
        this.network.trouble(
          { loss: what.loss, duplication: what.duplication, jitterMs: what.jitterMs },
          untilMs,
        );
        return;
      case 'command':
        this.command(what.command);
    }
  }

  /** An operator's, to both nodes. */
  private command(command: Extract<Fault['what'], { kind: 'command' }>['command']): void {
    for (const { side, life } of Object.values(this.hosts)) {
      if (life === null) continue;
      this.loop.after(0, life.process, () => {
        const { node } = life;
        (command === 'failover'
          ? side === this.record.held.record?.primary
            ? node.failover()
            : Promise.resolve()
          : command === 'checkpoint'
            ? node.checkpoint()
            : node.protect()
        ).then(
          () => {},
          (cause: unknown) => this.trace(life.process.name, `${command}: ${String(cause)}`),
        );
      });
    }
  }

  /** The moment has come at which somebody is to say much. */
  private burst({ who, datagrams, bytes, own }: BurstAt): void {
    const primary = this.record.held.record?.primary;
    this.count(`bursts of ${who}`);
    if (who === 'clients') {
      this.loop.after(0, null, () => this.mix.burst.ask(datagrams, bytes));
      return;
    }
    for (const { side, qemu, guest } of Object.values(this.hosts)) {
      if (qemu === null || (who !== 'vms' && (who === 'primary') !== (side === primary))) continue;
      this.loop.after(0, qemu.process, () => {
        if (qemu.running) guest?.burst(datagrams, bytes, own);
      });
    }
  }

  /** A failover, wherever the service is by then; nothing where there is no partner. */
  private killPrimary(part: Broken, ms: number): void {
    const { record } = this.record.held;
    if (record?.state !== 'pair') return;
    const host = this.hosts[record.primary as Side];
    if (part === 'host') {
      this.crashHost(host, 1000 + ms);
      return;
    }
    if (part !== 'node') host.qemu?.process.kill();
    if (part !== 'vm') this.crash(host);
  }

  /**
   * Connections begin; what the primary says of them does not reach the secondary, while what that says still comes; and
   * then the primary dies.
   */
  private mutePrimary({ part, afterMs }: Extract<Fault['what'], { kind: 'mute-primary' }>, ms: number): void {
    const { record } = this.record.held;
    if (record?.state !== 'pair') return;
    const { primary, secondary } = record;
    this.mix.flood.flood(MUTE_CONNECTIONS, MUTE_CONNECTIONS);
    this.loop.after(this.die.next() * MUTE_WITHIN_MS, null, () => {
      this.cut(`${primary}>${secondary}`, this.loop.nowMs + ms);
      this.loop.after(afterMs, null, () => {
        if (this.record.held.record?.primary !== primary) return;
        this.injecting = true;
        this.count('muted primaries');
        this.killPrimary(part, ms);
        this.injecting = false;
      });
    });
  }

  /** Nobody takes what the primary says, which is much; it may die with what waits. */
  private stallUplink({ dies, afterMs }: Extract<Fault['what'], { kind: 'uplink-stall' }>, ms: number): void {
    const { record } = this.record.held;
    if (record?.state !== 'pair') return;
    const host = this.hosts[record.primary as Side];
    const stallMs = dies === 'nothing' ? Math.min(ms, UPLINK_STALL_MS_MAX) : afterMs + UPLINK_AFTER_DEATH_MS;
    this.network.stall(`uplink-${host.side}`, this.loop.nowMs + stallMs);
    this.burst({ ...LONG_WRITE, who: 'vms', datagrams: UPLINK_FULL_DATAGRAMS, own: false });
    if (dies === 'nothing') return;
    this.loop.after(afterMs, null, () => {
      if (this.record.held.record?.primary !== host.side) return;
      if ((host.life?.audit.releasedBytes ?? 0) > 0) this.count('primaries that died with output waiting');
      this.injecting = true;
      this.killPrimary(dies, ms);
      this.injecting = false;
    });
  }

  /**
   * The link breaks for the secondary, and the primary hears nothing of it: for a while it had late answers, and now
   * it has none, nor the arbiter's. What it may still say is by its lease only.
   */
  private halfReset(lateMs: number, arbiterMs: number, ms: number): void {
    const { record } = this.record.held;
    if (record?.state !== 'pair') return;
    const primary = this.hosts[record.primary as Side];
    const secondary = this.other(primary);
    const back = this.sockets.route(secondary.name, primary.name);
    const { delayMs } = back;
    back.delayMs += lateMs;
    this.loop.after(HALF_RESET_AFTER_MS, null, () => {
      back.delayMs = delayMs;
      const untilMs = this.loop.nowMs + ms;
      this.markFault(primary, ms);
      this.markFault(secondary, ms);
      // What was late when it was sent still comes.
      this.loop.after(lateMs, null, () => this.cut(`${secondary.name}>${primary.name}`, untilMs));
      this.cut(`${primary.name}>${secondary.name}`, untilMs);
      primary.arbiterWay.cutUntilMs = Math.max(primary.arbiterWay.cutUntilMs, this.loop.nowMs + arbiterMs);
      for (const socket of this.sockets.between) {
        for (const end of [socket, socket.peer]) if (end.host === secondary && end.isOpen) end.resetHere();
      }
    });
  }

  private unclog(route: Route): void {
    route.rate = Number.POSITIVE_INFINITY;
    route.busyUntilMs = 0;
  }

  private cut(key: string, untilMs: number): void {
    const route = this.sockets.routes.get(key);
    if (route !== undefined) route.cutUntilMs = Math.max(route.cutUntilMs, untilMs);
  }

  private resetUplink(host: SimHost): void {
    host.uplinkResets++;
    host.uplinkSocket?.reset();
  }

  /** No word to anybody; the peer's packets lead nowhere until it is up again. */
  private crashHost(host: SimHost, ms: number): void {
    host.up = false;
    for (const socket of this.sockets.between) {
      for (const end of [socket, socket.peer]) if (end.host === host && end.isOpen) end.vanish();
    }
    const { life } = host;
    host.qemu?.process.kill();
    if (life !== null) this.ended(host, life, 'host without power');
    this.loop.after(ms, null, () => {
      host.up = true;
      this.start(host, this.die.within(300, 2000));
    });
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

  /** Retransmissions may be seconds apart; then whoever is not done gets on. */
  private checkClients(): void {
    const sinceMs = this.loop.nowMs - STARVED_MS;
    for (const { clients } of this.clients) {
      for (const client of clients) {
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
