/**
 * A world: two hosts with the production code of both nodes, simulated QEMUs with a guest, clients, a network, an
 * arbiter, and faults. One seed decides all of it.
 *
 * `runWorld` runs one to its end: faults for a while, then quiet, until the pair is protected again and every client is
 * done or makes progress. This file wires the parts and gives nodes their lives; the rules are in rules/, each notified
 * as things happen, and what they find is in the journal.
 */
import { InvariantError } from '../../src/error.ts';
import { newSlabMemory, type SlabMemory } from '../../src/frames/slabs.ts';
import { ColoNode } from '../../src/node/node.ts';
import { differingHost, drawAlwaysDiffers } from './always-differs.ts';
import { type DifferingTcps, drawDifferingTcps } from './differing-tcps.ts';
import { describeFault, type Fault, planFaults, type Side } from './faults.ts';
import { drawFenced, type Fenced, simFencer } from './fenced.ts';
import type { ClientHost } from './guest/client.ts';
import { Die } from './guest/die.ts';
import { Guest, type GuestOptions } from './guest/guest.ts';
import { GUEST_MAC, type HostSpec, type Mix, makeMix } from './guest/mix.ts';
import { Injector } from './injector.ts';
import { Journal, type Violation } from './journal.ts';
import { Loop, Process } from './loop.ts';
import { Network, type PortQuality } from './network.ts';
import { drawPortioned, hostileHost, type Portioned } from './portioned.ts';
import { drawRuled, exemptHost, type Ruled } from './ruled.ts';
import { Announced } from './rules/announced.ts';
import { Audit } from './rules/audit.ts';
import { BothSent } from './rules/both-sent.ts';
import { FenceRuns } from './rules/fence-runs.ts';
import { FlowOrder } from './rules/flow-order.ts';
import { Intervals } from './rules/intervals.ts';
import { Lineage } from './rules/lineage.ts';
import { OrderlyMoves } from './rules/orderly-moves.ts';
import { Periods } from './rules/periods.ts';
import { PortionBound } from './rules/portion-bound.ts';
import { Progress } from './rules/progress.ts';
import { SameInput } from './rules/same-input.ts';
import { UplinkMoves } from './rules/uplink-moves.ts';
import { UplinkWrites } from './rules/uplink-writes.ts';
import { UselessSecondary } from './rules/useless-secondary.ts';
import { VmTroubleRules } from './rules/vm-trouble.ts';
import { ArbiterRecord, SimArbiter } from './sim-arbiter.ts';
import { type Hosts, type Life, newHost, type SimHost } from './sim-host.ts';
import { simLauncher } from './sim-launcher.ts';
import type { Phase } from './sim-migration.ts';
import type { QemuEvents, SimQemu } from './sim-qemu.ts';
import type { SimSocket } from './sim-socket.ts';
import { Sockets } from './sockets.ts';
import { drawUnifying, UNIFY_RULE, type Unifying, Web } from './unifying.ts';
import { drawUplinks, planAway, UPLINK_PATH, type Uplinks } from './uplinks.ts';
import { WORLD_LIMITS } from './world-limits.ts';

export type WorldOptions = {
  /** Faults that are left out, by their place in the plan. */
  readonly without?: ReadonlySet<number>;
  readonly trace?: (line: string) => void;
  /** Called with every frame on the network, and the port that sent it. */
  readonly onFrame?: (atMs: number, port: string, frame: Uint8Array) => void;
};

export type WorldResult = {
  seed: number;
  violations: Violation[];
  /** All that were planned, and the places of those that were not left out. */
  faults: string[];
  left: number[];
  virtualMs: number;
  steps: number;
  stats: Record<string, number>;
};

const FAULTS_FROM_MS = 2000;
const FAULTS_UNTIL_MS = 48_000;
const LIFE_MS_MIN = 60_000;
/** From the last fault to a protected pair with clients that make progress: a cold start alone may take 12 s of it. */
const RECOVERY_MS_MAX = 90_000;
/** Clients are busy for about as long as there are faults. */
const WORK_MS = 50_000;
const CHECK_MS = 50;

