/**
 * A node's status as Prometheus metrics: base units, `_total` for counters. Nothing is counted here: each scrape copies
 * the counters that the data path keeps. The `help` texts are the only description of the metrics.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { CheckpointReport } from '../checkpoint/report.ts';
import type { TroubleKind } from '../pair/vm-trouble-rules.ts';
import type { NodeStatus, Phase, Role, UplinkStatus } from './status.ts';

export type MetricsOptions = {
  status: () => NodeStatus;
  /** Events that are not in the event log. */
  eventsUnwritten?: () => number;
};

export type Metrics = {
  readonly registry: Registry;
  readonly contentType: string;
  /** Returns the text of one scrape, made from one status. */
  render(): Promise<string>;
  /** To be called once per committed checkpoint. */
  observeCheckpoint(report: CheckpointReport): void;
  /** Returns what docs/metrics.md lists. */
  describe(): Promise<MetricDescription[]>;
};

export type MetricDescription = { name: string; type: string; help: string; labels: string[] };

type Labels = Record<string, string>;
/** A value that is not known (null) is absent from the scrape: it is not zero. */
type Sample = readonly [value: number | null, labels: Labels];
type Series = {
  readonly type: 'gauge' | 'counter';
  readonly name: string;
  readonly help: string;
  readonly labels: readonly string[];
  readonly samples: (status: NodeStatus) => readonly Sample[];
};

const ROLES: readonly Role[] = ['primary', 'secondary'];
const PHASES: readonly Phase[] = [
  'starting',
  'alone',
  'syncing',
  'protected',
  'promoting',
  'fenced',
  'stopped',
];
const TROUBLES: readonly TroubleKind[] = ['hung', 'failing', 'dead', 'stopped', 'asleep', 'off'];
/** From an idle guest over unix sockets (some ms) to a guest so busy that clients notice. */
const PAUSE_BUCKETS_S = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024];

const NODE_SERIES: readonly Series[] = [
  {
    type: 'gauge',
    name: 'colo_node_info',
    help: 'Who this is; always 1.',
    labels: ['node', 'pair', 'qemu', 'accel'],
    samples: ({ node, pair, vm }) => [[1, { node, pair, qemu: vm.qemu ?? '', accel: vm.accel ?? '' }]],
  },
  {
    type: 'gauge',
    name: 'colo_role',
    help: '1 for the role that the node has, 0 for the other.',
    labels: ['role'],
    samples: (s) => ROLES.map((role) => [s.role === role ? 1 : 0, { role }]),
  },
  {
    type: 'gauge',
    name: 'colo_phase',
    help: '1 for the phase that the node is in, 0 for the others.',
    labels: ['phase'],
    samples: (s) => PHASES.map((phase) => [s.phase === phase ? 1 : 0, { phase }]),
  },
  gauge(
    'colo_generation',
    "The pair's generation; it grows with each change of membership.",
    (s) => s.generation,
  ),
  gauge('colo_epoch', 'The current epoch; it grows with each checkpoint.', (s) => s.epoch),
  gauge('colo_peer_connected', '1 while the peer is connected.', (s) => (s.peer.connected ? 1 : 0)),
  gauge('colo_peer_silence_seconds', 'Time since the last message of the peer.', (s) =>
    seconds(s.peer.lastHeardMs),
  ),
  {
    type: 'gauge',
    name: 'colo_link_certificate_expires_timestamp_seconds',
    help: "When the certificate of this node expires, or that of its CA; none if the link isn't encrypted.",
    labels: ['of'],
    samples: ({ link: { tls } }) => [
      [seconds(tls?.nodeEndsAtMs), { of: 'node' }],
      [seconds(tls?.caEndsAtMs), { of: 'ca' }],
    ],
  },
  gauge('colo_arbiter_up', '1 while the arbiter replies, 0 while no failover is possible.', ({ arbiter }) =>
    arbiter.state === 'unknown' ? null : Number(arbiter.state === 'replies'),
  ),
  gauge(
    'colo_arbiter_failing_seconds',
    'How long the arbiter has failed; 0 while it replies.',
    ({ arbiter }) => (arbiter.state === 'unknown' ? null : (arbiter.failing?.forMs ?? 0) / 1000),
  ),
  {
    type: 'gauge',
    name: 'colo_arbiter_latency_seconds',
    help: 'How long the arbiter took for its last 64 replies.',
    labels: ['quantile'],
    samples: ({ arbiter }) => [
      [seconds(arbiter.latencyMs.p50), { quantile: '0.5' }],
      [seconds(arbiter.latencyMs.p99), { quantile: '0.99' }],
    ],
  },
  {
    type: 'gauge',
    name: 'colo_uplink_up',
    help: '1 while clients reach the node by its uplink, 0 while that is away; of this node and of its peer.',
    labels: ['of'],
    samples: ({ uplink: { own, peer } }) => [
      [Number(own.up), { of: 'node' }],
      [peer === null ? null : Number(peer.up), { of: 'peer' }],
    ],
  },
  {
    type: 'gauge',
    name: 'colo_uplink_away_seconds',
    help: 'For how long the uplink has been away; 0 while it is up.',
    labels: ['of'],
    samples: ({ uplink: { own, peer } }) => [
      [awaySeconds(own), { of: 'node' }],
      [peer === null ? null : awaySeconds(peer), { of: 'peer' }],
    ],
  },
  gauge('colo_vm_running', '1 while the VM of this node runs.', (s) => (s.vm.running ? 1 : 0)),
  gauge(
    'colo_vm_silence_seconds',
    'For how long the QEMU of this node has replied to nothing.',
    (s) => s.vm.silentMs / 1000,
  ),
  {
    type: 'gauge',
    name: 'colo_vm_trouble',
    help: '1 for the trouble that the VM of this node is in, 0 for the others.',
    labels: ['kind'],
    samples: ({ vm }) => TROUBLES.map((kind) => [vm.trouble?.kind === kind ? 1 : 0, { kind }]),
  },
  {
    type: 'counter',
    name: 'colo_checkpoints_total',
    help: 'Committed checkpoints, by reason.',
    labels: ['reason'],
    samples: (s) => Object.entries(s.checkpoints.byReason).map(([reason, count]) => [count, { reason }]),
  },
];

