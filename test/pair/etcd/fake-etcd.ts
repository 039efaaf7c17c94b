/** Something that replies where etcd is expected: over HTTP or HTTPS, whatever a test wants. */
import { readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';

const FOLDER = join(import.meta.dirname, 'certificates');

export const certificatePath = (name: string): string => join(FOLDER, name);

/** Ends what it made at the end of a test. */
type Owner = { after(call: () => void | Promise<void>): void };

/** `body`: the JSON of a request, null of a GET. Returns the JSON to reply with, or undefined if it has replied itself. */
export type Reply = (
  path: string,
  body: unknown,
  response: ServerResponse,
  request: IncomingMessage,
) => unknown;

/** `tls`: the name of the server's certificate. Returns its endpoint. */
export async function fakeEtcd(
  t: Owner,
  reply: Reply,
  tls: { certificate: string; asksClients?: 'asks-clients' } | null = null,
): Promise<string> {
  const take = (request: IncomingMessage, response: ServerResponse): void => {
    let text = '';
    request.setEncoding('utf8').on('data', (piece: string) => {
      text += piece;
    });
    request.on('end', () => {
      const value = reply(request.url ?? '', text === '' ? null : JSON.parse(text), response, request);
      if (value !== undefined) replyJson(response, 200, value);
    });
  };
  const server =
    tls === null
      ? createServer(take)
      : createTlsServer(
          {
            cert: readFileSync(certificatePath(`${tls.certificate}.pem`)),
            key: readFileSync(certificatePath(`${tls.certificate}.key`)),
            ca: readFileSync(certificatePath('ca.pem')),
            requestCert: tls.asksClients !== undefined,
            rejectUnauthorized: tls.asksClients !== undefined,
          },
          take,
        );
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return `${tls === null ? 'http' : 'https'}://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

export function replyJson(response: ServerResponse, status: number, value: unknown): undefined {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(value));
}

export function replyText(
  response: ServerResponse,
  status: number,
  contentType: string,
  text: string,
): undefined {
  response.writeHead(status, { 'content-type': contentType }).end(text);
}

export const header = (cluster: string, revision = 1) => ({
  header: { cluster_id: cluster, member_id: '1', revision: String(revision) },
});

/** A member that knows its cluster, and has nothing. */
export const emptyMember =
  (cluster: string, revision = 1): Reply =>
  (path) =>
    path.startsWith('/v3/maintenance')
      ? { ...header(cluster), version: '3.4.23', leader: '1' }
      : header(cluster, revision);
