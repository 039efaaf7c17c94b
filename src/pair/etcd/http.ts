/**
 * HTTP to one member of etcd: one request, one reply, over connections that are kept.
 *
 * The files of TLS are read at the start, and again after a failure of TLS: certificates are renewed under a node that runs.
 * Limits: REPLY_BYTES_MAX. Who asks says how long: a request ends with its signal. Failure: the error of Node.
 */
import { readFileSync } from 'node:fs';
import {
  type ClientRequest,
  Agent as PlainAgent,
  type RequestOptions,
  request as requestPlain,
} from 'node:http';
import { request as requestTls, Agent as TlsAgent } from 'node:https';
import { isDeepStrictEqual } from 'node:util';
import { ColoError, messageOf } from '../../error.ts';
import { readSecretFile } from '../../io/secret-file.ts';

/** Paths. `ca`: who signs etcd's certificates; the system's authorities if null. */
export type TlsFiles = {
  readonly ca: string | null;
  readonly certificate: string | null;
  readonly key: string | null;
};

export type HttpReply = { readonly status: number; readonly contentType: string; readonly text: string };

type TlsTexts = { readonly ca?: string; readonly cert?: string; readonly key?: string };

/** Far above any reply about one record. */
const REPLY_BYTES_MAX = 1024 * 1024;

/** The texts of the files, the same for all members. */
export class TlsSecrets {
  private readonly files: TlsFiles;
  private read: TlsTexts;

  /** Throws COLO_SECRET_FILE or COLO_ARBITER_TLS if a file cannot be used. */
  constructor(files: TlsFiles) {
    this.files = files;
    this.read = readTexts(files);
  }

  get texts(): TlsTexts {
    return this.read;
  }

  /** Reads the files again: `texts` is another object if they have changed. A file that cannot be used leaves all as it was. */
  renew(): void {
    try {
      const now = readTexts(this.files);
      if (!isDeepStrictEqual(now, this.read)) this.read = now;
    } catch {
      // It may be about to be written.
    }
  }
}

export class EtcdHttp {
  readonly url: URL;
  private readonly tls: TlsSecrets | null;
  private readonly agent: PlainAgent | TlsAgent;
  private isClosed = false;

  /** `tls` is null for http:// alone. */
  constructor(url: URL, tls: TlsSecrets | null) {
    this.url = url;
    this.tls = tls;
    this.agent = tls === null ? new PlainAgent({ keepAlive: true }) : new TlsAgent({ keepAlive: true });
  }

  get(path: string, signal: AbortSignal): Promise<HttpReply> {
    return this.send('GET', path, null, {}, signal);
  }

  post(
    path: string,
    body: unknown,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpReply> {
    return this.send('POST', path, JSON.stringify(body), headers, signal);
  }

  /** Ends the connections, with the requests that are under way; later ones fail. */
  close(): void {
    this.isClosed = true;
    this.agent.destroy();
  }

  private async send(
    method: string,
    path: string,
    body: string | null,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpReply> {
    if (this.isClosed) throw new Error('its connections have been closed');
    const options: RequestOptions = {
      agent: this.agent,
      method,
      path,
      host: hostOf(this.url),
      port: this.url.port,
      headers: body === null ? headers : { ...headers, 'content-type': 'application/json' },
      signal,
      ...this.tls?.texts,
    };
    const make = (): ClientRequest => (this.tls === null ? requestPlain(options) : requestTls(options));
    const first = make();
    try {
      return await replyTo(first, body);
    } catch (cause) {
      // The member had closed a connection that was kept. Each of our requests may be carried out twice.
      if (first.reusedSocket && !signal.aborted && !this.isClosed && codeOf(cause) === 'ECONNRESET')
        return await replyTo(make(), body);
      throw cause;
    }
  }
}

function replyTo(request: ClientRequest, body: string | null): Promise<HttpReply> {
  return new Promise((resolve, reject) => {
    request.on('error', reject);
    request.on('response', (response) => {
      const pieces: Buffer[] = [];
      let bytes = 0;
      response.on('error', reject);
      response.on('data', (piece: Buffer) => {
        bytes += piece.length;
        if (bytes > REPLY_BYTES_MAX) request.destroy(new Error('the reply is too long'));
        else pieces.push(piece);
      });
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          contentType: response.headers['content-type'] ?? '',
          text: Buffer.concat(pieces).toString('utf8'),
        }),
      );
    });
    request.end(body ?? undefined);
  });
}

/** An IPv6 host without the brackets that a URL has. */
function hostOf(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, '$1');
}

export function codeOf(cause: unknown): string {
  const code = (cause as NodeJS.ErrnoException | null)?.code;
  return typeof code === 'string' ? code : '';
}

function readTexts({ ca, certificate, key }: TlsFiles): TlsTexts {
  return {
    ...(ca === null ? {} : { ca: readCertificates(ca) }),
    ...(certificate === null ? {} : { cert: readCertificates(certificate) }),
    ...(key === null ? {} : { key: readSecretFile(key) }),
  };
}

function readCertificates(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new ColoError('COLO_ARBITER_TLS', `${path} cannot be read: ${messageOf(cause)}`, { cause });
  }
}