/** Runs one world. It needs the microtask queue to itself, so it begins in a turn of its own. */
export function runWorld(seed: number, options: WorldOptions = {}): Promise<WorldResult> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      const world = new World(seed, options);
      const unhandled = (cause: unknown) => world.journal.unhandled(cause);
      process.on('unhandledRejection', unhandled);
      InvariantError.onFailure = (failure) => world.journal.invariantFailed(failure);
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

/**
 * Memory for the slabs of nodes, of which none has it now. A node of the next life or world takes it from here, since
 * allocating it takes longer than all else that a node does to start. It is not cleared: a node never reads bytes of a
 * slab that it has not written.
 */
const freeSlabMemories: SlabMemory[] = [];

class World {
  readonly journal: Journal;
  private readonly seed: number;
  private readonly options: WorldOptions;
  private readonly loop = new Loop();
  private readonly die: Die;
  private readonly sockets: Sockets;
  private readonly record = new ArbiterRecord();
  private readonly network: Network;
  private readonly outside: Process;
  private readonly hosts: Hosts;
  private readonly clients: ClientHost[] = [];
  /** What was drawn for each client host. */
  private readonly clientQualities: PortQuality[] = [];
  /** for how much longer than others clients may have to wait for a reply */
  private readonly patienceMs = new Map<ClientHost, number>();
  private readonly mix: Mix;
  /** null: both VMs have the TCP that was drawn for the guest */
  private readonly differing: DifferingTcps | null;
  /** null: input goes straight to the VMs until order has parted them */
  private readonly portioned: Portioned | null;
  /** null: nobody asks for the web service */
  private readonly unifying: Unifying | null;
  private readonly web: Web;
  private readonly faults: Fault[];
  private readonly injector: Injector;
  private readonly lineage: Lineage;
  private readonly sameInput: SameInput;
  private readonly uplinkWrites: UplinkWrites;
  private readonly progress: Progress;
  private readonly uselessSecondary: UselessSecondary;
  private readonly vmTrouble: VmTroubleRules;
  private readonly bothSent: BothSent;
  private readonly portionBound: PortionBound;
  private readonly flowOrder: FlowOrder;
  private readonly periods: Periods;
  /** null: the nodes have no rules */
  private readonly ruled: Ruled | null;
  private readonly intervals: Intervals;
  /** null: a promotion relies on the lease */
  private readonly fenced: Fenced | null;
  private readonly fenceRuns: FenceRuns;
  /** null: nodes do not give way, and uplinks do not go away */
  private readonly uplinks: Uplinks | null;
  private readonly uplinkMoves: UplinkMoves;
  private readonly announced: Announced;
  private readonly orderlyMoves: OrderlyMoves;

