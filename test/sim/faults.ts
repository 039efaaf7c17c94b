/** The faults of a world and their times, drawn from the seed before the world begins. */
import type { Die } from './guest/die.ts';
import { PHASES, type Phase } from './sim-migration.ts';

export type Side = 'a' | 'b';

/** How a primary is lost to its secondary. */
export type Broken = 'node' | 'vm' | 'both' | 'host';

/** Who sends many datagrams at once. */
export type Bursting = 'primary' | 'secondary' | 'vms' | 'clients';

export type Fault = {
  readonly atMs: number;
  /** How long it lasts; 0 for one that does not. */
  readonly ms: number;
  readonly what:
    | { kind: 'node-crash' | 'vm-crash' | 'both-crash' | 'host-crash'; side: Side }
    | { kind: 'node-pause' | 'vm-pause'; side: Side }
    /** The guest of the secondary is dead, after each checkpoint too; its QEMU and its node live. */
    | { kind: 'dead-guest' }
    /** The QEMU of one of a pair's VMs does nothing for longer than its node waits. */
    | { kind: 'hung-vm'; role: 'primary' | 'secondary' }
    /** One of a pair's VMs stands for another reason than a checkpoint; at the end an operator continues it, unless it is dead. */
    | { kind: 'standing-vm'; role: 'primary' | 'secondary'; why: 'paused' | 'io-error' | 'guest-panicked' }
    /** The guest switches itself off in both VMs, at about the same time, or in one of them only. */
    | { kind: 'power-off'; who: 'both' | 'primary' | 'secondary' }
    | { kind: 'mute-primary'; part: Broken; afterMs: number }
    | { kind: 'uplink-stall'; dies: Broken | 'nothing'; afterMs: number }
    | { kind: 'stalled-write'; skip: number; long: boolean }
    | { kind: 'crash-at'; part: 'node' | 'vm'; role: 'primary' | 'secondary'; phase: Phase }
    | { kind: 'kill-primary'; part: Broken }
    | { kind: 'lost-claim'; part: Broken | 'link'; lost: 'request' | 'reply'; times: number }
    /** The nodes' next claims end in an error, and are made later, if at all. */
    | { kind: 'late-claim'; part: Broken | 'link'; lateMs: number; times: number }
    | { kind: 'half-reset'; lateMs: number; arbiterMs: number }
    | { kind: 'contest' }
    | { kind: 'partition' }
    | { kind: 'one-way'; from: Side }
    | { kind: 'clog'; bytesPerMs: number }
    | { kind: 'link-reset' }
    | { kind: 'arbiter-cut'; side: Side }
    | { kind: 'arbiter-lossy'; side: Side }
    | { kind: 'uplink-reset'; side: Side }
    /** Nobody is at the other end of its socket (uplinks.ts). */
    | { kind: 'uplink-away'; side: Side }
    | { kind: 'bad-network'; loss: number; duplication: number; jitterMs: number }
    | { kind: 'burst-at'; phase: Phase; who: Bursting; datagrams: number; bytes: number; own: boolean }
    | { kind: 'flood'; connections: number; atOnce: number }
    /** Failover is one node's command: the primary continues alone, or the secondary asks it to yield. */
    | { kind: 'command'; command: 'failover' | 'checkpoint' | 'protect'; to: Side };
};

export type FaultKind = Fault['what']['kind'];

/** Faults that end or cut something: a world has at least three. */
const HEAVY: readonly FaultKind[] = [
  'node-crash',
  'node-crash',
  'vm-crash',
  'both-crash',
  'host-crash',
  'node-pause',
  'vm-pause',
  'crash-at',
  'crash-at',
  'kill-primary',
  'kill-primary',
  'kill-primary',
  'lost-claim',
  'mute-primary',
  'uplink-stall',
  'stalled-write',
  'stalled-write',
  'half-reset',
  'half-reset',
  'contest',
  'partition',
  'one-way',
  'link-reset',
];
/** In addition to those. */
const LIGHT: readonly FaultKind[] = [
  'clog',
  'arbiter-cut',
  'arbiter-lossy',
  'uplink-reset',
  'bad-network',
  'burst-at',
  'burst-at',
  'flood',
  'command',
  'command',
];

/** The part of worlds in which the secondary's guest dies. */
const DEAD_GUESTS = 0.25;
/** The part of worlds in which a QEMU hangs. */
const HUNG_VMS = 0.25;
/** The part in which a VM stands, and in which a guest switches itself off. */
const STANDING_VMS = 0.25;
const POWER_OFFS = 0.2;
/** How long it hangs at least. */
const HUNG_MS = 5500;
/** The part of worlds in which the arbiter makes changes after it has reported an error. */
const LATE_CLAIMS = 0.35;

const CHECKPOINT_PHASES = PHASES.filter((phase) => phase !== 'copying' && phase !== 'copied');
/** Phases in which one of the VMs runs. */
const RUNNING_PHASES = ['request', 'reply', 'loaded'] as const;

