/**
 * Decides whether portions (portions.ts) pay: on while the order of input parts the VMs, off otherwise.
 *
 * Portions make input wait, so they are on only for services whose VMs diverge while several flows are at work, in order or in
 * random numbers, and often. What is seldom is not about order: a clock's turn of a second parts two VMs at most a few times a
 * second, whatever the load is. A leaky count of divergences therefore switches on: ON_COUNT of them, of which LEAK_PER_S leak
 * away.
 *
 * While on, each window of WINDOW_MS is judged at its end: portions must have taken away at least half of the divergences,
 * and most of them must have ended because both guests slept, not by the bound. Otherwise they are off for REST_MS. After
 * ON_MS they are off at once, to see whether they are still needed: a few divergences switch them on again.
 *
 * | state | next state                                                                                          |
 * |-------|-----------------------------------------------------------------------------------------------------|
 * | off   | on: ON_COUNT divergences, and `untilMs` is over                                                       |
 * | on    | off: `no-gain` or `never-sleeps` at the end of a window, for REST_MS; `not-needed` after ON_MS         |
 */
import type { Instant } from '../units.ts';

const ON_COUNT = 3;
const LEAK_PER_S = 1.5;
/** Divergences closer together count as one: a clock's turn parts the VMs again while their clocks are apart. */
const ONE_EVENT_MS = 150;
const WINDOW_MS = 5000;
const REST_MS = 300_000;
const ON_MS = 600_000;
/** Services that have a switch. */
const SERVICES_MAX = 64;
/** Fewer portions in a window that the bound cut say nothing about the guest. */
const CUTS_MIN = 4;

export type OffReason = 'not-needed' | 'no-gain' | 'never-sleeps';

type State =
  | {
      readonly kind: 'off';
      readonly why: OffReason;
      readonly untilMs: number;
      count: number;
      events: number;
      sinceMs: number;
      lastMs: number;
    }
  | { readonly kind: 'on'; readonly sinceMs: number; readonly perMsBefore: number; window: Window };
/** Divergences, and portions by how they ended, since a time. */
type Window = { readonly sinceMs: number; divergences: number; done: number; cut: number };

export class PortionSwitch {
  private state: State = off('not-needed', 0);
  private eventMs = Number.NEGATIVE_INFINITY;

  get isOn(): boolean {
    return this.state.kind === 'on';
  }

  /** Null while on. */
  get offReason(): OffReason | null {
    return this.state.kind === 'off' ? this.state.why : null;
  }

  /** The VMs diverged while several flows were at work. */
  diverged(nowMs: Instant): void {
    if (nowMs - this.eventMs < ONE_EVENT_MS) return;
    this.eventMs = nowMs;
    const { state } = this;
    if (state.kind === 'on') {
      state.window.divergences++;
      this.judge(state, nowMs);
      return;
    }
    if (nowMs < state.untilMs) return;
    const leaked = ((nowMs - state.lastMs) / 1000) * LEAK_PER_S;
    if (leaked >= state.count) {
      state.count = 0;
      state.events = 0;
      state.sinceMs = nowMs;
    } else state.count -= leaked;
    state.count++;
    state.events++;
    state.lastMs = nowMs;
    if (state.count < ON_COUNT) return;
    const perMsBefore = state.events / Math.max(1, nowMs - state.sinceMs);
    this.state = { kind: 'on', sinceMs: nowMs, perMsBefore, window: windowAt(nowMs) };
  }

  /** A portion has ended. */
  ended(cause: 'done' | 'bound', nowMs: Instant): void {
    const { state } = this;
    if (state.kind === 'off') return;
    if (cause === 'done') state.window.done++;
    else state.window.cut++;
    this.judge(state, nowMs);
  }

  private judge(state: State & { kind: 'on' }, nowMs: Instant): void {
    const { sinceMs, divergences, done, cut } = state.window;
    const ms = nowMs - sinceMs;
    if (ms < WINDOW_MS) return;
    if (cut >= CUTS_MIN && cut > done) this.state = off('never-sleeps', nowMs + REST_MS);
    else if (divergences / ms > state.perMsBefore / 2) this.state = off('no-gain', nowMs + REST_MS);
    else if (nowMs - state.sinceMs >= ON_MS) this.state = off('not-needed', nowMs);
    else state.window = windowAt(nowMs);
  }
}

/** One switch for each service: for what `serviceOf` (input-flow.ts) returns. */
export class PortionSwitches {
  private readonly switches = new Map<number, PortionSwitch>();
  private readonly on = new Set<number>();
  /** how often portions of a service were switched off */
  switchedOff = 0;
  private latest: OffReason = 'not-needed';

  isOn(service: number): boolean {
    return this.on.has(service);
  }

  /** Null while portions of some service are on; else why those of the last one were switched off. */
  get offReason(): OffReason | null {
    return this.on.size > 0 ? null : this.latest;
  }

  diverged(service: number, nowMs: Instant): void {
    let one = this.switches.get(service);
    if (one === undefined) {
      // The first ones are those that count: a guest has few services that differ often.
      if (this.switches.size === SERVICES_MAX) return;
      one = new PortionSwitch();
      this.switches.set(service, one);
    }
    one.diverged(nowMs);
    this.follow(service, one);
  }

  ended(cause: 'done' | 'bound', nowMs: Instant): void {
    for (const service of this.on) {
      const one = this.switches.get(service) as PortionSwitch;
      one.ended(cause, nowMs);
      this.follow(service, one);
    }
  }

  private follow(service: number, { offReason }: PortionSwitch): void {
    if (offReason === null) this.on.add(service);
    else if (this.on.delete(service)) {
      this.latest = offReason;
      this.switchedOff++;
    }
  }
}

function off(why: OffReason, untilMs: number): State {
  return { kind: 'off', why, untilMs, count: 0, events: 0, sinceMs: 0, lastMs: 0 };
}

function windowAt(sinceMs: number): Window {
  return { sinceMs, divergences: 0, done: 0, cut: 0 };
}
