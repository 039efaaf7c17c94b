/**
 * Injects the planned faults (faults.ts): at their time, or at the moment that they wait for. The world notifies the
 * injector of such moments: a phase of a checkpoint, a write to an uplink, a claim.
 */
import type { PairRecord } from '../../src/pair/arbiter.ts';
import { type Broken, describeFault, type Fault, type Side } from './faults.ts';
import type { Die } from './guest/die.ts';
import type { Mix } from './guest/mix.ts';
import type { Journal } from './journal.ts';
import type { Loop } from './loop.ts';
import type { Network } from './network.ts';
import type { SentOutput } from './rules/output-commit.ts';
import type { ArbiterRecord, Lost } from './sim-arbiter.ts';
import { ARBITER_MS_MAX, type Hosts, type Life, otherOf, type SimHost } from './sim-host.ts';
import type { Phase } from './sim-migration.ts';
import type { Route } from './sim-socket.ts';
import type { Sockets } from './sockets.ts';
import type { Web } from './unifying.ts';
import { UPLINK_PATH } from './uplinks.ts';
import { type VmFaultEvents, VmFaults } from './vm-faults.ts';
import { WORLD_LIMITS } from './world-limits.ts';

const CONTEST_ARBITER_MS = 400;
/** What clients send while an operator moves the VM. */
const MOVE_MS = 300;
const MOVE_EVERY_MS = 3;
const MOVE_DATAGRAMS = 2;
const MOVE_BYTES = 32;
/** A primary that writes nothing for this long is not stopped any more. */
const STALL_WITHIN_MS = 3000;
/** A burst may cause the next checkpoint, and so the next burst. */
const BURSTS = 3;
/** Output that is held until the commit, and then is more than one write takes. */
const LONG_WRITE: BurstAt = {
  kind: 'burst-at',
  phase: 'reply',
  who: 'primary',
  datagrams: 60,
  bytes: 1400,
  own: true,
};
/** A pair cannot heal a network that delivers a node's output long after another node was promoted. */
const UPLINK_STALL_MS_MAX = 800;
const UPLINK_AFTER_DEATH_MS = 50;
/** Of 1400 bytes each: more than the socket takes. */
const UPLINK_FULL_DATAGRAMS = 250;
/** So many, so soon, that handshakes are in progress. */
const MUTE_CONNECTIONS = 20;
const MUTE_WITHIN_MS = 20;
/** Several heartbeats. */
const HALF_RESET_AFTER_MS = 500;

type BurstAt = Extract<Fault['what'], { kind: 'burst-at' }>;

/** The part of a world that faults reach. */
export type Scene = {
  readonly loop: Loop;
  readonly die: Die;
  readonly sockets: Sockets;
  readonly network: Network;
  readonly record: ArbiterRecord;
  readonly hosts: Hosts;
  readonly mix: Mix;
  /** Clients whose replies a rule may let differ. */
  readonly web: Web;
  readonly journal: Journal;
  start(host: SimHost, afterMs: number): void;
  endLife(host: SimHost, life: Life, how: string): void;
};

export class Injector {
  /** A fault strikes now: what ends now is not ended by a node. */
  injecting = false;
  /** Until then a checkpoint may be inexact. */
  inexactUntilMs = 0;
  private readonly scene: Scene;
  private readonly vmFaults: VmFaults;
  private readonly traps: Extract<Fault['what'], { kind: 'crash-at' }>[] = [];
  /** What is lost of the next claims: those of secondaries, or of both nodes of a pair. */
  private lostClaims: { lost: Lost; by: 'secondary' | 'both'; left: number; untilMs: number } = {
    lost: null,
    by: 'both',
    left: 0,
    untilMs: 0,
  };
  private readonly bursts: (BurstAt & { untilMs: number; left: number })[] = [];
  /** When an operator last asked for a failover: it counts as a fault, which it is not for the rule of orderly moves. */
  movedAtMs = 0;
  /**
   * The next primary that writes to its uplink stops between its look at the clock and the write, after `skip` writes;
   * `long`: only when its output is more than one write takes.
   */
  private stall: { ms: number; skip: number; long: boolean; untilMs: number } | null = null;

