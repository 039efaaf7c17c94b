/**
 * One member of etcd, as a node talks to it: requests with the token of the configured user, and what a reply means that is
 * not what was asked for.
 *
 * Events: a token that etcd does not know any more (it expires, a member that restarts forgets it) is replaced by a new one,
 * once per question; so is none, when authentication is switched on. Failure: a ColoError whose code says who has to act:
 * COLO_ARBITER_AUTH, _TLS, _VERSION, _NOT_ETCD, _SPACE; COLO_ARBITER_UNREACHABLE for all that may pass by itself. Only a reply says
 * what was done: after any failure a change may have been made, or may be made later.
 */
import { ColoError, messageOf } from '../../error.ts';
import { readSecretFile } from '../../io/secret-file.ts';
import { codeOf, type EtcdHttp, type HttpReply, type TlsSecrets } from './http.ts';
import { type EtcdRequest, parseFailure, parseVersion, tokenRequest } from './requests.ts';

/** Codes of gRPC. */
const INVALID_ARGUMENT = 3;
const PERMISSION_DENIED = 7;
const RESOURCE_EXHAUSTED = 8;
const FAILED_PRECONDITION = 9;
const UNAUTHENTICATED = 16;
/** How Node and OpenSSL name what is wrong with a certificate or a handshake. */
const TLS_CODES =
  /^(ERR_TLS|ERR_SSL|ERR_OSSL|CERT_|UNABLE_TO_|DEPTH_ZERO|SELF_SIGNED|INVALID_CA|HOSTNAME_|EPROTO)/;

type TokenState =
  /** not asked for yet */
  | { readonly kind: 'none' }
  | { readonly kind: 'token'; readonly token: string }
  /** etcd asks nobody who they are */
  | { readonly kind: 'not-needed' };

/** The user that all members know, and the token that they gave for it. */
export class EtcdUser {
  readonly name: string;
  private readonly passwordFile: string;
  token: TokenState = { kind: 'none' };

  /** Throws COLO_SECRET_FILE if the password cannot be read. */
  constructor(name: string, passwordFile: string) {
    this.name = name;
    this.passwordFile = passwordFile;
    this.password();
  }

  /** Reads it again each time: it may have been changed. */
  password(): string {
    return readSecretFile(this.passwordFile).replace(/\r?\n$/, '');
  }
}

export class EtcdMember {
  private readonly http: EtcdHttp;
  private readonly tls: TlsSecrets | null;
  private readonly user: EtcdUser | null;

  constructor(http: EtcdHttp, tls: TlsSecrets | null, user: EtcdUser | null) {
    this.http = http;
    this.tls = tls;
    this.user = user;
  }

  /** As in https://10.0.0.1:2379. */
  get name(): string {
    return this.http.url.origin;
  }

  close(): void {
    this.http.close();
  }

  /** Asks as the configured user. */
  async ask<Reply>(request: EtcdRequest<Reply>, signal: AbortSignal): Promise<Reply> {
    const { user } = this;
    if (user === null) return this.askOnce(request, {}, signal);
    if (user.token.kind === 'none') await this.authenticate(user, signal);
    const used = user.token;
    try {
      return await this.askOnce(request, headersOf(used), signal);
    } catch (cause) {
      if (!(cause instanceof TokenUnknown)) throw cause;
      // Another question may have renewed it meanwhile.
      if (user.token === used) await this.authenticate(user, signal);
      return await this.askOnce(request, headersOf(user.token), signal);
    }
  }

  /** Asks without a user: what etcd tells everybody. */
  askAnybody<Reply>(request: EtcdRequest<Reply>, signal: AbortSignal): Promise<Reply> {
    return this.askOnce(request, {}, signal);
  }

  private async authenticate(user: EtcdUser, signal: AbortSignal): Promise<void> {
    try {
      const { token } = await this.askOnce(tokenRequest(user.name, user.password()), {}, signal);
      user.token = { kind: 'token', token };
    } catch (cause) {
      if (!(cause instanceof AuthenticationOff)) throw cause;
      // As etcd's own clients do: an administrator may switch it off and on while a pair runs.
      user.token = { kind: 'not-needed' };
    }
  }

