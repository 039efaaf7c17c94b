/** The status of a node and the calls to it: the shapes of `colo status`, `colo events` and the HTTP API. */
import type { PacingStatus } from '../checkpoint/pacing.ts';
import type { CheckpointReason, CheckpointReport, FirstCopyReport } from '../checkpoint/report.ts';
import type { Exempted, UnifiedField } from '../compare/operator-rules.ts';
import type { CatchUpStatus } from '../datapath/catch-up.ts';
import type { Lead } from '../datapath/clock-lead.ts';
import type { PortionsStatus } from '../datapath/portions.ts';
import type { ReleasedBy } from '../datapath/released-by.ts';
import type { Lag } from '../datapath/svm-lag.ts';
import type { Divergence, DivergenceClass } from '../divergence/explained.ts';
import type { SummaryBody } from '../link/summary-message.ts';
import type { UplinkCause } from '../link/uplink-message.ts';
import type { TroubleKind } from '../pair/vm-trouble-rules.ts';
import type { VoiceStatus } from '../pair/voice.ts';

export type Role = 'primary' | 'secondary';

/**
 * starting: nothing is decided yet. alone: the VM runs here, without a secondary. syncing: the first copy is under way.
 * protected: both VMs run. promoting: this node becomes the primary. fenced: it has lost the right to speak. stopped: done.
 */
export type Phase = 'starting' | 'alone' | 'syncing' | 'protected' | 'promoting' | 'fenced' | 'stopped';

export type FailoverReport = {
  generation: number;
  cause: string;
  /** from the last message of the peer until its lease was over */
  detectMs: number;
  /** from there until the promotion was complete: arbiter and QEMU */
  promoteMs: number;
  atMs: number;
};

/** Checkpoints of one reason, class and service; null where there is none, or no room for another service. */
export type SpentRow = {
  reason: CheckpointReason;
  class: DivergenceClass | null;
  service: string | null;
  checkpoints: number;
  /** for so long they stopped the VM, and kept input from both VMs */
  pausedMs: number;
  totalMs: number;
};

/** A promotion waits while `waitingMs` is not null; `message` says why the command failed last. */
export type FenceStatus = {
  waitingMs: number | null;
  running: boolean;
  done: number;
  failed: number;
  message: string | null;
};
/** `cause`: null while it is up. forMs: for so long it has been up, or away. */
export type UplinkStatus = { up: boolean; cause: UplinkCause | null; forMs: number };

/** When the certificates of a node's link expire; `caEndsAtMs`: the first of them. */
export type LinkCertificates = { nodeEndsAtMs: number; caEndsAtMs: number };