  constructor(scene: Scene, vmFaultEvents: VmFaultEvents) {
    this.scene = scene;
    this.vmFaults = new VmFaults(scene, vmFaultEvents);
  }

  inject(fault: Fault): void {
    this.asFault(() => this.strike(fault));
  }

  private strike(fault: Fault): void {
    const { what, ms } = fault;
    const { loop, hosts } = this.scene;
    this.scene.journal.count('faults');
    this.scene.journal.trace('fault', describeFault(fault));
    const untilMs = loop.nowMs + ms;
    const both = Object.values(hosts);
    const host = 'side' in what ? hosts[what.side] : null;
    // A guest that switches itself off is none: its rule wants to know whether anything else is.
    if (what.kind !== 'power-off') for (const one of host === null ? both : [host]) this.markFault(one, ms);
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
        // A VM that reads no input for this long gets an inexact checkpoint.
        if (ms > 400) this.inexactUntilMs = untilMs + 5000;
        return;
      case 'hung-vm':
        this.inexactUntilMs = untilMs + 5000;
        this.vmFaults.hang(what.role, ms);
        return;
      case 'standing-vm':
        // A VM that stands reads no input.
        this.inexactUntilMs = untilMs + 5000;
        this.vmFaults.stand(what, ms);
        return;
      case 'power-off':
        this.inexactUntilMs = loop.nowMs + 5000;
        this.vmFaults.switchOff(what.who);
        return;
      case 'dead-guest':
        this.killGuest(ms);
        return;
      case 'stalled-write':
        this.stall = { ...what, ms, untilMs: loop.nowMs + STALL_WITHIN_MS };
        if (!what.long) return;
        this.bursts.push({ ...LONG_WRITE, untilMs: loop.nowMs + STALL_WITHIN_MS, left: BURSTS });
        this.command('checkpoint', both);
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
        this.lostClaims = { lost: what.lost, by: 'secondary', left: what.times, untilMs };
        this.endPair(what.part, ms);
        return;
      case 'late-claim':
        this.lostClaims = { lost: { lateMs: what.lateMs }, by: 'both', left: what.times, untilMs };
        this.endPair(what.part, ms);
        return;
      case 'burst-at':
        this.bursts.push({ ...what, untilMs, left: BURSTS });
        this.command('checkpoint', both);
        return;
      case 'flood':
        this.scene.mix.flood.flood(what.connections, what.atOnce);
        return;
      case 'contest': {
        // Both claim, and either may be first.
        for (const { arbiterWay } of both) {
          const { delayMsMax } = arbiterWay;
          arbiterWay.delayMsMax = CONTEST_ARBITER_MS;
          loop.at(untilMs + CONTEST_ARBITER_MS, null, () => {
            arbiterWay.delayMsMax = Math.min(delayMsMax, ARBITER_MS_MAX);
          });
        }
        for (const socket of this.scene.sockets.between) if (socket.isOpen) socket.reset();
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
        for (const route of this.scene.sockets.routes.values()) {
          route.rate = what.bytesPerMs;
          loop.at(untilMs, null, () => this.unclog(route));
        }
        return;
      case 'link-reset':
        for (const socket of this.scene.sockets.between) if (socket.isOpen) socket.reset();
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
      case 'uplink-away':
        this.takeUplink(hosts[what.side], ms);
        return;
      case 'bad-network':
        this.scene.network.trouble(
          { loss: what.loss, duplication: what.duplication, jitterMs: what.jitterMs },
          untilMs,
        );
        return;
      case 'command':
        this.command(what.command, what.command === 'failover' ? [hosts[what.to]] : both);
    }
  }