  constructor(seed: number, options: WorldOptions) {
    this.seed = seed;
    this.options = options;
    const { loop, record } = this;
    this.journal = new Journal(loop, options.trace);
    const { journal } = this;
    loop.onThrow = (owner, cause) => journal.thrown(owner, cause);
    // The order in which the die is asked is part of what a seed means.
    this.die = new Die(seed);
    this.differing = drawDifferingTcps(seed);
    this.portioned = drawPortioned(seed);
    this.ruled = drawRuled(seed);
    this.unifying = drawUnifying(seed);
    this.fenced = drawFenced(seed);
    this.uplinks = drawUplinks(seed);
    const { die } = this;
    this.sockets = new Sockets(loop, this.newDie());
    this.outside = new Process(loop, 'outside', this.newDie());
    this.network = new Network(loop, this.newDie(), die.chance(0.5) ? 'bridge' : 'hub');
    const { onFrame } = options;
    if (onFrame !== undefined) this.network.tap = (port, frame) => onFrame(loop.nowMs, port, frame);
    this.mix = makeMix({ seed: this.nextSeed(), durationMs: WORK_MS, clients: die.within(2, 4) });
    this.paceClients();
    const away = this.uplinks === null ? [] : planAway(seed, FAULTS_FROM_MS, FAULTS_UNTIL_MS);
    this.faults = [...planFaults(this.newDie(), FAULTS_FROM_MS, FAULTS_UNTIL_MS), ...away];
    const hosts = { a: this.addHost('a'), b: this.addHost('b') };
    this.hosts = hosts;
    for (const [from, to] of [
      ['a', 'b'],
      ['b', 'a'],
    ]) {
      const route = this.sockets.route(from, to);
      route.delayMs = die.pick([0.05, 0.3, 2]);
      route.jitterMs = die.pick([0.05, 1, 10]);
    }
    for (const spec of this.mix.hosts) this.addClients(spec);
    if (this.portioned !== null && this.portioned.hostile > 0) this.addClients(hostileHost(this.portioned));
    const alwaysDiffers = drawAlwaysDiffers(seed);
    if (alwaysDiffers !== null) this.addClients(differingHost(alwaysDiffers));
    this.web = new Web(this.unifying);
    if (this.web.host !== null)
      this.addClients(
        this.web.host,
        new Die(~(seed + 1)),
        () => this.web.isHeard(loop.nowMs),
        this.web.unheardMs,
      );
    const { sockets, network, mix, clients } = this;
    const judged = [...clients];
    if (this.ruled !== null && this.ruled.exempt !== null)
      this.addClients(exemptHost(this.ruled), new Die(~seed));
    const endLife = (host: SimHost, life: Life, how: string) => this.endLife(host, life, how);
    this.injector = new Injector(
      {
        loop,
        die,
        sockets,
        network,
        record,
        hosts,
        mix,
        web: this.web,
        journal,
        start: (host, afterMs) => this.start(host, afterMs),
        endLife,
      },
      {
        switchedOff: () => {
          this.vmTrouble.switchedOff();
          this.lineage.switchedOff();
        },
        died: () => this.lineage.guestDied(),
      },
    );
    const scene = { loop, journal, record, hosts, injector: this.injector };
    this.lineage = new Lineage(scene, clients, endLife);
    this.sameInput = new SameInput(scene);
    this.uplinkWrites = new UplinkWrites(scene, this.sameInput);
    this.uselessSecondary = new UselessSecondary(scene);
    this.vmTrouble = new VmTroubleRules(scene);
    this.intervals = new Intervals(scene);
    this.progress = new Progress(scene, this.lineage, judged, this.patienceMs, this.intervals);
    this.bothSent = new BothSent(
      scene,
      this.sameInput,
      this.progress,
      this.uplinkWrites.outputCommit,
      this.ruled,
    );
    this.flowOrder = new FlowOrder(scene);
    this.portionBound = new PortionBound(scene, this.portioned !== null);
    this.periods = new Periods(scene);
    this.fenceRuns = new FenceRuns(scene);
    this.uplinkMoves = new UplinkMoves(scene);
    this.announced = new Announced(scene);
    this.orderlyMoves = new OrderlyMoves(scene);
    network.onHeard = (port, frame) => this.orderlyMoves.uplinkHeard(port, frame);
    record.onChange = (changed, by) => {
      journal.trace('arbiter', `${JSON.stringify(changed)} by ${by}`);
      journal.count('generations');
      this.uplinkWrites.checkVoices();
      this.uplinkWrites.recordChanged(changed, by);
      this.lineage.recordChanged(changed, by);
      this.fenceRuns.recordChanged(changed);
    };
    record.onAsked = (wanted) => this.lineage.changeAsked(wanted);
  }

