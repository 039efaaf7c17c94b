/** A node's status as `colo status`, the metrics and the HTTP API show it. */
import { isExempt } from '../compare/operator-rules.ts';
import type { NodeConfig } from '../config/node-config.ts';
import { describeMatch } from '../flow/match.ts';
import type { NodeStatus } from '../observe/status.ts';
import { generationOf, type Pair } from '../pair/machine.ts';
import type { Instant } from '../units.ts';
import type { AsPrimary } from './as-primary.ts';
import type { AsSecondary } from './as-secondary.ts';
import type { GuardedVm } from './guarded-vm.ts';
import type { NodeParts } from './parts.ts';
import { phaseOf, roleOf } from './status-view.ts';

const NOTHING_RELEASED = {
  match: 0,
  made: 0,
  repeat: 0,
  harmless: 0,
  exempt: 0,
  commit: 0,
  alone: 0,
  promotion: 0,
} as const;

export type NodeRole = AsPrimary | AsSecondary;

export function statusOf(parts: NodeParts, pair: Pair, role: NodeRole | null, nowMs: Instant): NodeStatus {
  const { config, observed } = parts;
  // A role that is over has neither VM nor path; its link may still be open.
  const current = role?.isOver === true ? null : role;
  const primary = current?.kind === 'primary' ? current.path : null;
  const secondary = current?.kind === 'secondary' ? current.path : null;
  const heardMs = heardAt(role);
  const vm = current?.vm.vm ?? null;
  const comparator = primary?.comparator ?? null;
  return {
    node: config.node,
    pair: config.pair,
    role: roleOf(pair),
    phase: phaseOf(pair),
    generation: generationOf(pair),
    epoch: primary?.epoch ?? secondary?.epoch ?? 0,
    voice: role?.kind === 'primary' ? role.path.voice.status(nowMs) : { state: 'silent' },
    peer: {
      name: observed.peerName,
      connected: heardMs !== null,
      lastHeardMs: heardMs === null ? null : nowMs - heardMs,
      summary: parts.peerView.status(nowMs),
    },
    link: { tls: parts.tls?.status() ?? null },
    arbiter: observed.arbiter.summary(config.arbiter.kind, nowMs),
    uplink: parts.uplinkWatch.status(),
    vm: {
      running: vm !== null,
      pid: vm?.pid ?? null,
      qemu: vm?.capabilities.version.text ?? null,
      accel: vm?.capabilities.accel ?? null,
      pausedMs: current?.kind === 'primary' ? current.pausedMs : 0,
      inputWaitingBytes: parts.vmPort.waitingBytes,
      silentMs: vm?.watch.silenceMs ?? 0,
      trouble: troubleOf(vm, nowMs),
    },
    disks: disksOf(config, current, nowMs),
    checkpoints: {
      ...observed.history.summary(),
      firstCopy: observed.firstCopy,
      pacing: current?.kind === 'primary' ? current.pacingStatus(nowMs) : null,
    },
    secondary: secondaryOf(current),
    held: {
      frames: comparator?.primary.frames ?? 0,
      bytes: comparator?.primary.bytes ?? 0,
      oldestMs: comparator?.oldestWaitMs(nowMs) ?? 0,
    },
    flows: {
      tcp: comparator?.tcpFlows ?? 0,
      other: comparator === null ? 0 : comparator.flowCount - comparator.tcpFlows,
      translated: primary?.offsets.size ?? secondary?.translator.size ?? 0,
    },
    divergences: observed.divergences,
    spent: observed.spending.summary(nowMs),
    traffic: {
      inputFrames: primary?.counters.inputFrames ?? secondary?.counters.inputFrames ?? 0,
      inputBytes: primary?.counters.inputBytes ?? 0,
      releasedFrames: primary?.counters.releasedFrames ?? 0,
      releasedBytes: primary?.counters.releasedBytes ?? 0,
      releasedBy: primary?.releasedBy ?? NOTHING_RELEASED,
      peerFrames: primary?.counters.peerFrames ?? 0,
      unifiedFrames: comparator?.unified ?? 0,
      malformedFrames: comparator?.counters.malformed ?? 0,
      droppedFrames:
        (primary?.counters.droppedFrames ?? 0) +
        (secondary?.counters.droppedFrames ?? 0) +
        parts.uplink.droppedFrames +
        parts.vmPort.droppedFrames,
    },
    failover: observed.failover,
    fence: parts.fence?.status(nowMs) ?? null,
    rules: parts.rules.list.map((rule) => {
      const match = describeMatch(rule.match);
      const exempted = comparator?.operatorRules?.exemptedBy(match) ?? { frames: 0, bytes: 0 };
      const { intervalMsMin = null, unify = null } = rule;
      return { match, exempt: isExempt(rule) ? exempted : null, intervalMsMin, unify };
    }),
  };
}

function disksOf({ vm }: NodeConfig, role: NodeRole | null, nowMs: Instant): NodeStatus['disks'] {
  if (vm.disks.length === 0) return null;
  return {
    count: vm.disks.length,
    copy: role?.vm.vm?.disks?.progress(nowMs) ?? null,
    committing: role?.kind === 'primary' && role.images.isCommitting,
  };
}

function troubleOf(vm: GuardedVm | null, nowMs: Instant): NodeStatus['vm']['trouble'] {
  const trouble = vm?.watch.trouble ?? null;
  if (trouble === null) return null;
  const { kind, state, message, sinceMs } = trouble;
  return { kind, state, message, forMs: nowMs - sinceMs };
}

/** Returns how the secondary's VM follows the VM of a primary. */
function secondaryOf(role: NodeRole | null): NodeStatus['secondary'] {
  if (role?.kind !== 'primary' || role.matches === null) return null;
  const { matches, path } = role;
  return {
    matchedSinceCheckpoint: matches.matchedSince(path.comparator.counters.matched),
    unmatchedEpochs: matches.epochs,
    unmatched: matches.isUnmatched,
    unmatchedFrames: matches.secondaryFramesSince(path.counters.peerFrames),
    lagMs: path.lag.quantiles(),
    clockLeadMs: path.clockLead.lead(),
    linkWaitingBytes: path.unsentToSecondary,
    catchUp: path.catchUp.status,
    portions: path.portions.status,
  };
}

/** Returns when the peer's latest heartbeat, or reply to one, arrived; null without a link. */
function heardAt(role: NodeRole | null): number | null {
  if (role === null) return null;
  return (role.kind === 'primary' ? role.session?.heardMs : role.session?.promise.lastHeardMs) ?? null;
}
