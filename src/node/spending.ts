/**
 * What checkpoints were spent on: how many, and how long they stopped the VM, by reason, class and service.
 *
 * Limits: `ROWS_MAX` rows with a service. Clients choose ports, and the guest opens connections, so there may be more: those count
 * in rows without one, of which there are as many as reasons and classes allow.
 */
import type { CheckpointReport } from '../checkpoint/report.ts';
import type { NodeStatus, SpentRow } from '../observe/status.ts';
import type { Instant } from '../units.ts';

const ROWS_MAX = 64;

export class Spending {
  private readonly rows = new Map<string, SpentRow>();
  private withService = 0;
  private sinceMs: Instant | null = null;

  add(report: CheckpointReport, nowMs: Instant): void {
    this.sinceMs ??= nowMs;
    const row = this.rowOf(report.reason, report.class ?? null, report.service ?? null);
    row.checkpoints++;
    row.pausedMs += report.pauseMs;
    row.totalMs += report.totalMs;
  }

  /** Returns the rows, those that stopped the VM for longest first. */
  summary(nowMs: Instant): NodeStatus['spent'] {
    const rows = [...this.rows.values()].map((row) => ({ ...row })).sort((a, b) => b.pausedMs - a.pausedMs);
    return { forMs: this.sinceMs === null ? 0 : nowMs - this.sinceMs, rows };
  }

  private rowOf(reason: SpentRow['reason'], one: SpentRow['class'], service: string | null): SpentRow {
    const key = `${reason} ${one} ${service}`;
    const known = this.rows.get(key);
    if (known !== undefined) return known;
    if (service !== null && this.withService === ROWS_MAX) return this.rowOf(reason, one, null);
    if (service !== null) this.withService++;
    const row: SpentRow = { reason, class: one, service, checkpoints: 0, pausedMs: 0, totalMs: 0 };
    this.rows.set(key, row);
    return row;
  }
}