  run(): WorldResult {
    const { loop, journal } = this;
    const left = [...this.faults.keys()].filter((i) => this.options.without?.has(i) !== true);
    if (journal.isTraced) for (const line of this.drawn(left)) journal.trace('drawn', line);
    this.start(this.hosts.a, 0);
    this.start(this.hosts.b, this.die.within(0, 1500));
    for (const i of left) loop.at(this.faults[i].atMs, null, () => this.injector.inject(this.faults[i]));
    const endMs = FAULTS_UNTIL_MS + RECOVERY_MS_MAX;
    for (let checkMs = CHECK_MS; journal.isClean; checkMs += CHECK_MS) {
      while (journal.isClean && loop.step(checkMs));
      loop.nowMs = checkMs;
      this.check();
      if (checkMs >= LIFE_MS_MIN && this.progress.isWell()) break;
      if (checkMs >= endMs) {
        journal.violation('liveness', this.progress.whatIsMissing());
        break;
      }
    }
    for (const { life } of Object.values(this.hosts))
      if (life !== null) freeSlabMemories.push(life.slabMemory);
    return {
      seed: this.seed,
      violations: journal.violations,
      faults: this.faults.map(describeFault),
      left,
      virtualMs: loop.nowMs,
      steps: loop.steps,
      stats: { ...journal.stats, ...this.network.counters },
    };
  }

  /** Describes what the seed has drawn: the network, both hosts, the clients and the faults. */
  private drawn(left: readonly number[]): string[] {
    const { hosts, mix, network, sockets } = this;
    const route = (from: Side, to: Side) => {
      const { delayMs, jitterMs } = sockets.route(from, to);
      return `${from} to ${to} ${delayMs} ms and up to ${jitterMs} ms`;
    };
    const tcp = JSON.stringify(mix.guest.tcp);
    return [
      `network: a ${network.kind}; link: ${route('a', 'b')}, ${route('b', 'a')}`,
      ...Object.values(hosts).map(
        ({ side, config, arbiterWay, slow }) =>
          `host ${side}: checkpoints every ${config.checkpoint.intervalMsMax} ms, arbiter within ${arbiterWay.delayMsMax} ms, input read within ${slow.inputMs} ms, output within ${slow.outputMs} ms`,
      ),
      ...(this.portioned === null ? [] : [`portions: ${JSON.stringify(this.portioned)}`]),
      ...(this.ruled === null ? [] : [`rules: ${JSON.stringify(this.ruled)}`]),
      ...(this.fenced === null ? [] : [`fence: ${JSON.stringify(this.fenced)}`]),
      ...(this.unifying === null ? [] : [`web: ${JSON.stringify(this.unifying)}`]),
      ...(this.uplinks === null ? [] : [`uplinks: ${JSON.stringify(this.uplinks)}`]),
      ...(this.differing === null ? [] : [`differing TCPs: ${JSON.stringify(this.differing)}`]),
      `guest: ${tcp}${mix.guest.dial === undefined ? '' : `, opens a connection every ${mix.guest.dial.everyMs} ms`}`,
      ...this.clients.map(({ clients }, i) => {
        const names = clients.map(({ name }) => name).join(', ');
        return `client-${i}: ${names}; ${JSON.stringify(this.clientQualities[i])}`;
      }),
      ...left.map((i) => `fault ${i}: ${describeFault(this.faults[i])}`),
    ];
  }

  /** Every CHECK_MS: the rules that look at a state. The others are notified of what happens. */
  private check(): void {
    this.uplinkWrites.checkVoices();
    this.fenceRuns.check();
    this.progress.checkClients();
    for (const host of Object.values(this.hosts)) {
      const { life } = host;
      if (life === null) continue;
      this.journal.noteMax('slabs', life.audit.slabsInUse);
      this.journal.noteMax('unified', life.audit.unified);
      const wrong = life.process.isMidway ? null : life.audit.check(host.qemu, host.counted);
      if (wrong !== null) this.journal.violation(wrong[0], `${host.side}: ${wrong[1]}`);
      this.journal.noteMax('slabsIdle', life.audit.slabsIdleMax);
      this.progress.checkWait(host, life);
      this.portionBound.check(host, life);
      this.flowOrder.watch(host, life);
      this.vmTrouble.check(host, life);
      if (!life.process.isMidway) this.uselessSecondary.check(host, life);
    }
    this.progress.checkStarved();
    this.uplinkMoves.check();
    this.announced.check();
    this.bothSent.check();
  }

  /* Wiring. */

  private nextSeed(): number {
    return Math.floor(this.die.next() * 0x1_0000_0000);
  }

  private newDie(): Die {
    return new Die(this.nextSeed());
  }

