/** Errors that a client found: an exact count, and the first ones in full. */
export class Findings<T> {
  /** Enough to see a pattern in a report; a service that is always wrong must not fill the memory. */
  static readonly KEPT_MAX = 1000;

  readonly kept: T[] = [];
  count = 0;

  add(finding: T): void {
    this.count += 1;
    if (this.kept.length < Findings.KEPT_MAX) this.kept.push(finding);
  }
}
