/**
 * The right to speak, as one object (rule 2, one voice). A path asks it before each write to the uplink.
 *
 * | state   | may speak                   | entered by                                                        |
 * |---------|-----------------------------|-------------------------------------------------------------------|
 * | silent  | never                       | creation                                                          |
 * | alone   | always                      | `grantAlone`: the arbiter's record says alone(this node)          |
 * | leased  | until the lease's end       | `lease`: the record may soon allow the secondary's promotion      |
 * | yielded | never                       | `yield`: until the record says alone(this node) again, or `fence` |
 * | fenced  | never, and nothing grants it| `fence`: the right is lost for good                               |
 *
 * A lease is proven by heartbeats (lease.ts) and only ever grows (`prolong`). Late proofs change nothing after a fence, nor while
 * this node is alone.
 */
import { invariant } from '../error.ts';
import type { Instant } from '../units.ts';

const NEVER = Number.NEGATIVE_INFINITY;
const ALWAYS = Number.POSITIVE_INFINITY;

/** `leftMs`: for so long this node may still speak, if nothing prolongs the lease; 0 if it is over. */
export type VoiceStatus =
  | { state: 'silent' | 'alone' | 'yielded' | 'fenced' }
  | { state: 'leased'; leftMs: number };

export class Voice {
  private state: VoiceStatus['state'] = 'silent';
  private generation = 0;
  /** the end of what this node can prove, on its own monotonic clock */
  private untilMs = NEVER;

  /** Whether this node speaks by a lease: only then may the record say that it has a secondary. */
  get isLeased(): boolean {
    return this.state === 'leased';
  }

  get isFenced(): boolean {
    return this.state === 'fenced';
  }

  /** Whether this node may write to its uplink now. */
  maySpeak(nowMs: Instant): boolean {
    return nowMs < this.untilMs;
  }

  status(nowMs: Instant): VoiceStatus {
    const { state, untilMs } = this;
    return state === 'leased' ? { state, leftMs: Math.max(0, untilMs - nowMs) } : { state };
  }

  /** The arbiter's record of this generation says that this node alone has the VM. */
  grantAlone(generation: number): void {
    invariant(this.state !== 'fenced', 'a fenced voice was granted the right to speak');
    // A first copy that fails leaves the record, and so the generation, as it was.
    const newer = generation > this.generation || (this.state === 'alone' && generation === this.generation);
    invariant(newer, `generation ${generation} grants a voice of generation ${this.generation}`);
    this.generation = generation;
    this.state = 'alone';
    this.untilMs = ALWAYS;
  }

  /** From now on this node may speak only until `untilMs`, which its heartbeats prove. */
  lease(untilMs: number): void {
    if (this.state === 'fenced') return;
    invariant(this.state === 'alone', `a ${this.state} voice was put under a lease`);
    this.state = 'leased';
    this.untilMs = untilMs;
  }

  /** Heartbeats prove that this node may speak until `untilMs`. */
  prolong(untilMs: number): void {
    if (this.state !== 'leased') return;
    invariant(untilMs >= this.untilMs, 'a lease became shorter');
    this.untilMs = untilMs;
  }

  /** Gives the right up for the secondary. No heartbeat brings it back. */
  yield(): void {
    if (this.state === 'fenced') return;
    invariant(this.state === 'leased', `a ${this.state} voice was yielded`);
    this.state = 'yielded';
    this.untilMs = NEVER;
  }

  /** The right is lost for good. */
  fence(): void {
    this.state = 'fenced';
    this.untilMs = NEVER;
  }
}
