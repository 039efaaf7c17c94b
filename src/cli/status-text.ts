/** The text of `colo status`: one line per subject, at most 80 columns wide. */
import type { AtOnceReason, PacingStatus } from '../checkpoint/pacing.ts';
import type { CatchUpStatus } from '../datapath/catch-up.ts';
import type { Lead } from '../datapath/clock-lead.ts';
import type { PortionsOff, PortionsStatus } from '../datapath/portions.ts';
import { daysLeft, WARN_DAYS } from '../link/validity.ts';
import type { NodeStatus, UplinkStatus } from '../observe/status.ts';
import type { Instant } from '../units.ts';
import { formatBytes, formatCount, formatLag, formatLead, formatMs, formatPercent, safe } from './output.ts';
import { peerVoiceText, voiceText } from './voice-text.ts';

const WIDTH = 80;
const LABEL_WIDTH = 12;

/** A label, and parts that are joined by commas; a part that is null is left out. */
type Row = readonly [label: string, ...parts: (string | null)[]];

export function statusText(status: NodeStatus, nowMs: Instant): string {
  const rows = [
    ...nodeRows(status, nowMs),
    ...checkpointRows(status, nowMs),
    ...secondaryRows(status),
    ...outputRows(status, nowMs),
    ...trafficRows(status),
    ...ruleRows(status),
    ...failoverRows(status, nowMs),
    ...fenceRows(status),
  ];
  return rows.map(lineOf).join('\n');
}

function lineOf([label, ...parts]: Row): string {
  const text = parts.filter((part) => part !== null).join(', ');
  return cut(`${label.padEnd(LABEL_WIDTH)} ${safe(text)}`.trimEnd());
}

function nodeRows(status: NodeStatus, nowMs: Instant): Row[] {
  const { node, pair, role, phase, generation, epoch, peer, arbiter, vm, disks, rules } = status;
  const isPartial = phase === 'protected' && rules.some(({ exempt }) => exempt !== null);
  return [
    ['node', `${node} of pair ${pair}`],
    [
      'state',
      `${role ?? 'no role yet'}, ${PHASE_TEXTS[phase]}`,
      phase === 'protected' && arbiter.state === 'fails' ? 'but NO FAILOVER: see arbiter' : null,
      isPartial ? 'but NOT the flows that rules exempt' : null,
      vm.trouble === null ? null : 'but its VM is IN TROUBLE',
    ],
    ['voice', voiceText(status)],
    ['membership', `generation ${formatCount(generation)}`, `epoch ${formatCount(epoch)}`],
    [
      'peer',
      peer.name ?? 'unknown',
      peer.connected ? 'connected' : 'NOT CONNECTED',
      peer.lastHeardMs === null ? 'never heard' : `heard ${formatMs(peer.lastHeardMs)} ago`,
    ],
    ...saidRows(peer.summary),
    linkRow(status.link.tls, nowMs),
    ...arbiterRows(arbiter),
    uplinkRow(status.uplink),
    [
      'vm',
      vm.running ? 'running' : 'not running',
      vm.pid === null ? null : `process ${vm.pid}`,
      vm.qemu === null ? null : `QEMU ${vm.qemu}${vm.accel === null ? '' : ` (${vm.accel})`}`,
    ],
    ...troubleRows(vm),
    ...(vm.pausedMs > 0 ? [['', `stopped for ${formatMs(vm.pausedMs)} in all`] as const] : []),
    ...diskRows(disks),
  ];
}

/** What the peer says of itself. */
function saidRows(summary: NodeStatus['peer']['summary']): Row[] {
  if (summary === null) return [];
  const { role, phase, voice, vm, arbiter, agoMs } = summary;
  const rows: Row[] = [
    [
      '',
      `said ${formatMs(agoMs)} ago: ${role ?? 'no role yet'}`,
      phase,
      peerVoiceText(voice),
      vm.running ? 'VM running' : 'VM not running',
    ],
  ];
  if (vm.trouble !== null) rows.push(['', `its VM is IN TROUBLE: ${vm.trouble}`]);
  if (arbiter.failing !== null) rows.push(['', `its arbiter DOES NOT REPLY: ${arbiter.failing}`]);
  return rows;
}