  /** Clients' work is spread over a world's life: a thousand worlds find more than one that is thirty times as busy. */
  private paceClients(): void {
    for (const { clients } of this.mix.hosts)
      for (const client of clients) {
        const restMsMax = this.die.pick(client.hasLongStreams === true ? [3000] : [200, 1000, 3000]);
        client.pace?.(restMsMax, WORK_MS);
      }
  }

  private addHost(side: Side): SimHost {
    const { die } = this;
    const quality = { delayMs: die.pick([0.05, 0.5]), jitterMs: die.pick([0, 0.1]), loss: 0, duplication: 0 };
    const host = newHost(side, die, {
      waits: this.differing?.waits ?? '',
      ruled: this.ruled,
      rules: this.unifying?.rule === 'unify' ? [UNIFY_RULE] : [],
      uplinks: this.uplinks,
    });
    const plug = this.network.socketPort(`uplink-${side}`, quality, host.counted);
    host.unix.set(UPLINK_PATH, {
      owner: this.outside,
      accept: (stream) => {
        const { peer } = stream as SimSocket;
        host.write = null;
        peer.onWrite = (bytes) => this.uplinkWrites.wrote(host, bytes);
        peer.onCork = () => this.uplinkWrites.begin(host);
        peer.onUncork = () => {
          host.write = null;
        };
        host.uplinkSocket = peer;
        plug(stream);
      },
    });
    return host;
  }

  /** `die`: of which the host is drawn. `unheardMs`: for how long it may not be heard; its next retransmission takes as long again. */
  private addClients(
    spec: HostSpec,
    die = this.die,
    isHeard: () => boolean = () => true,
    unheardMs = 0,
  ): void {
    const { loop } = this;
    const own = new Die(Math.floor(die.next() * 0x1_0000_0000));
    const quality = {
      delayMs: die.pick([0.1, 1, 20]),
      jitterMs: die.pick([0, 0.2, 3]),
      loss: die.pick([0, 0, 0.01]),
      duplication: die.pick([0, 0, 0.01]),
    };
    Object.assign(quality, this.differing?.network);
    let host: ClientHost | null = null;
    const send = this.network.plug(`client-${this.clients.length}`, quality, () => host as ClientHost);
    const port = {
      send: (frame: Uint8Array) => {
        if (!isHeard()) return;
        this.uplinkWrites.outputCommit.told.clientSent(frame);
        send(frame);
      },
      now: () => loop.nowMs,
      wake: (atMs: number) => {
        if (atMs !== Number.POSITIVE_INFINITY) loop.at(atMs, null, () => host?.tick());
      },
      random: () => own.next(),
    };
    host = spec.make(port);
    this.clients.push(host);
    this.clientQualities.push(quality);
    // One retransmission after the other may be lost.
    this.patienceMs.set(host, quality.loss > 0 ? Number.POSITIVE_INFINITY : unheardMs);
  }

  /* Lives of nodes. */

  private start(host: SimHost, afterMs: number): void {
    this.loop.after(afterMs, null, () => {
      if (host.up && host.life === null) this.beginLife(host);
    });
  }

