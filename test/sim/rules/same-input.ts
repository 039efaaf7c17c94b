/**
 * The rule of same input, and which VM is a copy of which.
 *
 * At each checkpoint the secondary's VM has consumed the same frames as the primary's VM, unless the checkpoint is
 * reported as inexact. From RECEIVED on, the secondary's VM is the primary VM's partner: its output is what the primary
 * may release.
 */
import { otherOf, type SimHost } from '../sim-host.ts';
import type { SimQemu } from '../sim-qemu.ts';
import type { Consumed } from '../sim-vm.ts';
import type { SentOutput } from './output-commit.ts';
import type { Scene } from './scene.ts';

/** The primary's VM, and the output of the VM that has its state. */
export type Partner = { primary: SimQemu; sent: SentOutput };

/** More than the longest time between two checkpoints. */
const STOOD_MS = 6000;

export class SameInput {
  partner: Partner | null = null;
  private readonly scene: Scene;
  /** The output that belongs to the state that was copied last. */
  private taken: ReturnType<SentOutput['snapshot']> | null = null;
  /** A difference in the checkpoint that is being taken, which it must report as inexact. */
  private difference: string | null = null;
  private lastWasInexact = false;
  private stoodUntilMs = 0;

  constructor(scene: Scene) {
    this.scene = scene;
  }

  /** The state of a primary's VM is copied now. */
  stateTaken({ vm }: SimQemu): void {
    this.taken = vm.sent.snapshot();
  }

  /** A secondary's QEMU has a whole state. */
  stateReceived(host: SimHost, { vm }: SimQemu): void {
    const primary = otherOf(this.scene.hosts, host).qemu;
    if (this.taken === null) return;
    vm.sent.become(this.taken);
    this.partner = primary === null ? null : { primary, sent: vm.sent };
  }

  stateLoaded(qemu: SimQemu, own: Consumed, theirs: Consumed, which: 'first' | 'later'): void {
    const { journal, loop, injector } = this.scene;
    journal.count('checkpoints loaded');
    this.difference = null;
    // One that stands takes a buffer of input and consumes it when it runs again: neither this checkpoint nor the next one is exact.
    if (qemu.standsFor !== null) this.stoodUntilMs = loop.nowMs + STOOD_MS;
    if (loop.nowMs < this.stoodUntilMs) return;
    if (which === 'first' || (own.frames === theirs.frames && own.digest === theirs.digest)) return;
    const text = `${qemu.name} had consumed ${own.frames} frames (${own.digest}), the primary's VM ${theirs.frames} (${theirs.digest})`;
    // What the SVM did not read in time, it reads in the next epoch.
    if (this.lastWasInexact) journal.count('after an inexact one');
    else if (loop.nowMs < injector.inexactUntilMs) this.difference = text;
    else journal.violation('same input', text);
  }

  /** The primary reports a checkpoint: it is exact, or reported as inexact. */
  committed(details: Readonly<Record<string, unknown>>): void {
    const { journal } = this.scene;
    this.lastWasInexact = details.inexact !== undefined;
    if (this.lastWasInexact) journal.count('inexact');
    else if (this.difference !== null) journal.violation('same input', `not reported: ${this.difference}`);
    this.difference = null;
    if (String(details.reason).startsWith('limit')) journal.count(`checkpoints for ${details.reason}`);
  }
}