function diskRows(disks: NodeStatus['disks']): Row[] {
  if (disks === null) return [];
  const { count, copy, committing } = disks;
  const rows: Row[] = [['disks', formatCount(count), committing ? 'the images are being completed' : null]];
  if (copy === null) return rows;
  const left = copy.leftMs === null ? null : `${formatMs(copy.leftMs)} left`;
  return [...rows, ['', `${formatBytes(copy.doneBytes)} of ${formatBytes(copy.totalBytes)} copied`, left]];
}

function linkRow(tls: NodeStatus['link']['tls'], nowMs: Instant): Row {
  if (tls === null) return ['link', 'not encrypted'];
  const expires = (what: string, atMs: number): string => {
    const days = daysLeft(atMs, nowMs);
    if (days < 0) return `${what} HAS EXPIRED`;
    return `${what} ${days < WARN_DAYS ? 'EXPIRES' : 'expires'} in ${formatCount(days)} days`;
  };
  const ca = tls.caEndsAtMs < tls.nodeEndsAtMs ? expires('CA', tls.caEndsAtMs) : null;
  return ['link', 'TLS', expires('certificate', tls.nodeEndsAtMs), ca];
}

function arbiterRows({ kind, state, lastReplyMs, latencyMs, failing }: NodeStatus['arbiter']): Row[] {
  if (failing !== null) {
    const label = failing.code === 'COLO_ARBITER_RECORD' ? 'WRONG RECORD' : 'DOES NOT REPLY';
    return [
      ['arbiter', `${kind} ${label} for ${formatMs(failing.forMs)}: NO FAILOVER NOW`],
      ['', `${failing.code}: ${failing.message}`],
    ];
  }
  const { p50, p99 } = latencyMs;
  return [
    [
      'arbiter',
      kind,
      state === 'unknown' ? 'not asked yet' : null,
      p50 === null ? null : `replies in ${formatMs(p50)} median`,
      p99 === null ? null : `${formatMs(p99)} p99`,
      lastReplyMs === null ? null : `last ${formatMs(lastReplyMs)} ago`,
    ],
  ];
}

function troubleRows({ trouble }: NodeStatus['vm']): Row[] {
  if (trouble === null) return [];
  const what = trouble.kind === 'hung' ? 'HANGS' : trouble.kind === 'off' ? 'OFF' : 'STANDS';
  return [['', `${what} for ${formatMs(trouble.forMs)}: ${trouble.message}`]];
}

/** An uplink that is away is named in capitals: a VM that nobody reaches is of no use, and a secondary's would be of none. */
function uplinkRow({ own, peer }: NodeStatus['uplink']): Row {
  return ['uplink', uplinkText(own), `the peer's ${peer === null ? 'is not known' : uplinkText(peer)}`];
}

function uplinkText({ cause, forMs }: UplinkStatus): string {
  if (cause === null) return `up for ${formatMs(forMs)}`;
  return `AWAY for ${formatMs(forMs)} (${cause})`;
}

function checkpointRows(status: NodeStatus, nowMs: Instant): Row[] {
  const { count, pauseMs, last } = status.checkpoints;
  const rows: Row[] = [
    [
      'checkpoints',
      formatCount(count),
      pauseMs.p50 === null ? null : `pause ${formatMs(pauseMs.p50)} median`,
      pauseMs.p99 === null ? null : `${formatMs(pauseMs.p99)} p99`,
    ],
    ...countLines(status.checkpoints.byReason).map((line): Row => ['', line]),
  ];
  if (last !== null) {
    const when = `${ago(last.atMs, nowMs)} for ${last.reason}`;
    rows.push(['  last', when, `pause ${formatMs(last.pauseMs)}`, formatBytes(last.stateBytes)]);
  }
  const { firstCopy } = status.checkpoints;
  if (firstCopy !== null) {
    const when = `${ago(firstCopy.atMs, nowMs)} in ${formatMs(firstCopy.tookMs)}`;
    const pause = `pause ${formatMs(firstCopy.longestPauseMs)}`;
    rows.push(['  first copy', when, pause, `clients stood ${formatMs(firstCopy.standMs)}`]);
  }
  const { pacing } = status.checkpoints;
  return pacing === null ? rows : [...rows, ...pacingRows(pacing)];
}

