/**
 * Connections of the link inside mutual TLS 1.3: each end proves by a certificate that it is the other node of this pair.
 *
 * Goal: nothing of a peer reaches the link's protocol, and nothing of the VM reaches a peer, before its certificate has been
 * checked (peer-certificate.ts). The dialler checks the listener first, since TLS 1.3 lets it send only after that.
 *
 * Events: a handshake under way is closed after HANDSHAKE_MS_MAX, or when HANDSHAKES_MAX others have begun after it: a flood of
 * mute connections keeps no node out for longer than its own handshake takes. A peer whose certificate is refused is sent
 * FAILED, so that its node can show why; nothing of it is read.
 *
 * Limits: no older TLS, and no session is resumed: each connection checks both certificates again. `use` gives new
 * credentials to the connections that open from then on; those that are open stay.
 *
 * Failure: COLO_ENDPOINT_CONNECT, COLO_ENDPOINT_LISTEN, COLO_LINK_SILENT, and the COLO_TLS_ errors of peer-certificate.ts and of a
 * peer that speaks something else.
 */
import { constants } from 'node:crypto';
import type net from 'node:net';
import tls from 'node:tls';
import { type Endpoint, socketAddress } from '../endpoint.ts';
import { ColoError, messageOf } from '../error.ts';
import { deadline } from '../io/deadline.ts';
import { watchHost } from '../io/host-watch.ts';
import { reserveInKernel } from '../io/socket-queue.ts';
import { CONNECT_MS_MAX, cannotConnect, listenOn, type StreamListener } from '../io/socket-stream.ts';
import type { Connections } from '../io/surroundings.ts';
import { TlsStream } from '../io/tls-stream.ts';
import type { CertifiedNode } from './certified-node.ts';
import type { Credentials } from './credentials.ts';
import { failedMessage } from './message-header.ts';
import { checkOwnDates, checkPresented } from './peer-certificate.ts';

/** From the connection to the end of the handshake: two round trips, and two signatures. */
const HANDSHAKE_MS_MAX = 2000;
/** Accepted connections whose handshake is under way. One more closes the oldest. */
export const HANDSHAKES_MAX = 32;
/** A refused peer reads FAILED and closes; one that does not is closed. */
const REFUSED_MS_MAX = 1000;

/** AES-128 first: it is the fastest by far where the processor has AES, and as good as the others for years to come. */
const CIPHERS = 'TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256';
const VERSION: tls.SecureVersion = 'TLSv1.3';

/** What OpenSSL says of bytes that are no TLS. */
const NO_TLS: ReadonlySet<string> = new Set([
  'ERR_SSL_WRONG_VERSION_NUMBER',
  'ERR_SSL_PACKET_LENGTH_TOO_LONG',
  'ERR_SSL_HTTP_REQUEST',
  'ERR_SSL_RECORD_LAYER_FAILURE',
  'ERR_SSL_BAD_RECORD_TYPE',
  'ERR_SSL_UNEXPECTED_MESSAGE',
]);
const OTHER_VERSION: ReadonlySet<string> = new Set([
  'ERR_SSL_UNSUPPORTED_PROTOCOL',
  'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION',
  'ERR_SSL_NO_PROTOCOLS_AVAILABLE',
]);

/** A peer that a listener has refused. `from`: its address. */
export type Refusal = { readonly cause: ColoError; readonly from: string };

type Options = {
  readonly credentials: Credentials;
  readonly wall: () => number;
  refused(refusal: Refusal): void;
};

export class TlsConnections implements Connections<TlsStream> {
  private readonly options: Options;
  private credentials: Credentials;
  private context: tls.SecureContext;
  private readonly servers = new Set<tls.Server>();

  constructor(options: Options) {
    this.options = options;
    this.credentials = options.credentials;
    this.context = tls.createSecureContext(contextOf(options.credentials));
  }

  /** Uses other credentials for connections that open from now on. */
  use(credentials: Credentials): void {
    this.context = tls.createSecureContext(contextOf(credentials));
    this.credentials = credentials;
    for (const server of this.servers) server.setSecureContext(contextOf(credentials));
  }

  async connect(endpoint: Endpoint): Promise<TlsStream> {
    checkOwnDates(this.credentials.own, this.options.wall());
    const socket = await connectTls(endpoint, this.context);
    try {
      const { node } = this.check(socket);
      watchHost(socket, endpoint);
      if (endpoint.kind === 'tcp') reserveInKernel(fdOf(socket));
      return new TlsStream(socket, node);
    } catch (cause) {
      socket.destroy();
      throw cause;
    }
  }

  async listen(endpoint: Endpoint, accept: (stream: TlsStream) => void): Promise<StreamListener> {
    const server = tls.createServer({
      ...contextOf(this.credentials),
      requestCert: true,
      // The check is ours, so that a refused peer can be sent why.
      rejectUnauthorized: false,
      noDelay: true,
    });
    const handshakes = new Handshakes((from) => this.refuse(silent(), from));
    server.on('connection', (raw) => {
      handshakes.begin(raw);
      watchHost(raw, endpoint);
      if (endpoint.kind === 'tcp') reserveInKernel(fdOf(raw));
    });
    server.on('tlsClientError', (cause, socket) => {
      socket.destroy();
      if (handshakes.end(rawOf(socket))) this.refuse(notTls(cause), addressOf(socket));
    });
    server.on('secureConnection', (socket) => {
      handshakes.end(rawOf(socket));
      socket.on('error', () => {});
      this.admit(socket, accept);
    });
    this.servers.add(server);
    const listener = await listenOn(server, endpoint);
    return {
      close: async () => {
        this.servers.delete(server);
        await listener.close();
      },
    };
  }

