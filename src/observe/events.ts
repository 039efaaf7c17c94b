/**
 * The events of a node and the details of each: what `colo events`, GET /events and the event log show. docs/events.md
 * lists them, and a test compares that list with this one. Names and details are a contract with scripts.
 */
import type { Unmatched } from '../checkpoint/match-watch.ts';
import type { PacingChange } from '../checkpoint/pacing.ts';
import type { CheckpointReport, FirstCopyReport } from '../checkpoint/report.ts';
import type { Promotion } from '../datapath/secondary-path.ts';
import type { DivergenceClass } from '../divergence/explained.ts';
import type { UplinkCause } from '../link/uplink-message.ts';
import type { PairRecord } from '../pair/arbiter.ts';
import type { TroubleKind } from '../pair/vm-trouble-rules.ts';
import type { FailoverReport } from './status.ts';

type Nothing = Record<string, never>;

export type NodeEvents = {
  'node.started': { pair: string; pid: number };
  'node.stopped': { code: number; message?: string };
  'node.stop-failed': { message: string };

  /** `event` is the input of the state machine that caused the transition. */
  'pair.state': { from: string; to: string; event: string; generation: number; cause?: string };
  /** The record names both nodes now: `secondary` is set on the primary, `primary` on the secondary. */
  'pair.protected': { generation: number; primary?: string; secondary?: string | null };
  'pair.alone': { cause: string; releasedFrames: number; generation: number };
  'pair.fenced': { why: string };
  'failover.done': FailoverReport & Promotion;
  /** This node has won, and cuts its peer off before it goes on. */
  'fence.started': { peer: string };
  'fence.done': { peer: string; tookMs: number };
  'fence.failed': { peer: string; tookMs: number; message: string };

  /** The record that is stored after a claim of this node, won or lost. */
  'arbiter.won': { revision: number } & Partial<PairRecord>;
  'arbiter.lost': { revision: number } & Partial<PairRecord>;
  'arbiter.failed': { code: string; message: string };
  'arbiter.replies': { forMs: number };

  'link.up': { peer: string; peerGeneration?: number };
  'link.lost': { cause: string; silentMs?: number };
  'link.dial-failed': { message: string; code: string | null };
  /** A peer that may not connect to this node: its certificate, or what it sent in place of one. */
  'link.refused': { code: string; message: string; from: string };
  /** The certificate of this node, or of its CA, expires soon, or has expired. */
  'tls.expires': { of: 'node' | 'ca'; notAfter: string; daysLeft: number };
  /** The node has read its certificate, key and CA again: connections that open from now on use them. */
  'tls.changed': { notAfter: string };
  'sync.started': { peer: string | null };
  'sync.done': { peer: string | null } & FirstCopyReport;
  'sync.failed': { message: string };

  /** The secondary's images are equal to this node's, and get every write from now on. */
  'disk.copied': { tookMs: number };
  /** A promoted VM's images are whole: QEMU has written into them what the VM wrote as a secondary. */
  'disk.committed': { generation: number; tookMs: number };
  'disk.commit-failed': { message: string };
  /** The file beside an image could not say what the image is. */
  'disk.state-failed': { disk: string; state: string; message: string };

  /** Rules of the configuration came into force on a primary. `unprotected`: the flows that they exempt. */
  'rules.changed': { rules: string[]; unprotected: string[] };
  /** The node's file was read again and has an error: the rules before stay in force. */
  'rules.refused': { code: string; message: string };

  'checkpoint.committed': CheckpointReport;
  /** From now on a difference takes its checkpoint at once, or only a period after the last one. */
  'checkpoint.pacing': PacingChange;
  'compare.diverged': { flow: string; service: string; reason: string; class: DivergenceClass; why: string };
  /** The secondary is of no use now: checkpoints release all output, and nothing matches. */
  'compare.unmatched': Unmatched;
  'compare.unmatched-over': { cause: 'match' | 'pair-ended'; forMs: number };
  'translate.signed': { flow: string };

  'vm.started': { pid: number | undefined; qemu: string | undefined };
  /** The VM's processor is emulated (TCG). `staleCode`: this QEMU's secondaries may execute code that is not in memory. */
  'vm.emulated': { qemu: string; staleCode: boolean; message: string };
  'vm.lost': { message: string };
  'vm.silent': Nothing;
  /** QEMU lives, and its VM is of no use, or stands because somebody wanted it. `state`: QEMU's run state, null if it hangs. */
  'vm.trouble': { kind: TroubleKind; state: string | null; message: string };
  'vm.trouble-over': { kind: TroubleKind; forMs: number };
  /** The guest had switched itself off, and was started again as the configuration wants. */
  'vm.restarted': Nothing;
  /** The guest has rebooted; its VM runs on. */
  'vm.rebooted': Nothing;
  'vm.failover-failed': { message: string };

  'uplink.up': Nothing;
  'uplink.down': { message: string };
  'uplink.lost': { cause: string };
  /** Clients do not reach this node, whether its socket is connected or not; and they do again. */
  'uplink.away': { cause: UplinkCause };
  'uplink.back': { cause: UplinkCause; awayMs: number };
  /** A primary offers its secondary to take over, since its own uplink is away; or why it does not. */
  'uplink.yields': { awayMs: number };
  'uplink.stays': { why: 'peer-away' | 'hold-down' };
  'peer.uplink': { up: boolean; cause?: UplinkCause };

  'capture.started': { path: string; bytesMax: number };
  'capture.ended': { path: string; frames: number; lost: number; reason: 'requested' | 'limit' | 'error' };
} & LogEvents;

/** The events that the event log adds about itself. */
export type LogEvents = {
  'events.unwritten': { message: string };
  'events.resumed': { unwritten: number };
  'events.listener-failed': { message: string };
  /** printed, not logged: cli/event-printer.ts */
  'events.unprinted': { events: number };
};

export type EventDetails = Readonly<Record<string, unknown>>;

/** Takes a node's events: the event log, or its substitute in a test. */
export interface EventSink {
  emit<Type extends keyof NodeEvents>(type: Type, details: Readonly<NodeEvents[Type]>): unknown;
}
