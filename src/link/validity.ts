/** How long a certificate is still valid, as events, `colo status` and `colo doctor` show it. */
import type { X509Certificate } from 'node:crypto';

export const DAY_MS = 86_400_000;
/** With fewer days left it is to be renewed. */
export const WARN_DAYS = 30;

/** Returns its last moment, by a wall clock. */
export function endOf({ validTo }: Pick<X509Certificate, 'validTo'>): number {
  return Date.parse(validTo);
}

/** Returns whole days; negative if it has expired. */
export function daysLeft(endsAtMs: number, wallMs: number): number {
  return Math.floor((endsAtMs - wallMs) / DAY_MS);
}

/** Returns a date of a certificate as events and messages show it. */
export function isoOf(date: string): string {
  return new Date(Date.parse(date)).toISOString();
}
