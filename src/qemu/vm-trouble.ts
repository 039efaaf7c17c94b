/**
 * What may be wrong with a VM whose QEMU lives, as its run state (QEMU's RunState) shows it.
 *
 * | kind      | run states                                                 | the VM                                            |
 * |-----------|------------------------------------------------------------|---------------------------------------------------|
 * | `hung`    | unknown: QEMU replies to nothing                           | may go on                                         |
 * | `failing` | `io-error`                                                 | goes on when somebody has mended its disk         |
 * | `dead`    | `guest-panicked`, `internal-error`, `watchdog`             | never goes on by itself                           |
 * | `stopped` | `paused`, `debug`, `prelaunch`, `postmigrate`              | stands because somebody wanted it                 |
 * | `asleep`  | `suspended`                                                | stands because its guest wanted it                |
 * | `off`     | `shutdown`                                                 | has been switched off, by its guest above all     |
 *
 * In the other run states the VM runs, or stands for a copy or a checkpoint. What a node does about a trouble depends on
 * the pair: pair/vm-trouble-rules.ts.
 */
import type { TroubleKind } from '../pair/vm-trouble-rules.ts';
import type { Instant } from '../units.ts';

export type VmTrouble = {
  readonly kind: TroubleKind;
  /** QEMU's run state; null if it does not reply */
  readonly state: string | null;
  /** for people: what the VM does, and why */
  readonly message: string;
  readonly sinceMs: Instant;
};

const KINDS: ReadonlyMap<string, Exclude<TroubleKind, 'hung'>> = new Map([
  ['io-error', 'failing'],
  ['guest-panicked', 'dead'],
  ['internal-error', 'dead'],
  ['watchdog', 'dead'],
  ['paused', 'stopped'],
  ['debug', 'stopped'],
  ['suspended', 'asleep'],
  ['prelaunch', 'stopped'],
  ['postmigrate', 'stopped'],
  ['shutdown', 'off'],
]);

const MESSAGES: ReadonlyMap<string, string> = new Map([
  ['io-error', 'the VM stands because of an I/O error'],
  ['guest-panicked', 'the guest has panicked'],
  ['internal-error', 'the VM stands because of an internal error of QEMU or KVM'],
  ['watchdog', "the guest's watchdog has stopped the VM"],
  ['paused', 'the VM was stopped by an operator'],
  ['debug', 'a debugger has stopped the VM'],
  ['suspended', 'the guest sleeps (suspended to memory)'],
  ['prelaunch', 'the VM was reset and not started'],
  ['postmigrate', 'the VM was migrated away'],
  ['shutdown', 'the guest has been switched off'],
]);

/** Returns the kind of trouble that a run state is, or null: the VM runs, or stands for a copy. */
export function kindOf(state: string): TroubleKind | null {
  return KINDS.get(state) ?? null;
}

/** Returns the trouble that a run state is, or null: the VM runs, or stands for a copy. `why`: what QEMU has reported. */
export function troubleOf(state: string, why: string | null, sinceMs: Instant): VmTrouble | null {
  const kind = kindOf(state);
  if (kind === null) return null;
  const message = MESSAGES.get(state) ?? state;
  return { kind, state, message: why === null ? message : `${message} (${why})`, sinceMs };
}

export function hung(silentMs: number, sinceMs: Instant): VmTrouble {
  const message = `QEMU has replied to nothing for ${Math.round(silentMs)} ms`;
  return { kind: 'hung', state: null, message, sinceMs };
}
