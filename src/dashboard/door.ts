/**
 * Who may use the dashboard: the checks of each request, and the headers of each response.
 *
 * A page of another site may send requests to loopback from the browser of a user of this machine, also under a name of its
 * own that resolves to 127.0.0.1 (DNS rebinding), and other users of the machine may connect too. Therefore:
 *
 * | check                                           | against                                                        |
 * |-------------------------------------------------|----------------------------------------------------------------|
 * | Host is an address of this server, or `origin`  | a foreign name for this address                                |
 * | Origin, if there is one, is that of the Host    | a page of another site                                         |
 * | Authorization has the token, for all but files  | other users, other sites, other programs                       |
 *
 * The token is in a header only: no cookie, which a browser would send by itself, and no address, which it would remember. There
 * is no CORS header, so no other site can send it.
 *
 * Limits: none is needed against guessing, the token has 192 random bits.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { DashboardError } from './refusal.ts';

/** Scripts, styles and connections of this server only; no frame around it. */
export const HEADERS = {
  'content-security-policy': [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; '),
  'x-frame-options': 'DENY',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
} as const;

export class Door {
  private readonly tokenHash: Buffer;
  private readonly hosts: ReadonlySet<string>;
  private readonly origins: ReadonlySet<string>;

  /** `origins`: those by which browsers reach this server, as in http://127.0.0.1:7001. */
  constructor(token: string, origins: readonly string[]) {
    this.tokenHash = hash(token);
    this.origins = new Set(origins.map((origin) => origin.toLowerCase()));
    this.hosts = new Set(origins.map((origin) => new URL(origin).host));
  }

  /** Throws COLO_DASHBOARD_HOST or COLO_DASHBOARD_ORIGIN. */
  checkPlace({ host, origin, 'sec-fetch-site': site }: IncomingHttpHeaders): void {
    if (host === undefined || !this.hosts.has(host.toLowerCase())) {
      const known = [...this.hosts].join(' or ');
      throw new DashboardError(
        403,
        'COLO_DASHBOARD_HOST',
        `this page is not served under that name, but under ${known}; for a proxy give --origin`,
      );
    }
    const isForeign = origin !== undefined && !this.origins.has(origin.toLowerCase());
    if (isForeign || site === 'cross-site')
      throw new DashboardError(
        403,
        'COLO_DASHBOARD_ORIGIN',
        'the request comes from a page of another site; open the dashboard itself',
      );
  }

  /** Throws COLO_DASHBOARD_TOKEN. */
  checkToken({ authorization }: IncomingHttpHeaders): void {
    const [, given] = /^Bearer ([\x21-\x7e]{1,256})$/.exec(authorization ?? '') ?? [];
    // Hashes have one length, and the time to compare them says nothing of the token.
    if (given !== undefined && timingSafeEqual(hash(given), this.tokenHash)) return;
    throw new DashboardError(
      401,
      'COLO_DASHBOARD_TOKEN',
      'the token is missing or wrong; open the address that "colo dashboard" printed when it started',
    );
  }
}

const hash = (text: string): Buffer => createHash('sha256').update(text).digest();