  private beginLife(host: SimHost): void {
    const own = this.newDie();
    const process = new Process(this.loop, `node-${host.side}`, own, 1 + (own.next() - 0.5) * 0.002);
    const launcher = simLauncher(
      process,
      {
        loop: this.loop,
        sockets: this.sockets,
        host,
        mac: GUEST_MAC,
        slow: host.slow,
        sleeper: this.portioned?.sleeper[host.side] ?? 'sleeps',
        accel: own.chance(0.8) ? 'kvm' : 'tcg',
        makeGuest: (port) => {
          host.guest = new Guest(port, this.guestOptions(host.side));
          return host.guest;
        },
        events: this.qemuEvents(host),
      },
      () => this.nextSeed(),
      (qemu) => {
        qemu.vm.onReceived = (frame) => this.orderlyMoves.vmGot(qemu, frame);
        this.lineage.vmStarted(host, qemu);
      },
    );
    const { slabBytes, slabsMax } = WORLD_LIMITS;
    const slabMemory = freeSlabMemories.pop() ?? newSlabMemory(slabBytes, slabsMax);
    const node = new ColoNode({
      config: host.config,
      arbiter: new SimArbiter(this.record, host.arbiterWay, process, this.newDie()),
      events: { emit: (type, details = {}) => this.nodeEvent(host, type, details) },
      surroundings: {
        clock: process,
        timers: process,
        transports: this.sockets.transportsOf(host, process),
      },
      launcher,
      ...this.fencerOf(host),
      hashSeed: own.within(0, 0x7ffffffe),
      limits: WORLD_LIMITS,
      slabMemory,
    });
    const life = { process, node, slabMemory, audit: new Audit(node, WORLD_LIMITS) };
    host.life = life;
    host.vmDied = false;
    this.journal.trace(process.name, 'starts');
    this.loop.after(0, process, () => {
      node.start().then(
        () => {},
        (cause: unknown) => this.endLife(host, life, `could not start: ${String(cause)}`),
      );
      void node.done.then((code) => this.endLife(host, life, `exit ${code}`));
    });
  }

  private fencerOf(host: SimHost) {
    if (this.fenced === null) return {};
    const fencer = simFencer(this.fenced, {
      loop: this.loop,
      die: new Die(this.seed + (this.journal.stats['node ends'] ?? 0)),
      host,
      runs: this.fenceRuns,
      cutOff: (peer, offMs) => this.injector.cutOff(peer as Side, offMs),
    });
    return { fencer };
  }

  private guestOptions(side: Side): GuestOptions {
    const { guest } = this.mix;
    const { stepMs } = this.portioned ?? {};
    const served = stepMs === undefined || stepMs === null ? {} : { stepMs };
    return { ...guest, ...served, tcp: { ...guest.tcp, ...this.differing?.habits[side] } };
  }

  private endLife(host: SimHost, life: Life, how: string): void {
    if (host.life !== life) return;
    this.journal.trace(life.process.name, `ends: ${how}`);
    this.journal.count('node ends');
    this.vmTrouble.ended(host, how);
    this.web.lose(this.loop.nowMs);
    host.life = null;
    life.process.kill();
    freeSlabMemories.push(life.slabMemory);
    if (host.up) this.start(host, this.die.within(300, 3000));
  }

  private nodeEvent(host: SimHost, type: string, details: Readonly<Record<string, unknown>>): void {
    const { journal } = this;
    journal.count(type);
    if (type === 'checkpoint.committed') this.sameInput.committed(details);
    this.uselessSecondary.event(host, type, details);
    this.periods.event(host, type, details);
    this.uplinkMoves.event(host, type, details);
    this.intervals.event(host, type, details);
    this.orderlyMoves.event(host, type, details);
    if (type === 'pair.state' && details.to === 'promoting') this.uplinkWrites.promoting(host);
    if (type === 'failover.done') {
      this.uplinkWrites.promoted(host);
      this.vmTrouble.promoted(host);
      host.life?.audit.promoted(details as { sentFrames: number; deliveredFrames: number });
    }
    if (!journal.isTraced) return;
    const { pid: _, ...rest } = details;
    journal.trace(`node-${host.side}`, `${type} ${JSON.stringify(rest)}`);
  }

  private qemuEvents(host: SimHost): QemuEvents {
    return {
      died: (qemu) => this.lineage.vmDied(host, qemu),
      phase: (qemu, phase) => this.reached(host, qemu, phase),
      taken: (qemu) => {
        this.sameInput.stateTaken(qemu);
        this.vmTrouble.stateTaken(qemu);
      },
      loaded: (qemu, own, theirs, which) => this.sameInput.stateLoaded(qemu, own, theirs, which),
      note: (qemu, text) => this.journal.trace(qemu.name, text),
    };
  }

  private reached(host: SimHost, qemu: SimQemu, phase: Phase): void {
    this.journal.trace(qemu.name, `phase ${phase}`);
    if (phase === 'received') this.sameInput.stateReceived(host, qemu);
    this.injector.reached(host, phase);
    this.bothSent.reached(phase);
  }
}
