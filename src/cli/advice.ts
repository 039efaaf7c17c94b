/**
 * What a node's checkpoints were spent on, and what to change: made from its status alone.
 *
 * A cause is the class of a divergence, or else the reason of the checkpoint. A cause below `SHARE_MIN` of the checkpoints, and of the
 * time for which they stopped the VM, is shown without advice.
 */
import type { NodeStatus, SpentRow } from '../observe/status.ts';
import { formatLag, formatMs } from './output.ts';

const SHARE_MIN = 0.05;
const SERVICES_MAX = 3;
/** A second turns once a second, and a counter of a minute's turns may lie near it. */
const TURNS_PER_SECOND_MAX = 1.2;
/** Random numbers that differ more often than once a minute have another cause than the turn of a second. */
const RANDOM_PER_SECOND_MAX = 1 / 60;

export type SpentCause = {
  cause: string;
  checkpoints: number;
  /** for so long they stopped the VM, and kept input from both VMs */
  pausedMs: number;
  totalMs: number;
  /** of the time for which checkpoints stopped the VM */
  share: number;
  /** the dearest ones; `null`: no service is known, or it is one of many */
  services: { service: string | null; checkpoints: number; pausedMs: number }[];
};

/**
 * Where a change would be made. guest: its services. vm: its QEMU's arguments. host: machines and link. look: first see
 * what differs. nothing: it is as it should be.
 */
export type AdviceAbout = 'guest' | 'vm' | 'host' | 'look' | 'nothing';
export type Advice = { cause: string; change: AdviceAbout; text: string };

export type AdviceReport = {
  node: string;
  pair: string;
  role: NodeStatus['role'];
  phase: NodeStatus['phase'];
  /** since the first checkpoint */
  forMs: number;
  checkpoints: number;
  perSecond: number;
  pausedMs: number;
  pausedShare: number;
  spent: SpentCause[];
  advice: Advice[];
};

export function adviceFor(status: NodeStatus): AdviceReport {
  const { node, pair, role, phase, spent } = status;
  const checkpoints = sum(spent.rows, (row) => row.checkpoints);
  const pausedMs = sum(spent.rows, (row) => row.pausedMs);
  const causes = causesOf(spent.rows, pausedMs);
  const report = {
    node,
    pair,
    role,
    phase,
    forMs: spent.forMs,
    checkpoints,
    perSecond: share(1000 * checkpoints, spent.forMs),
    pausedMs,
    pausedShare: Math.min(1, share(pausedMs, spent.forMs)),
    spent: causes,
  };
  const worthIt = causes.filter(
    (one) => one.share >= SHARE_MIN || one.checkpoints >= SHARE_MIN * checkpoints,
  );
  return { ...report, advice: [...standing(status), ...worthIt.map((one) => adviceOn(one, status))] };
}

function causesOf(rows: readonly SpentRow[], pausedMs: number): SpentCause[] {
  const byCause = Map.groupBy(rows, (row) => row.class ?? row.reason);
  const causes = [...byCause].map(([cause, ofCause]) => ({
    cause,
    checkpoints: sum(ofCause, (row) => row.checkpoints),
    pausedMs: sum(ofCause, (row) => row.pausedMs),
    totalMs: sum(ofCause, (row) => row.totalMs),
    share: share(
      sum(ofCause, (row) => row.pausedMs),
      pausedMs,
    ),
    services: servicesOf(ofCause),
  }));
  return causes.sort((a, b) => b.pausedMs - a.pausedMs);
}

/** Several reasons may have one class. */
function servicesOf(rows: readonly SpentRow[]): SpentCause['services'] {
  const services = [...Map.groupBy(rows, ({ service }) => service)].map(([service, ofService]) => ({
    service,
    checkpoints: sum(ofService, (row) => row.checkpoints),
    pausedMs: sum(ofService, (row) => row.pausedMs),
  }));
  return services.sort((a, b) => b.pausedMs - a.pausedMs).slice(0, SERVICES_MAX);
}

/** What matters more than any checkpoint. */
function standing({ role, phase, peer, secondary }: NodeStatus): Advice[] {
  if (role === 'secondary')
    return [
      {
        cause: 'secondary',
        change: 'look',
        text: `This node follows, and takes no checkpoints. Ask the primary${peer.name === null ? '' : `, node ${peer.name}`}.`,
      },
    ];
  if (phase === 'alone')
    return [
      {
        cause: 'alone',
        change: 'host',
        text: 'The VM runs UNPROTECTED, and no checkpoints are taken. Start the other node.',
      },
    ];
  if (secondary?.unmatched !== true) return [];
  return [
    {
      cause: 'unmatched',
      change: 'host',
      text: 'Nothing that the secondary sends matches: it is of no use. See "A secondary that is of no use" in docs/operation.md.',
    },
  ];
}

function adviceOn(spent: SpentCause, status: NodeStatus): Advice {
  const { cause } = spent;
  const [change, text] = textFor(spent, status);
  return { cause, change, text };
}

