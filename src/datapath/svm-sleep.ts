/**
 * What the primary knows of its SVM's sleep. It asks, and the secondary notifies once the SVM sleeps (sleep-watch.ts): the
 * question travels after all input that was delivered, and the notification after all output that the SVM has sent, so neither
 * overtakes what it is about. Nobody who does not need to know makes the secondary look.
 *
 * | phase   | next phase                                                                             |
 * |---------|----------------------------------------------------------------------------------------|
 * | unasked | asked: `ask`                                                                           |
 * | asked   | asleep: the secondary notifies; unasked: more input is delivered, a checkpoint          |
 * | asleep  | unasked: more input is delivered, the SVM sends something, a checkpoint                 |
 *
 * Failure: a secondary that cannot see its VM says so (`blind`), and is not asked again; another one may see.
 */
import type { Instant } from '../units.ts';

export class SvmSleep {
  /** Why the secondary cannot see whether its VM sleeps; null if it can, or has not been asked. */
  blindness: string | null = null;
  private readonly send: () => void;
  private phase: 'unasked' | 'asked' | 'asleep' = 'unasked';
  private sinceMs = 0;

  /** `send`: asks the secondary. */
  constructor(send: () => void) {
    this.send = send;
  }

  get isAsleep(): boolean {
    return this.phase === 'asleep';
  }

  /** Returns for how long the SVM has slept and sent nothing; 0 if it does not sleep, or nobody has asked. */
  sleptMs(nowMs: Instant): number {
    return this.phase === 'asleep' ? nowMs - this.sinceMs : 0;
  }

  ask(): void {
    if (this.phase !== 'unasked' || this.blindness !== null) return;
    this.phase = 'asked';
    this.send();
  }

  /** The secondary notifies: over all that was delivered. Returns whether somebody had asked. */
  asleep(nowMs: Instant): boolean {
    if (this.phase !== 'asked') return false;
    this.phase = 'asleep';
    this.sinceMs = nowMs;
    return true;
  }

  /** More input was delivered, or a checkpoint has given the SVM another state: a question or notification is about the past. */
  forget(): void {
    this.phase = 'unasked';
  }

  /** The SVM has sent something. */
  outputSeen(): void {
    if (this.phase === 'asleep') this.phase = 'unasked';
  }
}