  /** A VM is at a phase of a checkpoint. */
  reached(host: SimHost, phase: Phase): void {
    const { loop, die, record } = this.scene;
    for (const burst of this.bursts) {
      if (burst.phase !== phase || burst.untilMs < loop.nowMs || burst.left === 0) continue;
      burst.left--;
      this.burst(burst);
    }
    const i = this.traps.findIndex((trap) => trap.phase === phase);
    if (i < 0) return;
    const [trap] = this.traps.splice(i, 1);
    const isPrimary = record.stored.record?.primary === host.side;
    const victim = (trap.role === 'primary') === isPrimary ? host : otherOf(this.scene.hosts, host);
    // While a node is paused both streams bring something, and it then reads them in either order.
    if (die.chance(0.5)) otherOf(this.scene.hosts, victim).life?.process.pause(die.within(2, 30));
    loop.after(die.next() * 2, null, () => {
      this.scene.journal.trace('fault', `crash ${trap.part} ${victim.side} at ${phase}`);
      this.markFault(victim, 0);
      this.asFault(() => {
        if (trap.part === 'node') this.crash(victim);
        else victim.qemu?.process.kill();
      });
    });
  }

  /** A fence takes the power of a host. */
  cutOff(side: Side, offMs: number): void {
    const host = this.scene.hosts[side];
    this.scene.journal.trace('fault', `${side} is fenced, and off for ${offMs} ms`);
    this.markFault(host, offMs);
    // It may be off already.
    if (host.up) this.asFault(() => this.crashHost(host, offMs));
  }

  /** A node has looked at its clock and is about to write to its uplink. `sent`: the output that the write is judged by. */
  aboutToWrite(host: SimHost, sent: SentOutput | null): void {
    const { stall } = this;
    const { loop, record } = this.scene;
    const stored = record.stored.record;
    if (stall === null || host.write === null || stored?.state !== 'pair' || stored.primary !== host.side)
      return;
    const releasedBytes = host.life?.audit.releasedBytes ?? 0;
    if (loop.nowMs > stall.untilMs) this.stall = null;
    else if (stall.long && releasedBytes <= WORLD_LIMITS.uplinkWriteBytesMax) return;
    else if (stall.skip > 0) stall.skip--;
    else {
      this.stall = null;
      this.scene.journal.count(stall.long ? 'stalled long writes' : 'stalled writes');
      this.scene.journal.trace('fault', `${host.side} stops before a write to its uplink for ${stall.ms} ms`);
      this.markFault(host, stall.ms);
      host.write.sent = sent?.copy() ?? null;
      host.life?.process.stopHere(stall.ms);
    }
  }

  /** Returns what is lost of a node's request to change the record. */
  lostOfClaim(record: PairRecord): Lost {
    const { loop } = this.scene;
    const stored = this.scene.record.stored.record;
    const { lost, by, left, untilMs } = this.lostClaims;
    const isMeant = stored?.state === 'pair' && (by === 'both' || stored.secondary === record.primary);
    if (!isMeant || lost === null || left === 0 || loop.nowMs > untilMs) return null;
    this.lostClaims.left--;
    const how = typeof lost === 'string' ? `whose ${lost} was lost` : 'that ended in an error and came late';
    this.scene.journal.count(`claims ${how}`);
    this.scene.journal.trace('fault', `a claim of ${record.primary} ${how}`);
    return lost;
  }

  /** Ends the primary, or the link between the nodes. */
  private endPair(part: Broken | 'link', ms: number): void {
    if (part !== 'link') {
      this.killPrimary(part, ms);
      return;
    }
    const untilMs = this.scene.loop.nowMs + ms;
    this.cut('a>b', untilMs);
    this.cut('b>a', untilMs);
  }

  /** An operator gives nodes a command. */
  private command(command: Extract<Fault['what'], { kind: 'command' }>['command'], hosts: SimHost[]): void {
    const { journal } = this.scene;
    for (const { side, life } of hosts) {
      if (life === null) continue;
      if (command === 'failover') {
        journal.count(`failovers asked of a ${this.roleOf(side)}`);
        if (this.roleOf(side) === 'secondary') this.askAround();
      }
      this.scene.loop.after(0, life.process, () => {
        life.node[command]().then(
          () => {},
          (cause: unknown) => journal.trace(life.process.name, `${command}: ${String(cause)}`),
        );
      });
    }
  }

