/** What a world reports: broken rules, counts, and a trace line for each event. */
import { InvariantError } from '../../src/error.ts';
import type { Loop, Process } from './loop.ts';

export type Violation = { atMs: number; rule: string; text: string };

const VIOLATIONS_MAX = 20;

export class Journal {
  readonly violations: Violation[] = [];
  readonly stats: Record<string, number> = {};
  private readonly loop: Loop;
  private readonly onLine: ((line: string) => void) | undefined;

  constructor(loop: Loop, onLine: ((line: string) => void) | undefined) {
    this.loop = loop;
    this.onLine = onLine;
  }

  get isTraced(): boolean {
    return this.onLine !== undefined;
  }

  get isClean(): boolean {
    return this.violations.length === 0;
  }

  violation(rule: string, text: string): void {
    this.trace('VIOLATION', `${rule}: ${text}`);
    if (this.violations.length < VIOLATIONS_MAX) this.violations.push({ atMs: this.loop.nowMs, rule, text });
  }

  count(what: string): void {
    this.stats[what] = (this.stats[what] ?? 0) + 1;
  }

  noteMax(what: string, value: number): void {
    this.stats[what] = Math.max(this.stats[what] ?? 0, value);
  }

  trace(who: string, what: string): void {
    this.onLine?.(`${this.loop.nowMs.toFixed(3).padStart(11)} ${who.padEnd(10)} ${what}`);
  }

  /** An exception that would have ended a process. `invariantFailed` has reported failed invariants already. */
  thrown(owner: Process | null, cause: unknown): void {
    if (cause instanceof InvariantError) return;
    this.violation('exception', `${owner?.name ?? 'world'}: ${stackOf(cause)}`);
  }

  /** An invariant of the code does not hold, even if the code catches the error. */
  invariantFailed(failure: InvariantError): void {
    this.violation('assertion', stackOf(failure));
  }

  /** A promise rejected that no code awaits: Node would end the process. */
  unhandled(cause: unknown): void {
    this.violation('assertion', `unhandled rejection: ${stackOf(cause)}`);
  }
}

function stackOf(cause: unknown): string {
  return cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
}