  private async askOnce<Reply>(
    request: EtcdRequest<Reply>,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<Reply> {
    const reply = await this.exchange(request, headers, signal);
    const body = this.json(reply);
    if (reply.status !== 200) throw await this.refusal(reply, body, signal);
    try {
      return request.parse(body);
    } catch (cause) {
      throw this.notEtcd('replies with JSON of another shape than etcd', cause);
    }
  }

  private async exchange(
    { path, body }: EtcdRequest<unknown>,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<HttpReply> {
    const { tls } = this;
    const used = tls?.texts;
    try {
      return await this.http.post(path, body, headers, signal);
    } catch (cause) {
      const failure = this.noReply(cause);
      if (failure.code !== 'COLO_ARBITER_TLS' || signal.aborted || tls === null) throw failure;
      // The certificates may have been renewed, and another question may have read them by now.
      tls.renew();
      if (tls.texts === used) throw failure;
    }
    try {
      return await this.http.post(path, body, headers, signal);
    } catch (cause) {
      throw this.noReply(cause);
    }
  }

  private noReply(cause: unknown): ColoError {
    const { name } = this;
    const code = codeOf(cause);
    if (code === 'EPROTO' && /wrong version number|packet length/.test(messageOf(cause)))
      return new ColoError(
        'COLO_ARBITER_TLS',
        `${name} has no TLS; write http://, or switch TLS on in etcd`,
        {
          cause,
        },
      );
    if (TLS_CODES.test(code))
      return new ColoError(
        'COLO_ARBITER_TLS',
        `${name}: TLS fails: ${oneLine(messageOf(cause))}; check arbiter.etcd.tls and etcd's certificate`,
        { cause },
      );
    const isCut = code === 'ECONNRESET' || code === 'EPIPE';
    const hint = isCut ? this.hintOfCut() : '';
    return new ColoError('COLO_ARBITER_UNREACHABLE', `${name}: ${oneLine(messageOf(cause))}${hint}`, {
      cause,
    });
  }

  /** Returns why a member may have ended the connection without a reply. */
  private hintOfCut(): string {
    if (this.tls === null) return ' (has it TLS? then write https://)';
    // With TLS 1.3 a member refuses our certificate after we have begun to use the connection.
    return ' (does it ask for certificates? is arbiter.etcd.tls.certificate one that it takes?)';
  }

  /** Returns the JSON of a reply; undefined if it is a refusal without one. */
  private json({ status, contentType, text }: HttpReply): unknown {
    try {
      return JSON.parse(text);
    } catch (cause) {
      if (/HTTP request to an HTTPS server/.test(text))
        throw new ColoError('COLO_ARBITER_TLS', `${this.name} has TLS; write https://`, { cause });
      // etcd itself has plain text for a path that it does not know.
      if (status === 404 && contentType.startsWith('text/plain')) return undefined;
      throw this.notEtcd(
        `replies with ${contentType || 'something'} and status ${status}, not with JSON`,
        cause,
      );
    }
  }

  private notEtcd(what: string, cause: unknown): ColoError {
    return new ColoError(
      'COLO_ARBITER_NOT_ETCD',
      `${this.name} ${what}: is there a proxy, or another program? give the address of an etcd member`,
      { cause },
    );
  }

  private async refusal({ status }: HttpReply, body: unknown, signal: AbortSignal): Promise<ColoError> {
    if (status === 404 && (body === undefined || !isFailure(body))) return this.noSuchPath(signal);
    const { name } = this;
    if (!isFailure(body)) return this.notEtcd(`replies with status ${status}`, null);
    const { code, message } = parseFailure(body);
    const what = `${name}: ${oneLine(message)}`;
    if (code === UNAUTHENTICATED || /auth store is old/.test(message)) return new TokenUnknown(what);
    if (code === FAILED_PRECONDITION && /not enabled/.test(message)) return new AuthenticationOff(what);
    if (code === PERMISSION_DENIED)
      return auth(`${what}; give the user a role that may read and write below the prefix`);
    if (code === INVALID_ARGUMENT && /user name is empty/.test(message))
      return this.user === null
        ? auth(`${what}; give arbiter.etcd.user and passwordFile`)
        : new TokenUnknown(what);
    if (code === INVALID_ARGUMENT && /authentication failed/.test(message))
      return auth(`${what}; check arbiter.etcd.user and passwordFile`);
    if (code === RESOURCE_EXHAUSTED && /space/.test(message))
      return new ColoError(
        'COLO_ARBITER_SPACE',
        `${what}: it can be read and not written; compact and defragment it, then "etcdctl alarm disarm"`,
      );
    return new ColoError('COLO_ARBITER_UNREACHABLE', what);
  }

  /** Returns what a member without the paths of version 3.4 is. */
  private async noSuchPath(signal: AbortSignal): Promise<ColoError> {
    try {
      const version = parseVersion(JSON.parse((await this.http.get('/version', signal)).text));
      return new ColoError(
        'COLO_ARBITER_VERSION',
        `${this.name} is etcd ${version}, which lacks /v3; use etcd 3.4 or later`,
      );
    } catch (cause) {
      return this.notEtcd('has no path /v3', cause);
    }
  }
}

/** The member wants another token: this one expired, the member has restarted, or authentication was off until now. */
class TokenUnknown extends ColoError {
  constructor(message: string) {
    super('COLO_ARBITER_AUTH', message);
  }
}

class AuthenticationOff extends ColoError {
  constructor(message: string) {
    super('COLO_ARBITER_AUTH', message);
  }
}

const auth = (message: string): ColoError => new ColoError('COLO_ARBITER_AUTH', message);

function headersOf(token: TokenState): Readonly<Record<string, string>> {
  return token.kind === 'token' ? { authorization: token.token } : {};
}

function isFailure(body: unknown): boolean {
  return typeof body === 'object' && body !== null && ('error' in body || 'message' in body);
}

function oneLine(text: string): string {
  return text.replaceAll(/\s+/g, ' ').trim().slice(0, 300);
}