  /** Clients ask while the VM moves. */
  private askAround(): void {
    const { loop, mix } = this.scene;
    this.movedAtMs = loop.nowMs;
    for (let atMs = 0; atMs < MOVE_MS; atMs += MOVE_EVERY_MS)
      loop.after(atMs, null, () => mix.burst.ask(MOVE_DATAGRAMS, MOVE_BYTES));
  }

  /** VMs or clients send many datagrams at once. */
  private burst({ who, datagrams, bytes, own }: BurstAt): void {
    const primary = this.scene.record.stored.record?.primary;
    this.scene.journal.count(`bursts of ${who}`);
    if (who === 'clients') {
      this.scene.loop.after(0, null, () => this.scene.mix.burst.ask(datagrams, bytes));
      return;
    }
    for (const { side, qemu, guest } of Object.values(this.scene.hosts)) {
      if (qemu === null || (who !== 'vms' && (who === 'primary') !== (side === primary))) continue;
      this.scene.loop.after(0, qemu.process, () => {
        if (qemu.vm.running) guest?.burst(datagrams, bytes, own);
      });
    }
  }

  /** Ends the primary wherever it is by now; does nothing if it has no secondary. */
  private killPrimary(part: Broken, ms: number): void {
    const { record } = this.scene.record.stored;
    if (record?.state !== 'pair') return;
    const host = this.scene.hosts[record.primary as Side];
    if (part === 'host') {
      this.crashHost(host, 1000 + ms);
      return;
    }
    if (part !== 'node') host.qemu?.process.kill();
    if (part !== 'vm') this.crash(host);
  }

  /** The guest of the secondary is dead for `ms`, unless it is promoted: the service could not outlive that. */
  private killGuest(ms: number): void {
    const { record } = this.scene.record.stored;
    if (record?.state !== 'pair') return;
    const { qemu } = this.scene.hosts[record.secondary as Side];
    if (qemu === null) return;
    this.scene.journal.count('dead guests');
    qemu.vm.die();
    this.scene.loop.after(ms, qemu.process, () => qemu.vm.revive());
  }

  /**
   * Connections begin, and web clients ask. The primary's messages about them do not reach the secondary, while the secondary's still
   * arrive.
   * Then the primary dies.
   */
  private mutePrimary({ part, afterMs }: Extract<Fault['what'], { kind: 'mute-primary' }>, ms: number): void {
    const { record } = this.scene.record.stored;
    if (record?.state !== 'pair') return;
    const { primary, secondary } = record;
    this.scene.mix.flood.flood(MUTE_CONNECTIONS, MUTE_CONNECTIONS);
    this.scene.web.hurry();
    this.scene.loop.after(this.scene.die.next() * MUTE_WITHIN_MS, null, () => {
      this.cut(`${primary}>${secondary}`, this.scene.loop.nowMs + ms);
      this.scene.loop.after(afterMs, null, () => {
        if (this.scene.record.stored.record?.primary !== primary) return;
        this.scene.journal.count('muted primaries');
        this.asFault(() => this.killPrimary(part, ms));
      });
    });
  }

  /** The network stops reading from the primary's uplink while both VMs send much; the primary may die with its queue. */
  private stallUplink({ dies, afterMs }: Extract<Fault['what'], { kind: 'uplink-stall' }>, ms: number): void {
    const { record } = this.scene.record.stored;
    if (record?.state !== 'pair') return;
    const host = this.scene.hosts[record.primary as Side];
    const stallMs = dies === 'nothing' ? Math.min(ms, UPLINK_STALL_MS_MAX) : afterMs + UPLINK_AFTER_DEATH_MS;
    this.scene.network.stall(`uplink-${host.side}`, this.scene.loop.nowMs + stallMs);
    this.burst({ ...LONG_WRITE, who: 'vms', datagrams: UPLINK_FULL_DATAGRAMS, own: false });
    if (dies === 'nothing') return;
    this.scene.loop.after(afterMs, null, () => {
      if (this.scene.record.stored.record?.primary !== host.side) return;
      if ((host.life?.audit.releasedBytes ?? 0) > 0)
        this.scene.journal.count('primaries that died with output waiting');
      this.asFault(() => this.killPrimary(dies, ms));
    });
  }

