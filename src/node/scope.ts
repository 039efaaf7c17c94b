/**
 * A lifetime. Code that waits, for a timer, a dial or the start of a QEMU, asks its scope whether the result is still wanted.
 *
 * A node has one scope; each entered state of the machine, each role and each session has one below it. The end of a scope
 * aborts its signal, cancels its timers, and ends all scopes below it.
 */
import { invariant } from '../error.ts';
import type { Timers } from '../io/clock.ts';

export class Scope {
  private readonly controller = new AbortController();
  private readonly parent: Scope | null;
  private readonly children = new Set<Scope>();
  private readonly cancels = new Set<() => void>();

  constructor(parent: Scope | null = null) {
    this.parent = parent;
    if (parent === null) return;
    parent.children.add(this);
    if (parent.isOver) this.end();
  }

  get isOver(): boolean {
    return this.controller.signal.aborted;
  }

  get signal(): AbortSignal {
    return this.controller.signal;
  }

  /** Calls `call` once after `ms`, unless the scope has ended by then. */
  after(timers: Timers, ms: number, call: () => void): void {
    if (this.isOver) return;
    const cancel = timers.after(ms, () => {
      this.cancels.delete(cancel);
      call();
    });
    this.cancels.add(cancel);
  }

  end(): void {
    if (this.isOver) return;
    this.controller.abort();
    for (const cancel of this.cancels) cancel();
    this.cancels.clear();
    for (const child of [...this.children]) child.end();
    invariant(this.children.size === 0, 'a scope began below one that ends');
    this.parent?.children.delete(this);
  }
}