  private admit(socket: tls.TLSSocket, accept: (stream: TlsStream) => void): void {
    const from = addressOf(socket);
    try {
      const { node } = this.check(socket);
      accept(new TlsStream(socket, node));
    } catch (cause) {
      if (!(cause instanceof ColoError)) throw cause;
      sendRefusal(socket, cause);
      this.refuse(cause, from);
    }
  }

  private check(socket: tls.TLSSocket): CertifiedNode {
    const verdict = socket.authorized ? null : String(socket.authorizationError ?? 'no certificate');
    const presented = { certificate: socket.getPeerX509Certificate(), verdict };
    return checkPresented(presented, this.credentials.node, this.options.wall());
  }

  private refuse(cause: ColoError, from: string): void {
    this.options.refused({ cause, from });
  }
}

/** The accepted connections whose handshake is under way, oldest first. */
class Handshakes {
  /** How to cancel the deadline of each. */
  private readonly underWay = new Map<net.Socket, () => void>();
  private readonly isSilent: (from: string) => void;

  constructor(isSilent: (from: string) => void) {
    this.isSilent = isSilent;
  }

  begin(raw: net.Socket): void {
    const [oldest] = this.underWay.keys();
    if (this.underWay.size >= HANDSHAKES_MAX) this.giveUp(oldest);
    this.underWay.set(
      raw,
      deadline(HANDSHAKE_MS_MAX, () => this.giveUp(raw)),
    );
    raw.once('close', () => this.end(raw));
  }

  /** Returns whether it was under way. */
  end(raw: net.Socket): boolean {
    this.underWay.get(raw)?.();
    return this.underWay.delete(raw);
  }

  private giveUp(raw: net.Socket): void {
    this.end(raw);
    this.isSilent(addressOf(raw));
    raw.destroy();
  }
}

function contextOf({ pem }: Credentials): tls.SecureContextOptions {
  return {
    ...pem,
    minVersion: VERSION,
    maxVersion: VERSION,
    ciphers: CIPHERS,
    honorCipherOrder: true,
    secureOptions: constants.SSL_OP_NO_TICKET,
  };
}

/** Resolves when the handshake is complete; the peer's certificate is not checked yet. */
function connectTls(endpoint: Endpoint, secureContext: tls.SecureContext): Promise<tls.TLSSocket> {
  return new Promise((resolve, reject) => {
    const options: tls.ConnectionOptions = {
      ...socketAddress(endpoint),
      secureContext,
      servername: '',
      rejectUnauthorized: false,
      // The name in the certificate is no host name.
      checkServerIdentity: () => undefined,
    };
    const socket = tls.connect(options);
    let isConnected = false;
    const fail = (cause: ColoError): void => {
      replied();
      socket.destroy();
      reject(cause);
    };
    const late = new Error(`no reply in ${CONNECT_MS_MAX / 1000} s`);
    let replied = deadline(CONNECT_MS_MAX, () => fail(cannotConnect(endpoint, late)));
    socket.once('connect', () => {
      isConnected = true;
      socket.setNoDelay(true);
      replied();
      replied = deadline(HANDSHAKE_MS_MAX, () => fail(silent()));
    });
    // It stays: an error may follow the first one.
    socket.on('error', (cause) => fail(isConnected ? notTls(cause) : cannotConnect(endpoint, cause)));
    socket.once('secureConnect', () => {
      replied();
      resolve(socket);
    });
  });
}

function sendRefusal(socket: tls.TLSSocket, cause: ColoError): void {
  const timer = setTimeout(() => socket.destroy(), REFUSED_MS_MAX);
  socket.once('close', () => clearTimeout(timer));
  // With unread bytes at its close the kernel would reset the connection, and the peer might lose the message.
  socket.resume();
  socket.end(failedMessage(cause, cause.code));
}

function silent(): ColoError {
  return new ColoError(
    'COLO_LINK_SILENT',
    `the peer did not complete the TLS handshake in ${HANDSHAKE_MS_MAX} ms; is it a colo node?`,
  );
}

function notTls(cause: Error & { code?: string }): ColoError {
  const { code = '' } = cause;
  if (NO_TLS.has(code))
    return new ColoError(
      'COLO_TLS_PLAIN',
      `the peer does not speak TLS (${code}); give both nodes link.tls, and check link.peer`,
      { cause },
    );
  if (OTHER_VERSION.has(code))
    return new ColoError(
      'COLO_TLS_VERSION',
      `the peer does not speak TLS 1.3 (${code}); is it a colo node?`,
      {
        cause,
      },
    );
  return new ColoError(
    'COLO_TLS_HANDSHAKE',
    `the peer ended the TLS handshake: ${messageOf(cause)}; has it link.tls, too?`,
    { cause },
  );
}

function addressOf({ remoteAddress, remotePort }: net.Socket): string {
  return remoteAddress === undefined ? 'a unix socket' : `${remoteAddress} port ${remotePort}`;
}

function fdOf(socket: net.Socket): number {
  return (socket as unknown as { _handle: { fd?: number } | null })._handle?.fd ?? -1;
}

/** Returns the connection below an accepted TLS socket. */
function rawOf(socket: tls.TLSSocket): net.Socket {
  return (socket as unknown as { _parent: net.Socket })._parent;
}