  /**
   * The link breaks for the secondary, and the primary does not notice: for a while it got late heartbeat replies, and
   * now it gets none, nor any reply of the arbiter. It may then speak by its lease only.
   */
  private halfReset(lateMs: number, arbiterMs: number, ms: number): void {
    const { record } = this.scene.record.stored;
    if (record?.state !== 'pair') return;
    const primary = this.scene.hosts[record.primary as Side];
    const secondary = otherOf(this.scene.hosts, primary);
    const back = this.scene.sockets.route(secondary.name, primary.name);
    back.lateMs += lateMs;
    this.scene.loop.after(HALF_RESET_AFTER_MS, null, () => {
      back.lateMs -= lateMs;
      const untilMs = this.scene.loop.nowMs + ms;
      this.markFault(primary, ms);
      this.markFault(secondary, ms);
      // A reply that was sent late still arrives.
      this.scene.loop.after(lateMs, null, () => this.cut(`${secondary.name}>${primary.name}`, untilMs));
      this.cut(`${primary.name}>${secondary.name}`, untilMs);
      primary.arbiterWay.cutUntilMs = Math.max(
        primary.arbiterWay.cutUntilMs,
        this.scene.loop.nowMs + arbiterMs,
      );
      for (const socket of this.scene.sockets.between) {
        for (const end of [socket, socket.peer]) if (end.host === secondary && end.isOpen) end.resetHere();
      }
    });
  }

  private unclog(route: Route): void {
    // What was sent before still arrives at the old rate.
    const lateMs = route.busyUntilMs - this.scene.loop.nowMs;
    if (lateMs > 0) for (const host of Object.values(this.scene.hosts)) this.markFault(host, lateMs);
    route.rate = Number.POSITIVE_INFINITY;
    route.busyUntilMs = 0;
  }

  private cut(key: string, untilMs: number): void {
    const route = this.scene.sockets.routes.get(key);
    if (route !== undefined) route.cutUntilMs = Math.max(route.cutUntilMs, untilMs);
  }

  private takeUplink(host: SimHost, ms: number): void {
    const listener = host.unix.get(UPLINK_PATH);
    if (listener === undefined) return;
    const { loop, journal } = this.scene;
    journal.count('uplinks that were away');
    host.unix.delete(UPLINK_PATH);
    host.uplinkAwaySinceMs = loop.nowMs;
    this.resetUplink(host);
    loop.after(ms, null, () => {
      host.unix.set(UPLINK_PATH, listener);
      host.uplinkAwaySinceMs = null;
      host.uplinkUpSinceMs = loop.nowMs;
    });
  }

  private resetUplink(host: SimHost): void {
    host.uplinkResets++;
    host.uplinkSocket?.reset();
  }

  /** Its sockets vanish without a FIN or RST. The peer's packets get no reply until it is up again. */
  private crashHost(host: SimHost, ms: number): void {
    host.up = false;
    for (const socket of this.scene.sockets.between) {
      for (const end of [socket, socket.peer]) if (end.host === host && end.isOpen) end.vanish();
    }
    const { life } = host;
    host.qemu?.process.kill();
    if (life !== null) this.scene.endLife(host, life, 'host without power');
    this.scene.loop.after(ms, null, () => {
      host.up = true;
      this.scene.start(host, this.scene.die.within(300, 2000));
    });
  }

  private crash(host: SimHost): void {
    if (host.life !== null) this.scene.endLife(host, host.life, 'killed');
  }

  /** By the arbiter's record. */
  private roleOf(side: Side): 'primary' | 'secondary' | 'candidate' {
    const { record } = this.scene.record.stored;
    if (record?.primary === side) return 'primary';
    return record?.secondary === side ? 'secondary' : 'candidate';
  }

  private markFault(host: SimHost, ms: number): void {
    host.faultUntilMs = Math.max(host.faultUntilMs, this.scene.loop.nowMs + ms);
  }

  private asFault(strike: () => void): void {
    this.injecting = true;
    strike();
    this.injecting = false;
  }
}
