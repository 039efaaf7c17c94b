/** What a client found wrong: the count is exact, the first ones are kept in full. */
export class Findings<T> {
  /** Enough to see a pattern in a report; a service that lies all the time must not fill the memory. */
  static readonly KEPT_MAX = 1000;

  readonly kept: T[] = [];
  count = 0;

  add(finding: T): void {
    this.count += 1;
    if (this.kept.length < Findings.KEPT_MAX) this.kept.push(finding);
  }
}
