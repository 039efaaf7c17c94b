/** What `colo status` shows a person: one line per subject, no wider than 80 columns. */
import type { NodeStatus } from '../observe/status.ts';
import type { Instant } from '../units.ts';
import { formatBytes, formatCount, formatMs, safe } from './output.ts';

const WIDTH = 80;
const LABEL_WIDTH = 12;

export function statusText(status: NodeStatus, nowMs: Instant): string {
  const { peer, vm, checkpoints, held, flows, divergences, traffic, failover } = status;
  const rows: [string, string][] = [];
  const row = (label: string, ...parts: (string | null)[]): void => {
    rows.push([label, parts.filter((part) => part !== null).join(', ')]);
  };

  row('node', `${status.node} of pair ${status.pair}`);
  row('state', `${status.role ?? 'no role yet'}, ${PHASE_TEXTS[status.phase]}`);
  row('membership', `generation ${formatCount(status.generation)}`, `epoch ${formatCount(status.epoch)}`);
  row(
    'peer',
    peer.name ?? 'unknown',
    peer.connected ? 'connected' : 'NOT CONNECTED',
    peer.lastHeardMs === null ? 'never heard' : `heard ${formatMs(peer.lastHeardMs)} ago`,
  );
  row(
    'vm',
    vm.running ? 'running' : 'not running',
    vm.pid === null ? null : `process ${vm.pid}`,
    vm.qemu === null ? null : `QEMU ${vm.qemu}${vm.accel === null ? '' : ` (${vm.accel})`}`,
  );
  row(
    'checkpoints',
    formatCount(checkpoints.count),
    checkpoints.pauseMs.p50 === null ? null : `pause ${formatMs(checkpoints.pauseMs.p50)} median`,
    checkpoints.pauseMs.p99 === null ? null : `${formatMs(checkpoints.pauseMs.p99)} p99`,
  );
  for (const line of reasonLines(status)) row('', line);
  if (checkpoints.last !== null) {
    const { last } = checkpoints;
    row(
      '  last',
      `${ago(last.atMs, nowMs)} for ${last.reason}`,
      `pause ${formatMs(last.pauseMs)}`,
      formatBytes(last.stateBytes),
    );
  }
  row(
    'held',
    `${formatCount(held.frames)} frames`,
    formatBytes(held.bytes),
    held.frames === 0 ? null : `oldest ${formatMs(held.oldestMs)}`,
  );
  row(
    'flows',
    `${formatCount(flows.tcp)} tcp`,
    `${formatCount(flows.other)} other`,
    `${formatCount(flows.translated)} translated`,
  );
  row(
    'divergences',
    formatCount(divergences.count),
    divergences.last === null ? null : `last ${ago(divergences.last.atMs, nowMs)}`,
  );
  if (divergences.last !== null) {
    row('', divergences.last.flow);
    row('', divergences.last.reason);
  }
  row('in', `${formatCount(traffic.inputFrames)} frames`, formatBytes(traffic.inputBytes));
  row('out', `${formatCount(traffic.releasedFrames)} frames`, formatBytes(traffic.releasedBytes));
  row('from peer', `${formatCount(traffic.peerFrames)} frames`);
  row(
    'trouble',
    `${formatCount(traffic.malformedFrames)} malformed`,
    `${formatCount(traffic.droppedFrames)} dropped`,
  );
  if (failover !== null) {
    row(
      'failover',
      `${ago(failover.atMs, nowMs)}, noticed in ${formatMs(failover.detectMs)}`,
      `promoted in ${formatMs(failover.promoteMs)}`,
    );
    row('', `generation ${formatCount(failover.generation)}, cause: ${failover.cause}`);
  }
  return rows.map(([label, text]) => cut(`${label.padEnd(LABEL_WIDTH)} ${safe(text)}`.trimEnd())).join('\n');
}

const PHASE_TEXTS: Record<NodeStatus['phase'], string> = {
  starting: 'starting',
  alone: 'alone (the VM runs UNPROTECTED)',
  syncing: 'syncing (first full copy under way)',
  protected: 'protected',
  promoting: 'promoting (taking over)',
  fenced: 'fenced (may not speak)',
  stopped: 'stopped',
};

/** "initial 1, interval 30, ..." in as many lines as it takes. */
function reasonLines({ checkpoints }: NodeStatus): string[] {
  const lines: string[] = [];
  const counts = Object.entries(checkpoints.byReason).toSorted(([, a], [, b]) => b - a);
  for (const [reason, count] of counts) {
    const item = `${reason} ${formatCount(count)}`;
    const last = lines.at(-1);
    if (last !== undefined && last.length + item.length + 2 <= WIDTH - LABEL_WIDTH - 1)
      lines[lines.length - 1] = `${last}, ${item}`;
    else lines.push(item);
  }
  return lines;
}

const ago = (atMs: number, nowMs: Instant): string => `${formatMs(Math.max(0, nowMs - atMs))} ago`;
const cut = (line: string): string => (line.length <= WIDTH ? line : `${line.slice(0, WIDTH - 3)}...`);