const TRAFFIC_SERIES: readonly Series[] = [
  gauge('colo_held_frames', 'Frames of the primary VM that are held.', (s) => s.held.frames),
  gauge('colo_held_bytes', 'Bytes of the frames that are held.', (s) => s.held.bytes),
  gauge(
    'colo_held_oldest_seconds',
    'How long the oldest held frame has been held.',
    (s) => s.held.oldestMs / 1000,
  ),
  {
    type: 'gauge',
    name: 'colo_flows',
    help: 'Flows that the node knows, by protocol.',
    labels: ['protocol'],
    samples: ({ flows }) => [
      [flows.tcp, { protocol: 'tcp' }],
      [flows.other, { protocol: 'other' }],
    ],
  },
  gauge(
    'colo_flows_translated',
    "Flows whose values differ between the VM and the client's view.",
    (s) => s.flows.translated,
  ),
  counter(
    'colo_divergences_total',
    'Times that the output of the two VMs differed.',
    (s) => s.divergences.count,
  ),
  {
    type: 'counter',
    name: 'colo_divergences_by_class_total',
    help: 'The same divergences, by what the VMs differed in.',
    labels: ['class'],
    samples: (s) => Object.entries(s.divergences.byClass).map(([one, count]) => [count, { class: one }]),
  },
  counter('colo_input_frames_total', 'Frames received from the uplink.', (s) => s.traffic.inputFrames),
  counter('colo_input_bytes_total', 'Bytes received from the uplink.', (s) => s.traffic.inputBytes),
  {
    type: 'counter',
    name: 'colo_released_frames_total',
    help: 'Frames released to the uplink, by why they could leave.',
    labels: ['cause'],
    samples: (s) => Object.entries(s.traffic.releasedBy).map(([cause, count]) => [count, { cause }]),
  },
  counter('colo_released_bytes_total', 'Bytes released to the uplink.', (s) => s.traffic.releasedBytes),
  counter('colo_peer_frames_total', 'Frames received over the link.', (s) => s.traffic.peerFrames),
  counter(
    'colo_unified_frames_total',
    "Frames of the secondary VM in which a rule let the primary's value of a field take the place of its own.",
    (s) => s.traffic.unifiedFrames,
  ),
  counter(
    'colo_malformed_frames_total',
    'Frames that break the rules of their own protocol.',
    (s) => s.traffic.malformedFrames,
  ),
  counter(
    'colo_dropped_frames_total',
    'Frames dropped: the node may not speak, has no use for them yet, or the socket for them is not connected.',
    (s) => s.traffic.droppedFrames,
  ),
];