export type NodeStatus = {
  node: string;
  pair: string;
  role: Role | null;
  phase: Phase;
  generation: number;
  epoch: number;
  /** Whether this node may release output to clients, and for how long it can prove that. */
  voice: VoiceStatus;
  /**
   * lastHeardMs: time since the peer's last message. summary: what it said of itself, `agoMs` ago; null without a link, and of a
   * peer of an earlier build.
   */
  peer: {
    name: string | null;
    connected: boolean;
    lastHeardMs: number | null;
    summary: (SummaryBody & { agoMs: number }) | null;
  };
  /** tls: null if the link is not encrypted */
  link: { tls: LinkCertificates | null };
  /** Whether clients reach this node, and the peer; the peer's is null while it is not known. */
  uplink: { own: UplinkStatus; peer: UplinkStatus | null };
  /**
   * Whether a failover would be possible. state: `unknown` until it was asked first; `fails` from a question without a reply until a change
   * could be made again. lastReplyMs: time since its last reply. latencyMs: of its last 64 replies.
   */
  arbiter: {
    kind: 'directory' | 'etcd';
    state: 'unknown' | 'replies' | 'fails';
    lastReplyMs: number | null;
    latencyMs: { p50: number | null; p99: number | null };
    failing: { forMs: number; code: string; message: string } | null;
  };
  /**
   * pausedMs: how long the VM was stopped since this node runs it as the primary; a clock in the guest that nothing corrects
   * is behind by as much. inputWaitingBytes: written to the VM's socket and not taken yet, with what
   * the kernel needs for each write.
   */
  vm: {
    running: boolean;
    pid: number | null;
    qemu: string | null;
    accel: string | null;
    pausedMs: number;
    inputWaitingBytes: number;
    /** for so long its QEMU has replied to nothing; 0 if it does */
    silentMs: number;
    /** why it is of no use, or stands; null if it runs, or stands for a checkpoint. `state`: QEMU's run state, null if QEMU hangs */
    trouble: { kind: TroubleKind; state: string | null; message: string; forMs: number } | null;
  };
  /** The VM's disks; null if it has none. */
  disks: {
    count: number;
    /** of a first copy that is under way; leftMs: null while it cannot be told */
    copy: { doneBytes: number; totalBytes: number; leftMs: number | null } | null;
    /** QEMU writes into the images what the VM wrote before its promotion */
    committing: boolean;
  } | null;
  checkpoints: {
    count: number;
    byReason: Partial<Record<CheckpointReason, number>>;
    pauseMs: { p50: number | null; p99: number | null };
    last: CheckpointReport | null;
    firstCopy: FirstCopyReport | null;
    /** when a difference takes its checkpoint; null except on a primary with a secondary */
    pacing: PacingStatus | null;
  };
  /** How the secondary's VM follows; null except on a primary with a secondary. */
  secondary: {
    /** frames that the secondary's VM released since the last checkpoint */
    matchedSinceCheckpoint: number;
    /** epochs in a row of which a checkpoint released output and nothing matched */
    unmatchedEpochs: number;
    /** there were so many that the secondary is of no use: see the event compare.unmatched */
    unmatched: boolean;
    /** frames that its VM has sent in those epochs: 0 if its guest is dead */
    unmatchedFrames: number;
    /** by how much its output comes after the primary's; below zero: before */
    lagMs: Lag;
    /** by how much its guest's clock is ahead of the primary's; below zero: behind */
    clockLeadMs: Lead;
    /** bytes for the secondary that the link has not taken */
    linkWaitingBytes: number;
    /** what input waited for its VM to catch up in a flow */
    catchUp: CatchUpStatus;
    /** whether both VMs get their input in portions */
    portions: PortionsStatus;
  } | null;
  /** oldestMs: how long the oldest frame has been held; 0 if there is none */
  held: { frames: number; bytes: number; oldestMs: number };
  flows: { tcp: number; other: number; translated: number };
  divergences: {
    count: number;
    byClass: Record<DivergenceClass, number>;
    last: (Omit<Divergence, 'service'> & { atMs: number }) | null;
  };
  /** What checkpoints were spent on since the first one, which was `forMs` ago; those that stopped the VM for longest first. */
  spent: { forMs: number; rows: SpentRow[] };
  traffic: {
    inputFrames: number;
    inputBytes: number;
    releasedFrames: number;
    releasedBytes: number;
    releasedBy: ReleasedBy;
    peerFrames: number;
    /** segments of the secondary's VM in which the primary's value of a field took the place of its own, by a rule */
    unifiedFrames: number;
    malformedFrames: number;
    droppedFrames: number;
  };
  failover: FailoverReport | null;
  /** The fence command; null if there is none in the configuration. */
  fence: FenceStatus | null;
  /** The rules of the node's configuration; they are in force while it is the primary. */
  rules: RuleStatus[];
};

/**
 * One rule has one action, and null for the others. `exempt`: output that has left uncompared and unprotected since this node is
 * the primary. `unify`: the field that may differ.
 */
export type RuleStatus = {
  match: string;
  exempt: Exempted | null;
  intervalMsMin: number | null;
  unify: UnifiedField | null;
};

/**
 * `rules`: in force now. `certificatesChanged`: new connections of the link use others. `restartFor`: keys of the file that differ from
 * the start of the node, which goes on without them.
 */
export type Reloaded = {
  changed: boolean;
  rules: string[];
  certificatesChanged: boolean;
  restartFor: string[];
};

/** One line of the event log. `type` is a key of NodeEvents. */
export type NodeEvent = {
  seq: number;
  at: string;
  node: string;
  type: string;
  [detail: string]: unknown;
};

/** The requests that the API and the CLI make to a running node. */
export type NodeControl = {
  status(): NodeStatus;
  /** Takes a checkpoint now; resolves when it has committed. Rejects with a ColoError if the VM is not protected. */
  checkpoint(): Promise<CheckpointReport>;
  /** Promotes a secondary; makes a primary go on alone. */
  failover(): Promise<void>;
  /** Makes the connected candidate the secondary of a lone primary; resolves when the VM is protected. */
  protect(): Promise<void>;
  /** Takes over the rules of the node's file; resolves when they are in force. Rejects if the file has an error. */
  reload(): Promise<Reloaded>;
  stop(): Promise<void>;
  /** Starts a pcapng file at `path`. It ends after `bytesMax` bytes or by stopCapture. */
  startCapture(path: string, bytesMax: number): void;
  stopCapture(): { path: string; frames: number } | null;
};
