/**
 * The node's status as Prometheus metrics: base units, `_total` for counters. Nothing is counted here; each scrape
 * copies the counters that the data path keeps anyway. The help texts are the only list of metrics there is.
 */
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { CheckpointReport } from '../checkpoint/report.ts';
import type { NodeStatus, Phase, Role } from './status.ts';

export type MetricsOptions = {
  status: () => NodeStatus;
  /** Events that never got into the event log. */
  eventsUnwritten?: () => number;
};

export type Metrics = {
  readonly registry: Registry;
  readonly contentType: string;
  /** The text of one scrape, from one look at the status. */
  render(): Promise<string>;
  /** To be called once per committed checkpoint. */
  observeCheckpoint(report: CheckpointReport): void;
  /** What the docs list. */
  describe(): Promise<MetricDescription[]>;
};

export type MetricDescription = { name: string; type: string; help: string; labels: string[] };

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
/** From an idle guest over unix sockets (a few ms) to one so busy that clients notice. */
const PAUSE_BUCKETS_S = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024];

export function createMetrics({ status, eventsUnwritten }: MetricsOptions): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const labels = new Map<string, string[]>();
  /** The one look at the status that all metrics of a scrape share. */
  let snapshot: NodeStatus | null = null;
  const look = (): NodeStatus => snapshot ?? status();

  type Labels = Record<string, string>;
  type Fill = (set: (value: number | null, labels?: Labels) => void, status: NodeStatus) => void;

  const gauge = (name: string, help: string, fill: Fill, labelNames: string[] = []): void => {
    labels.set(name, labelNames);
    new Gauge({
      name,
      help,
      labelNames,
      registers,
      collect() {
        this.reset();
        // A value that is not known is absent, not zero; reset() alone leaves a zero for a metric without labels.
        if (labelNames.length === 0) this.remove();
        fill((value, of = {}) => {
          if (value !== null) this.set(of, value);
        }, look());
      },
    });
  };
  const counter = (name: string, help: string, fill: Fill, labelNames: string[] = []): void => {
    labels.set(name, labelNames);
    new Counter({
      name,
      help,
      labelNames,
      registers,
      collect() {
        this.reset();
        fill((value, of = {}) => {
          if (value !== null) this.inc(of, value);
        }, look());
      },
    });
  };

  gauge(
    'colo_node_info',
    'Who this is; always 1.',
    (set, s) => set(1, { node: s.node, pair: s.pair, qemu: s.vm.qemu ?? '', accel: s.vm.accel ?? '' }),
    ['node', 'pair', 'qemu', 'accel'],
  );
  gauge(
    'colo_role',
    '1 for the role that the node has, 0 for the other.',
    (set, s) => {
      for (const role of ROLES) set(s.role === role ? 1 : 0, { role });
    },
    ['role'],
  );
  gauge(
    'colo_phase',
    '1 for the phase that the node is in, 0 for the others.',
    (set, s) => {
      for (const phase of PHASES) set(s.phase === phase ? 1 : 0, { phase });
    },
    ['phase'],
  );
  gauge('colo_generation', "The pair's generation; it grows with each change of membership.", (set, s) =>
    set(s.generation),
  );
  gauge('colo_epoch', 'The current epoch; it grows with each checkpoint.', (set, s) => set(s.epoch));
  gauge('colo_peer_connected', '1 while the link to the peer stands.', (set, s) =>
    set(s.peer.connected ? 1 : 0),
  );
  gauge('colo_peer_silence_seconds', 'Time since the last sign of life of the peer.', (set, s) =>
    set(seconds(s.peer.lastHeardMs)),
  );
  gauge('colo_vm_running', '1 while the VM of this node runs.', (set, s) => set(s.vm.running ? 1 : 0));

  counter(
    'colo_checkpoints_total',
    'Committed checkpoints, by what asked for them.',
    (set, s) => {
      for (const [reason, count] of Object.entries(s.checkpoints.byReason)) set(count, { reason });
    },
    ['reason'],
  );
  const pause = new Histogram({
    name: 'colo_checkpoint_pause_seconds',
    help: 'How long the primary VM stood still per checkpoint.',
    buckets: PAUSE_BUCKETS_S,
    registers,
  });
  const duration = new Histogram({
    name: 'colo_checkpoint_duration_seconds',
    help: 'From the decision to take a checkpoint until both VMs got input again.',
    buckets: PAUSE_BUCKETS_S,
    registers,
  });
  const stateBytes = new Counter({
    name: 'colo_checkpoint_state_bytes_total',
    help: 'VM state that checkpoints sent over the link.',
    registers,
  });

  gauge('colo_held_frames', 'Frames of the primary VM that wait for a verdict.', (set, s) =>
    set(s.held.frames),
  );
  gauge('colo_held_bytes', 'Bytes of the frames that wait for a verdict.', (set, s) => set(s.held.bytes));
  gauge('colo_held_oldest_seconds', 'How long the oldest held frame has waited.', (set, s) =>
    set(s.held.oldestMs / 1000),
  );
  gauge(
    'colo_flows',
    'Flows that the node knows, by protocol.',
    (set, s) => {
      set(s.flows.tcp, { protocol: 'tcp' });
      set(s.flows.other, { protocol: 'other' });
    },
    ['protocol'],
  );
  gauge(
    'colo_flows_translated',
    "Flows whose values differ between the VM and the client's view.",
    (set, s) => set(s.flows.translated),
  );
  counter('colo_divergences_total', 'Times that the two VMs gave different output.', (set, s) =>
    set(s.divergences.count),
  );

  counter('colo_input_frames_total', 'Frames that came in from the uplink.', (set, s) =>
    set(s.traffic.inputFrames),
  );
  counter('colo_input_bytes_total', 'Bytes that came in from the uplink.', (set, s) =>
    set(s.traffic.inputBytes),
  );
  counter('colo_released_frames_total', 'Frames let out to the uplink.', (set, s) =>
    set(s.traffic.releasedFrames),
  );
  counter('colo_released_bytes_total', 'Bytes let out to the uplink.', (set, s) =>
    set(s.traffic.releasedBytes),
  );
  counter('colo_peer_frames_total', 'Frames that came over the link.', (set, s) => set(s.traffic.peerFrames));
  counter('colo_malformed_frames_total', 'Frames that break the rules of their own protocol.', (set, s) =>
    set(s.traffic.malformedFrames),
  );
  counter(
    'colo_dropped_frames_total',
    'Frames dropped: the node may not speak, has no use for them yet, or the socket for them is not connected.',
    (set, s) => set(s.traffic.droppedFrames),
  );

  gauge(
    'colo_failover_detect_seconds',
    'Last failover: from the last sign of life of the peer to the decision.',
    (set, s) => set(seconds(s.failover?.detectMs)),
  );
  gauge(
    'colo_failover_promote_seconds',
    'Last failover: from the decision until the VM spoke again.',
    (set, s) => set(seconds(s.failover?.promoteMs)),
  );
  if (eventsUnwritten !== undefined) {
    counter('colo_events_unwritten_total', 'Events that could not be written to the event log.', (set) =>
      set(eventsUnwritten()),
    );
  }

  return {
    registry,
    contentType: registry.contentType,
    async render() {
      // Every collect() runs before the first await of metrics(), so they all see this one.
      snapshot = status();
      try {
        return await registry.metrics();
      } finally {
        snapshot = null;
      }
    },
    observeCheckpoint(report) {
      pause.observe(report.pauseMs / 1000);
      duration.observe(report.totalMs / 1000);
      stateBytes.inc(report.stateBytes);
    },
    async describe() {
      return (await registry.getMetricsAsJSON()).map(({ name, help, type }) => ({
        name,
        type: String(type),
        help,
        labels: labels.get(name) ?? [],
      }));
    },
  };
}

const seconds = (ms: number | null | undefined): number | null =>
  ms === null || ms === undefined ? null : ms / 1000;