export function planFaults(die: Die, fromMs: number, untilMs: number): Fault[] {
  const heavy = die.within(3, 6);
  const light = die.within(0, 5);
  const faults: Fault[] = [];
  for (let i = 0; i < heavy + light; i++) {
    const atMs = fromMs + die.next() * (untilMs - fromMs);
    faults.push(make(die, i < heavy ? die.pick(HEAVY) : die.pick(LIGHT), Math.round(atMs)));
  }
  // Drawn after all others, so that worlds without it stay as they were.
  if (die.chance(DEAD_GUESTS)) {
    const atMs = fromMs + die.next() * (untilMs - fromMs);
    faults.push(make(die, 'dead-guest', Math.round(atMs)));
  }
  if (die.chance(HUNG_VMS)) {
    const atMs = fromMs + die.next() * (untilMs - fromMs);
    faults.push(make(die, 'hung-vm', Math.round(atMs)));
  }
  if (die.chance(LATE_CLAIMS)) {
    const atMs = fromMs + die.next() * (untilMs - fromMs);
    faults.push(make(die, 'late-claim', Math.round(atMs)));
  }
  for (const [kind, part] of [
    ['standing-vm', STANDING_VMS],
    ['power-off', POWER_OFFS],
  ] as const) {
    if (die.chance(part)) faults.push(make(die, kind, Math.round(fromMs + die.next() * (untilMs - fromMs))));
  }
  return faults.sort((a, b) => a.atMs - b.atMs);
}

function make(die: Die, kind: FaultKind, atMs: number): Fault {
  const side: Side = die.pick(['a', 'b'] as const);
  const ms = die.pick([20, 100, 300, 600, 1200, 2500, 5000]);
  switch (kind) {
    case 'crash-at': {
      const part = die.pick(['node', 'vm'] as const);
      const role = die.pick(['primary', 'secondary'] as const);
      return { atMs, ms: 0, what: { kind, part, role, phase: die.pick(PHASES) } };
    }
    case 'kill-primary':
      return { atMs, ms, what: { kind, part: die.pick(['node', 'vm', 'both', 'host'] as const) } };
    case 'lost-claim': {
      const part = die.pick(['node', 'vm', 'both', 'host', 'link', 'link'] as const);
      const lost = die.pick(['request', 'reply'] as const);
      return { atMs, ms: 2000 + ms, what: { kind, part, lost, times: die.pick([1, 1, 2]) } };
    }
    case 'late-claim': {
      const part = die.pick(['node', 'vm', 'host', 'link', 'link', 'link'] as const);
      const lateMs = die.pick([20, 150, 250, 600, 2000]);
      return { atMs, ms: 2000 + ms, what: { kind, part, lateMs, times: die.pick([1, 2, 3]) } };
    }
    case 'mute-primary': {
      const part = die.pick(['node', 'host'] as const);
      return { atMs, ms: 2000 + ms, what: { kind, part, afterMs: die.pick([5, 20, 100]) } };
    }
    case 'uplink-stall': {
      const dies = die.pick(['nothing', 'node', 'vm', 'host'] as const);
      return { atMs, ms: 400 + ms, what: { kind, dies, afterMs: die.pick([50, 100, 200]) } };
    }
    case 'stalled-write':
      return { atMs, ms: 300 + ms, what: { kind, skip: die.pick([0, 0, 3, 20]), long: die.chance(0.5) } };
    case 'half-reset': {
      const arbiterMs = die.pick([0, 100, 230, 250, 270, 300, 600]);
      return { atMs, ms: 300 + ms, what: { kind, lateMs: die.pick([0, 30, 100]), arbiterMs } };
    }
    case 'burst-at': {
      const who = die.pick(['primary', 'secondary', 'vms', 'vms', 'clients'] as const);
      const datagrams = die.pick([20, 100, 300]);
      const bytes = die.pick([16, 200, 1400]);
      const own = die.chance(0.5);
      const phase = die.pick(who === 'clients' ? CHECKPOINT_PHASES : RUNNING_PHASES);
      return { atMs, ms, what: { kind, phase, who, datagrams, bytes, own } };
    }
    case 'flood':
      return {
        atMs,
        ms: 0,
        what: { kind, connections: die.pick([50, 150, 300]), atOnce: die.pick([10, 50, 150]) },
      };
    case 'one-way':
      return { atMs, ms, what: { kind, from: side } };
    case 'clog':
      return { atMs, ms, what: { kind, bytesPerMs: die.pick([5, 50, 500]) } };
    case 'dead-guest':
      return { atMs, ms: 2000 + 2 * ms, what: { kind } };
    case 'hung-vm':
      return { atMs, ms: HUNG_MS + ms, what: { kind, role: die.pick(['primary', 'secondary'] as const) } };
    case 'standing-vm': {
      const role = die.pick(['primary', 'secondary'] as const);
      const why = die.pick(['paused', 'io-error', 'guest-panicked'] as const);
      return { atMs, ms: 1000 + ms, what: { kind, role, why } };
    }
    case 'power-off':
      return {
        atMs,
        ms: 0,
        what: { kind, who: die.pick(['both', 'both', 'primary', 'secondary'] as const) },
      };
    case 'contest':
    case 'partition':
    case 'link-reset':
      return { atMs, ms, what: { kind } };
    case 'bad-network': {
      const loss = die.pick([0.02, 0.1, 0.3]);
      return { atMs, ms, what: { kind, loss, duplication: die.pick([0, 0.05]), jitterMs: die.pick([0, 5]) } };
    }
    case 'command':
      return {
        atMs,
        ms: 0,
        what: { kind, command: die.pick(['failover', 'checkpoint', 'protect'] as const), to: side },
      };
    case 'host-crash':
      return { atMs, ms: 1000 + ms, what: { kind, side } };
    default:
      return { atMs, ms, what: { kind, side } };
  }
}

export function describeFault({ atMs, ms, what }: Fault): string {
  const { kind, ...rest } = what;
  const details = Object.values(rest).join(' ');
  return `${atMs} ms: ${kind}${details === '' ? '' : ` ${details}`}${ms === 0 ? '' : ` for ${ms} ms`}`;
}