function textFor({ cause, checkpoints }: SpentCause, status: NodeStatus): [AdviceAbout, string] {
  const perSecond = share(1000 * checkpoints, status.spent.forMs);
  switch (cause) {
    case 'order':
      return orderText(status);
    case 'clock':
      return clockText(perSecond, status);
    case 'random':
      return randomText(perSecond);
    case 'length':
      return ['look', `The VMs sent texts or messages of other lengths. ${LOOK}`];
    case 'flags':
      return [
        'look',
        `TCP flags or options differ: a stream ended in one VM and went on in the other, or a flood of SYNs made one VM use SYN cookies. ${LOOK}`,
      ];
    case 'unknown':
      return ['look', `What the VMs differ in was not recognised. ${LOOK}`];
    case 'wait-primary':
      return waitText(status);
    case 'wait-secondary':
      return [
        'look',
        `The secondary's VM sent what the primary's did not send within two seconds. ${LOOK} Some are normal.`,
      ];
    case 'interval':
      return [
        'nothing',
        'They keep the VMs alike where nothing differs. A longer checkpoint.intervalMsMax makes them fewer, and each of them larger.',
      ];
    case 'initial':
      return ['nothing', 'One ends each first copy.'];
    case 'requested':
      return ['nothing', '"colo checkpoint" or QEMU asked for them.'];
    default:
      return ['look', limitText(cause)];
  }
}

const LOOK = 'Capture at this node, and compare: "colo capture start", "colo diff".';

function orderText({ secondary }: NodeStatus): [AdviceAbout, string] {
  const what = 'The VMs took the requests of several clients in another order.';
  const { why, blindness } = secondary?.portions ?? { why: 'alone', blindness: null };
  switch (why) {
    case null:
      return [
        'guest',
        `${what} They now get their input in portions, which mends most of that. One virtual processor, and one worker process for ` +
          'each port, mend more.',
      ];
    case 'no-gain':
      return [
        'guest',
        `${what} Input in portions did not help. One virtual processor, one worker process for each port and fewer connections at ` +
          'once make it rarer.',
      ];
    case 'never-sleeps':
      return [
        'guest',
        `${what} Input in portions would mend that, but the guest never sleeps. Find what keeps its processor busy, and do not ` +
          'boot it with idle=poll.',
      ];
    case 'blind':
      return [
        'host',
        `${what} Input in portions would mend that, but the node does not see whether the guests sleep: ${blindness}.`,
      ];
    default:
      return ['nothing', `${what} The node gives them their input in portions where that comes often.`];
  }
}

function clockText(perSecond: number, { vm }: NodeStatus): [AdviceAbout, string] {
  const recipe =
    vm.pausedMs < 1000
      ? ''
      : ` The guest's clock has stood for ${formatMs(vm.pausedMs)} in all: "The guest's clock" in docs/operation.md has the lines for chrony.`;
  if (perSecond <= TURNS_PER_SECOND_MAX)
    return [
      'nothing',
      `A second turned between the VMs' work on one request, at most once a second. Nothing need be changed.${recipe}`,
    ];
  return [
    'guest',
    'The replies have a time in them that is finer than a second, or many of them; a second alone turns once a second. Leave out ' +
      `durations and milliseconds where clients do not need them.${recipe}`,
  ];
}

function randomText(perSecond: number): [AdviceAbout, string] {
  if (perSecond <= RANDOM_PER_SECOND_MAX)
    return [
      'nothing',
      'A checkpoint makes the random generators of both VMs alike. Nothing need be changed.',
    ];
  return [
    'vm',
    'A checkpoint makes the random generators of both VMs alike, so something parts them again: work in another order (handshakes ' +
      'of several clients at once, which input in portions mends), or hardware that gives each VM numbers of its own. Take RDRAND from the guest ' +
      '(-cpu ...,-rdrand,-rdseed), and a virtio-rng device.',
  ];
}

function waitText({ secondary }: NodeStatus): [AdviceAbout, string] {
  const { p50 = null, p99 = null } = secondary?.lagMs ?? {};
  const lag =
    p50 === null || p99 === null
      ? ''
      : ` By "colo status" its output is ${formatLag(p50)} (median), ${formatLag(p99)} (p99).`;
  return [
    'host',
    `The secondary's VM did not send the same in time.${lag} See whether its host gives it a processor, and what the link's delay is. Some are normal.`,
  ];
}

function limitText(reason: string): string {
  switch (reason) {
    case 'limit-flows':
      return `There were more flows than are known at once, as in a flood of SYNs. ${LOOK}`;
    case 'limit-share':
      return `One flow held three quarters of what all may: the VMs are far apart in it. ${LOOK}`;
    case 'limit-fragments':
      return `Many datagrams in fragments were incomplete. ${LOOK}`;
    default:
      return `Much output was held: the secondary's VM is far behind, or mute. See "secondary" in "colo status".`;
  }
}

function sum(rows: readonly SpentRow[], of: (row: SpentRow) => number): number {
  return rows.reduce((total, row) => total + of(row), 0);
}

function share(part: number, whole: number): number {
  return whole > 0 ? part / whole : 0;
}
