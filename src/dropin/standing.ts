/**
 * What `colo compare` knows of its pair, and what the user is notified of when it does not know enough.
 *
 *   standing   PVM output           requests         meaning
 *   unknown    as before            when overdue     the source does not reply: is there a secondary?
 *   alone      released             none             there is no secondary
 *   joining    compared             each second      there is one, and what the VMs sent before this is not known
 *   paired     compared             when overdue     a checkpoint has made the VMs equal
 *   broken     compared             none             COLO ended by an error; an operator has to decide which VM goes on
 *
 *   event      unknown   alone    joining  paired   broken
 *   unknown    -         unknown  unknown  unknown  unknown
 *   alone      alone     alone    alone    alone    alone
 *   primary    joining   joining  -        -        -
 *   committed  paired    paired   paired   paired   -
 *   broken     broken    broken   broken   broken   -
 *
 * At the start the standing is `unknown`, and frames leave uncompared: a VM whose COLO has not begun, or whose QEMU does not
 * reply, needs its network. Once it has been known that there is a secondary, `unknown` holds what differs.
 *
 * `notify` is called at once and then every NOTICE_MS, while the standing is one that somebody has to look at: `unknown`,
 * `broken`, and `joining` if no checkpoint follows.
 */
import type { Timers } from '../io/clock.ts';

export type Standing = 'unknown' | 'alone' | 'joining' | 'paired' | 'broken';
export type StandingEvent = 'unknown' | 'alone' | 'primary' | 'committed' | 'broken';

export const NOTICE_MS = 10_000;

const TRANSITIONS: Record<StandingEvent, Partial<Record<Standing, Standing>>> = {
  unknown: { alone: 'unknown', joining: 'unknown', paired: 'unknown', broken: 'unknown' },
  alone: { unknown: 'alone', joining: 'alone', paired: 'alone', broken: 'alone' },
  primary: { unknown: 'joining', alone: 'joining' },
  committed: { unknown: 'paired', alone: 'paired', joining: 'paired' },
  broken: { unknown: 'broken', alone: 'broken', joining: 'broken', paired: 'broken' },
};

export class StandingWatch {
  private now: Standing;
  private readonly timers: Pick<Timers, 'after'>;
  private readonly notify: (standing: 'unknown' | 'joining' | 'broken') => void;
  private cancelNotice = (): void => {};

  constructor(
    standing: Standing,
    timers: Pick<Timers, 'after'>,
    notify: (standing: 'unknown' | 'joining' | 'broken') => void,
  ) {
    this.now = standing;
    this.timers = timers;
    this.notify = notify;
  }

  get standing(): Standing {
    return this.now;
  }

  /** Notifies of the standing at the start, if it is one to notify of. */
  start(): void {
    this.entered();
  }

  /** Returns whether the event changed the standing. */
  take(event: StandingEvent): boolean {
    const next = TRANSITIONS[event][this.now];
    if (next === undefined) return false;
    this.now = next;
    this.entered();
    return true;
  }

  close(): void {
    this.cancelNotice();
  }

  private entered(): void {
    this.cancelNotice();
    const { now } = this;
    if (now === 'alone' || now === 'paired') return;
    // A checkpoint follows a request within milliseconds.
    if (now !== 'joining') this.notify(now);
    this.noticeLater(now);
  }

  private noticeLater(standing: 'unknown' | 'joining' | 'broken'): void {
    this.cancelNotice = this.timers.after(NOTICE_MS, () => {
      this.notify(standing);
      this.noticeLater(standing);
    });
  }
}