const RULE_SERIES: readonly Series[] = [
  {
    type: 'counter',
    name: 'colo_exempt_frames_total',
    help: 'Frames that were released UNPROTECTED, because a rule exempts their flow, by rule.',
    labels: ['rule'],
    samples: ({ rules }) => rules.map(({ match, exempt }) => [exempt?.frames ?? null, { rule: match }]),
  },
  {
    type: 'counter',
    name: 'colo_exempt_bytes_total',
    help: 'Bytes of these frames.',
    labels: ['rule'],
    samples: ({ rules }) => rules.map(({ match, exempt }) => [exempt?.bytes ?? null, { rule: match }]),
  },
];

const SECONDARY_SERIES: readonly Series[] = [
  gauge('colo_checkpoint_periodic', '1 while differences take their checkpoints in periodic mode.', (s) =>
    s.checkpoints.pacing === null ? null : Number(s.checkpoints.pacing.mode === 'periodic'),
  ),
  gauge(
    'colo_checkpoint_time_share',
    'Part of the time that checkpoints for differences and waits took, in the last window.',
    (s) => s.checkpoints.pacing?.figures?.timeShare ?? null,
  ),
  gauge(
    'colo_secondary_matched_frames',
    'Frames that matched since the last checkpoint.',
    (s) => s.secondary?.matchedSinceCheckpoint ?? null,
  ),
  gauge(
    'colo_secondary_unmatched_epochs',
    'Epochs in a row of which a checkpoint released output and nothing matched.',
    (s) => s.secondary?.unmatchedEpochs ?? null,
  ),
  gauge(
    'colo_secondary_unmatched',
    '1 while the secondary is of no use: nothing that it sends matches.',
    (s) => (s.secondary === null ? null : Number(s.secondary.unmatched)),
  ),
  {
    type: 'gauge',
    name: 'colo_secondary_lag_seconds',
    help: "By how much the secondary VM's output comes after the primary's; below zero: before.",
    labels: ['quantile'],
    samples: ({ secondary }) => [
      [seconds(secondary?.lagMs.p50), { quantile: '0.5' }],
      [seconds(secondary?.lagMs.p99), { quantile: '0.99' }],
    ],
  },
  gauge(
    'colo_secondary_clock_lead_seconds',
    "By how much the clock of the secondary VM's guest is ahead of the primary's, smoothed over epochs; below zero: behind.",
    (s) => seconds(s.secondary?.clockLeadMs.smoothed),
  ),
  gauge(
    'colo_link_waiting_bytes',
    'Bytes for the secondary that the link has not taken.',
    (s) => s.secondary?.linkWaitingBytes ?? null,
  ),
  {
    type: 'counter',
    name: 'colo_catch_up_frames_total',
    help: 'Input that waited for the secondary VM to catch up in its flow, by what ended that: it has caught up, or the bound.',
    labels: ['cause'],
    samples: ({ secondary }) => [
      [secondary?.catchUp.caughtUpFrames ?? null, { cause: 'caught-up' }],
      [secondary?.catchUp.boundFrames ?? null, { cause: 'bound' }],
    ],
  },
  gauge('colo_portions_on', '1 while both VMs are given their input in portions.', (s) =>
    s.secondary === null ? null : Number(s.secondary.portions.state === 'on'),
  ),
  gauge(
    'colo_portions_bound_seconds',
    'The longest time that input may wait for the end of a portion now.',
    (s) => seconds(s.secondary?.portions.boundMs),
  ),
  {
    type: 'counter',
    name: 'colo_portions_ended_total',
    help: 'Portions that somebody waited for, by what ended them: both guests slept, or had answered and were quiet, or the bound.',
    labels: ['cause'],
    samples: ({ secondary }) => [
      [secondary?.portions.endedBySleep ?? null, { cause: 'sleep' }],
      [secondary?.portions.endedByAnswers ?? null, { cause: 'answers' }],
      [secondary?.portions.endedByBound ?? null, { cause: 'bound' }],
    ],
  },
];

const VM_SERIES: readonly Series[] = [
  counter(
    'colo_vm_paused_seconds_total',
    'How long the VM was stopped, by checkpoints, first copies and operators.',
    (s) => s.vm.pausedMs / 1000,
  ),
  gauge(
    'colo_vm_input_waiting_bytes',
    'Bytes of input that the VM has not taken.',
    (s) => s.vm.inputWaitingBytes,
  ),
  gauge('colo_first_copy_pause_seconds', 'Last first copy: how long the VM was stopped at once.', (s) =>
    seconds(s.checkpoints.firstCopy?.longestPauseMs),
  ),
  gauge(
    'colo_first_copy_stand_seconds',
    'Last first copy: from the stop at its end until both VMs received input again.',
    (s) => seconds(s.checkpoints.firstCopy?.standMs),
  ),
];