function pacingRows(pacing: PacingStatus): Row[] {
  const { figures } = pacing;
  const mode: Row =
    pacing.mode === 'periodic'
      ? [
          '  pacing',
          `PERIODIC for ${formatMs(pacing.forMs)}`,
          `VMs run ${formatMs(pacing.periodMs)} in between`,
        ]
      : ['  pacing', 'at once', pacing.why === null ? null : AT_ONCE_TEXTS[pacing.why]];
  if (figures === null) return [mode];
  const { timeShare, commitShare } = figures;
  const released = commitShare === null ? null : `released ${formatPercent(commitShare)} of the frames`;
  return [mode, ['', `took ${formatPercent(timeShare)} of the time`, released]];
}

function secondaryRows({ secondary, traffic }: NodeStatus): Row[] {
  if (secondary === null) return [];
  const { match, made, commit, repeat, harmless } = traffic.releasedBy;
  const { matchedSinceCheckpoint, unmatchedEpochs, unmatched, unmatchedFrames, lagMs, linkWaitingBytes } =
    secondary;
  const rows: Row[] = [
    [
      'matched',
      `${formatCount(match + made)} frames`,
      `by checkpoint ${formatCount(commit)}`,
      `needed no match ${formatCount(repeat + harmless)}`,
    ],
    ['', `${formatCount(matchedSinceCheckpoint)} since the last checkpoint`],
  ];
  const { p50, p99 } = lagMs;
  if (unmatched)
    rows.push([
      'secondary',
      `NOTHING MATCHED in ${formatCount(unmatchedEpochs)} epochs`,
      unmatchedFrames === 0 ? 'it sent NOTHING' : `it sent ${formatCount(unmatchedFrames)} frames`,
    ]);
  else if (p50 !== null && p99 !== null)
    rows.push([
      'secondary',
      `${formatLag(p50)} median`,
      `${formatLag(p99)} p99`,
      linkWaitingBytes === 0 ? null : `${formatBytes(linkWaitingBytes)} wait for the link`,
    ]);
  const { clockLeadMs, catchUp, portions } = secondary;
  return [...rows, clocksRow(clockLeadMs), catchUpRow(catchUp), portionsRow(portions)];
}

function catchUpRow({ caughtUpFrames, boundFrames }: CatchUpStatus): Row {
  const waited = formatCount(caughtUpFrames + boundFrames);
  return ['catch-up', `${waited} input frames waited`, `${formatCount(boundFrames)} of them up to the bound`];
}

function clocksRow({ epoch, smoothed }: Lead): Row {
  if (smoothed === null)
    return ['clocks', 'not known: no TCP timestamps on a connection older than the epoch'];
  return [
    'clocks',
    `secondary's ${formatLead(smoothed)}`,
    epoch === null ? null : `in this epoch ${formatLead(epoch)}`,
  ];
}

function portionsRow(portions: PortionsStatus): Row {
  const { why, blindness, boundMs, endedBySleep, endedByAnswers, endedByBound } = portions;
  if (why === 'blind') return ['portions', `off: ${blindness}`];
  if (why !== null) return ['portions', `off: ${PORTIONS_OFF_TEXTS[why]}`];
  const ended = `${formatCount(endedBySleep)} ended in sleep`;
  const others = [`${formatCount(endedByAnswers)} by answers`, `${formatCount(endedByBound)} by the bound`];
  return ['portions', ended, ...others, `now ${formatMs(boundMs)}`];
}

function outputRows({ held, flows, divergences }: NodeStatus, nowMs: Instant): Row[] {
  const { count, last } = divergences;
  const rows: Row[] = [
    [
      'held',
      `${formatCount(held.frames)} frames`,
      formatBytes(held.bytes),
      held.frames === 0 ? null : `oldest ${formatMs(held.oldestMs)}`,
    ],
    [
      'flows',
      `${formatCount(flows.tcp)} tcp`,
      `${formatCount(flows.other)} other`,
      `${formatCount(flows.translated)} translated`,
    ],
    ['divergences', formatCount(count), last === null ? null : `last ${ago(last.atMs, nowMs)}`],
  ];
  if (last === null) return rows;
  rows.push(...countLines(divergences.byClass).map((line): Row => ['', line]));
  rows.push(['', last.flow], ['', last.reason, `${last.class}: ${last.why}`]);
  return rows;
}

