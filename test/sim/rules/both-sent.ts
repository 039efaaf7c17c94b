/**
 * The rule of what both have sent: in a protected pair without a fault, clients are sent what both VMs have sent, soon and
 * without a checkpoint. It holds whatever their network loses, and however the TCPs of the two VMs differ.
 *
 * Two parts, both looked at every CHECK_MS of the world:
 * - The end of a stream and the ACK that both VMs had reached two looks ago have left by now.
 * - A segment whose bytes clients were all sent before is a retransmission, and is not held for longer than HELD_MS_MAX.
 *
 * Not judged: a checkpoint and the time just after it, in which output waits for the commit; a node whose flow table is full, which
 * has forgotten what clients were sent, and which SYNs have matched: a repeated SYN of the SVM then seems to begin a connection
 * of which the PVM has sent no SYN, and the PVM's segments wait; a service whose checkpoints a rule delays (ruled.ts): while they
 * differ, nothing of its connections leaves; a pair of which a guest has switched itself off: no checkpoint is
 * taken then, for which a difference waits.
 */
import { LENGTH, NO_FRAME } from '../../../src/compare/held-frames.ts';
import { RULED_PORT, type Ruled } from '../ruled.ts';
import { noneStands, type SimHost } from '../sim-host.ts';
import type { Phase } from '../sim-migration.ts';
import type { SimQemu } from '../sim-qemu.ts';
import { WORLD_LIMITS } from '../world-limits.ts';
import { tcpPortOf } from './intervals.ts';
import type { OutputCommit, Place, SentOutput } from './output-commit.ts';
import type { Progress } from './progress.ts';
import type { SameInput } from './same-input.ts';
import type { Scene } from './scene.ts';

/** Two looks: a node reads its VM's output within 20 ms, and the link takes 12 ms, but a burst may need several reads. */
const HELD_MS_MAX = 100;
const CALM_MS = 5000;
const AFTER_CHECKPOINT_MS = 100;

type Both = { readonly primary: Place; readonly secondary: Place };

export class BothSent {
  private readonly scene: Scene;
  private readonly sameInput: SameInput;
  private readonly progress: Progress;
  private readonly outputCommit: OutputCommit;
  private readonly ruled: Ruled | null;
  /** What was new at the last look, of the pair whose primary is `of`. */
  private fresh = new Map<number, Both>();
  /** What was new at the look before. */
  private older = new Map<number, Both>();
  private of: SimQemu | null = null;
  private checkpoint: { readonly phase: Phase; readonly atMs: number } = { phase: 'loaded', atMs: 0 };

  constructor(
    scene: Scene,
    sameInput: SameInput,
    progress: Progress,
    outputCommit: OutputCommit,
    ruled: Ruled | null,
  ) {
    this.scene = scene;
    this.ruled = ruled;
    this.sameInput = sameInput;
    this.progress = progress;
    this.outputCommit = outputCommit;
  }

  /** A VM has reached a phase of a checkpoint. */
  reached(phase: Phase): void {
    this.checkpoint = { phase, atMs: this.scene.loop.nowMs };
  }

  check(): void {
    const { partner } = this.sameInput;
    const host = Object.values(this.scene.hosts).find(
      ({ qemu }) => qemu !== null && qemu === partner?.primary,
    );
    if (partner === null || host === undefined) return;
    const own = partner.primary.vm.sent;
    if (this.of !== partner.primary) this.forget();
    else if (this.isQuiet(host)) {
      for (const [flow, { primary, secondary }] of this.older)
        this.report(host, this.outputCommit.unsaid(flow, primary, secondary));
      this.checkHeld(host, own);
    }
    this.of = partner.primary;
    this.look(own, partner.sent);
  }

  private forget(): void {
    this.fresh.clear();
    this.older.clear();
  }

  private look(primary: SentOutput, secondary: SentOutput): void {
    const fresh = this.older;
    this.older = this.fresh;
    this.fresh = fresh;
    fresh.clear();
    for (const moved of [primary.moved, secondary.moved]) {
      for (const flow of moved) {
        const [one, other] = [primary.stream(flow), secondary.stream(flow)];
        if (one !== undefined && other !== undefined && !this.isDelayed(Math.floor(flow / 65_536) % 65_536))
          fresh.set(flow, { primary: { ...one }, secondary: { ...other } });
      }
      moved.clear();
    }
  }

  private checkHeld(host: SimHost, sent: SentOutput): void {
    const { life } = host;
    const inside = life?.node.inspect();
    if (life == null || inside?.role?.kind !== 'primary') return;
    const { slabs } = inside.parts;
    const { frames, primary } = inside.role.path.comparator;
    const { words } = frames;
    const longAgoMs = life.process.now() - HELD_MS_MAX;
    for (
      let id = primary.oldest;
      id !== NO_FRAME && frames.since(id) <= longAgoMs;
      id = frames.newerThan(id)
    ) {
      const at = frames.offsetOf(id);
      const bytes = slabs.buffer(frames.slabOf(id));
      if (this.isDelayed(tcpPortOf(bytes, at))) continue;
      this.report(host, this.outputCommit.repetition(bytes, at, at + words[id + LENGTH], sent));
    }
  }

  /** Whether a rule delays the checkpoints of the service with this port. */
  private isDelayed(port: number): boolean {
    return this.ruled !== null && this.ruled.intervalMs !== null && port === RULED_PORT;
  }

  private report(host: SimHost, text: string | null): void {
    if (text !== null) this.scene.journal.violation('both have sent', `${host.side}: ${text}`);
  }

  /** The pair is protected, no fault and no checkpoint was near, all that was released is out, and no flow is forgotten. */
  private isQuiet(host: SimHost): boolean {
    const { phase, atMs } = this.checkpoint;
    return (
      phase === 'loaded' &&
      atMs < this.scene.loop.nowMs - AFTER_CHECKPOINT_MS &&
      this.progress.isCalm(CALM_MS) &&
      this.progress.isProtected &&
      noneStands(this.scene.hosts) &&
      host.life?.audit.releasedBytes === 0 &&
      !isTableFull(host)
    );
  }
}

/** A flow has been forgotten for a new one, or the next new one is about to have one forgotten. */
function isTableFull({ life }: SimHost): boolean {
  const role = life?.node.inspect()?.role;
  return role?.kind === 'primary' && role.path.comparator.flowCount >= WORLD_LIMITS.flowsMax;
}