const FAILOVER_SERIES: readonly Series[] = [
  gauge(
    'colo_failover_detect_seconds',
    'Last failover: from the last message of the peer to the decision that it is gone.',
    (s) => seconds(s.failover?.detectMs),
  ),
  gauge(
    'colo_failover_promote_seconds',
    'Last failover: from the decision until the promotion was complete.',
    (s) => seconds(s.failover?.promoteMs),
  ),
  gauge('colo_fence_waiting_seconds', 'For how long a promotion has waited for the fence command.', (s) =>
    s.fence === null ? null : (s.fence.waitingMs ?? 0) / 1000,
  ),
  {
    type: 'counter',
    name: 'colo_fence_runs_total',
    help: 'Runs of the fence command that have ended, by result.',
    labels: ['result'],
    samples: ({ fence }) =>
      fence === null
        ? []
        : [
            [fence.done, { result: 'done' }],
            [fence.failed, { result: 'failed' }],
          ],
  },
];

export function createMetrics({ status, eventsUnwritten }: MetricsOptions): Metrics {
  const registry = new Registry();
  const labels = new Map<string, readonly string[]>();
  /** The status that all metrics of a scrape are made from. */
  let snapshot: NodeStatus | null = null;
  const register = (series: readonly Series[]): void => {
    for (const one of series) {
      labels.set(one.name, one.labels);
      registerSeries(registry, one, () => snapshot ?? status());
    }
  };
  // A scrape shows them in this order.
  register(NODE_SERIES);
  const observeCheckpoint = registerCheckpoints(registry);
  register(VM_SERIES);
  register(SECONDARY_SERIES);
  register(TRAFFIC_SERIES);
  register(RULE_SERIES);
  register(FAILOVER_SERIES);
  if (eventsUnwritten !== undefined) {
    const help = 'Events that could not be written to the event log.';
    register([counter('colo_events_unwritten_total', help, () => eventsUnwritten())]);
  }
  return {
    registry,
    contentType: registry.contentType,
    observeCheckpoint,
    async render() {
      // Every collect() runs before the first await of metrics(), so all of them see this status.
      snapshot = status();
      try {
        return await registry.metrics();
      } finally {
        snapshot = null;
      }
    },
    async describe() {
      return (await registry.getMetricsAsJSON()).map(({ name, help, type }) => ({
        name,
        type: String(type),
        help,
        labels: [...(labels.get(name) ?? [])],
      }));
    },
  };
}

function registerSeries(registry: Registry, series: Series, status: () => NodeStatus): void {
  const { name, help, samples } = series;
  const options = { name, help, labelNames: [...series.labels], registers: [registry] };
  if (series.type === 'gauge') {
    new Gauge({
      ...options,
      collect() {
        this.reset();
        // reset() leaves a zero for a metric without labels.
        if (series.labels.length === 0) this.remove();
        for (const [value, labels] of samples(status())) if (value !== null) this.set(labels, value);
      },
    });
    return;
  }
  new Counter({
    ...options,
    collect() {
      this.reset();
      for (const [value, labels] of samples(status())) if (value !== null) this.inc(labels, value);
    },
  });
}

/** Returns the function that is to be called once per committed checkpoint. */
function registerCheckpoints(registry: Registry): (report: CheckpointReport) => void {
  const registers = [registry];
  const pause = new Histogram({
    name: 'colo_checkpoint_pause_seconds',
    help: 'How long a checkpoint stopped the primary VM.',
    buckets: PAUSE_BUCKETS_S,
    registers,
  });
  const duration = new Histogram({
    name: 'colo_checkpoint_duration_seconds',
    help: 'From the decision to take a checkpoint until both VMs received input again.',
    buckets: PAUSE_BUCKETS_S,
    registers,
  });
  const stateBytes = new Counter({
    name: 'colo_checkpoint_state_bytes_total',
    help: 'Bytes of VM state that checkpoints sent over the link.',
    registers,
  });
  return (report) => {
    pause.observe(report.pauseMs / 1000);
    duration.observe(report.totalMs / 1000);
    stateBytes.inc(report.stateBytes);
  };
}

function gauge(name: string, help: string, value: (status: NodeStatus) => number | null): Series {
  return { type: 'gauge', name, help, labels: [], samples: (status) => [[value(status), {}]] };
}

function counter(name: string, help: string, value: (status: NodeStatus) => number | null): Series {
  return { ...gauge(name, help, value), type: 'counter' };
}

function awaySeconds({ up, forMs }: UplinkStatus): number {
  return up ? 0 : forMs / 1000;
}

function seconds(ms: number | null | undefined): number | null {
  return ms === null || ms === undefined ? null : ms / 1000;
}