function trafficRows({ traffic, vm }: NodeStatus): Row[] {
  return [
    [
      'in',
      `${formatCount(traffic.inputFrames)} frames`,
      formatBytes(traffic.inputBytes),
      vm.inputWaitingBytes === 0 ? null : `${formatBytes(vm.inputWaitingBytes)} not taken by the VM`,
    ],
    ['out', `${formatCount(traffic.releasedFrames)} frames`, formatBytes(traffic.releasedBytes)],
    [
      'from peer',
      `${formatCount(traffic.peerFrames)} frames`,
      traffic.unifiedFrames === 0 ? null : `${formatCount(traffic.unifiedFrames)} unified`,
    ],
    [
      'trouble',
      `${formatCount(traffic.malformedFrames)} malformed`,
      `${formatCount(traffic.droppedFrames)} dropped`,
    ],
  ];
}

function ruleRows({ rules, role }: NodeStatus): Row[] {
  return rules.map(({ match, exempt, intervalMsMin, unify }, place): Row => {
    const label = place === 0 ? 'rules' : '';
    if (unify !== null) return [label, `${match} may differ in ${unify}`];
    if (exempt === null)
      return [label, `${match} has checkpoints at least ${formatMs(intervalMsMin ?? 0)} apart`];
    const counts =
      role === 'primary' ? [`${formatCount(exempt.frames)} frames`, formatBytes(exempt.bytes)] : [];
    return [label, `${match} UNPROTECTED`, ...counts];
  });
}

function fenceRows({ fence }: NodeStatus): Row[] {
  if (fence === null || fence.waitingMs === null) return [];
  const { waitingMs, failed, message } = fence;
  const rows: Row[] = [
    [
      'fence',
      `NOT DONE after ${formatMs(waitingMs)}`,
      'the promotion waits for it',
      failed > 0 ? `${formatCount(failed)} failed` : null,
    ],
  ];
  if (message !== null) rows.push(['', message]);
  return rows;
}

function failoverRows({ failover }: NodeStatus, nowMs: Instant): Row[] {
  if (failover === null) return [];
  const { atMs, detectMs, promoteMs, generation, cause } = failover;
  const noticed = `${ago(atMs, nowMs)}, noticed in ${formatMs(detectMs)}`;
  return [
    ['failover', noticed, `promoted in ${formatMs(promoteMs)}`],
    ['', `generation ${formatCount(generation)}, cause: ${cause}`],
  ];
}

const PORTIONS_OFF_TEXTS: Record<Exclude<PortionsOff, 'blind'>, string> = {
  alone: 'there is no secondary',
  'not-needed': 'the order of input does not part the VMs',
  'no-gain': 'the VMs diverged as often with them',
  'never-sleeps': 'the guest never sleeps',
};

const AT_ONCE_TEXTS: Record<AtOnceReason, string> = {
  'no-gain': 'periodic mode released hardly more',
  'not-needed': 'periodic mode is not needed any more',
  again: 'to be measured again after ten minutes',
};

const PHASE_TEXTS: Record<NodeStatus['phase'], string> = {
  starting: 'starting',
  alone: 'alone (the VM runs UNPROTECTED)',
  syncing: 'syncing (first full copy under way)',
  protected: 'protected',
  promoting: 'promoting (taking over)',
  fenced: 'fenced (may not speak)',
  stopped: 'stopped',
};

/** Returns "initial 1, interval 30, ..." in as many lines as needed, without what was counted never. */
function countLines(counts: Readonly<Record<string, number>>): string[] {
  const lines: string[] = [];
  for (const [name, count] of Object.entries(counts).toSorted(([, a], [, b]) => b - a)) {
    if (count === 0) continue;
    const item = `${name} ${formatCount(count)}`;
    const last = lines.at(-1);
    if (last !== undefined && last.length + item.length + 2 <= WIDTH - LABEL_WIDTH - 1)
      lines[lines.length - 1] = `${last}, ${item}`;
    else lines.push(item);
  }
  return lines;
}

const ago = (atMs: number, nowMs: Instant): string => `${formatMs(Math.max(0, nowMs - atMs))} ago`;
const cut = (line: string): string => (line.length <= WIDTH ? line : `${line.slice(0, WIDTH - 3)}...`);
