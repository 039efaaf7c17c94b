/**
 * A node's credentials for the link: loaded at the start and by `colo reload`, and watched until they expire.
 *
 * Connections that open after a reload use what it has loaded; those that are open stay, also beyond the last day of the
 * certificates with which they were opened. A file with a problem changes nothing.
 *
 * Events: `link.refused` of a peer that has no right to connect, at most once per REFUSED_MS_MIN for each code, so that a
 * stranger cannot fill the event log. `tls.expires` when the node's certificate, or its CA, has WARN_DAYS left, and once a day
 * from then on.
 */
import type { Clock, Timers } from '../io/clock.ts';
import { type CredentialFiles, type Credentials, loadCredentials } from '../link/credentials.ts';
import { type Refusal, TlsConnections } from '../link/tls-connections.ts';
import { DAY_MS, daysLeft, endOf, isoOf, WARN_DAYS } from '../link/validity.ts';
import type { EventSink } from '../observe/events.ts';
import type { LinkCertificates } from '../observe/status.ts';
import type { Scope } from './scope.ts';

export const REFUSED_MS_MIN = 60_000;

export class LinkTls {
  readonly connections: TlsConnections;
  private readonly events: EventSink;
  private readonly clock: Clock;
  private credentials: Credentials;
  private readonly refusedMs = new Map<string, number>();

  constructor(credentials: Credentials, events: EventSink, clock: Clock) {
    this.events = events;
    this.clock = clock;
    this.credentials = credentials;
    this.connections = new TlsConnections({
      credentials,
      wall: () => clock.wall(),
      refused: (refusal) => this.refused(refusal),
    });
  }

  /** Looks now, and then daily, how long the certificates are still valid. */
  watch(scope: Scope, timers: Timers): void {
    for (const [of, certificate] of [
      ['node', this.credentials.own],
      ...this.credentials.ca.map((ca) => ['ca', ca] as const),
    ] as const) {
      const left = daysLeft(endOf(certificate), this.clock.wall());
      if (left < WARN_DAYS)
        this.events.emit('tls.expires', { of, notAfter: isoOf(certificate.validTo), daysLeft: left });
    }
    scope.after(timers, DAY_MS, () => this.watch(scope, timers));
  }

  /** Reads the files again. Returns whether they have changed. Throws COLO_CONFIG_TLS_...; then the ones before stay. */
  reload(files: CredentialFiles): boolean {
    const loaded = loadCredentials(files, this.credentials.node);
    const { pem } = this.credentials;
    if (loaded.pem.ca === pem.ca && loaded.pem.cert === pem.cert && loaded.pem.key === pem.key) return false;
    this.connections.use(loaded);
    this.credentials = loaded;
    this.events.emit('tls.changed', { notAfter: isoOf(loaded.own.validTo) });
    return true;
  }

  status(): LinkCertificates {
    const { own, ca } = this.credentials;
    return { nodeEndsAtMs: endOf(own), caEndsAtMs: Math.min(...ca.map(endOf)) };
  }

  private refused({ cause, from }: Refusal): void {
    const nowMs = this.clock.now();
    const beforeMs = this.refusedMs.get(cause.code) ?? Number.NEGATIVE_INFINITY;
    if (nowMs - beforeMs < REFUSED_MS_MIN) return;
    this.refusedMs.set(cause.code, nowMs);
    this.events.emit('link.refused', { code: cause.code, message: cause.message, from });
  }
}
