/** Clients with a session that the service remembers: a cookie of nginx, a shell of sshd. */
import type { Target } from '../../lab/clients/net.ts';
import { startChild } from '../../lab/process.ts';
import { type Client, httpHead, httpReply, httpRequest, sshArguments } from './clients.ts';
import { Connection } from './connection.ts';

/** A new connection for each request, which reads what the session has and counts it up; its cookie is the service's. */
export async function httpSession(target: Target): Promise<Client> {
  const first = await Connection.open(target);
  const login = await httpHead(first, httpRequest('GET', '/login'));
  const cookie = /\r\nset-cookie: (session=[0-9a-f]{32})\r\n/i.exec(login)?.[1];
  if (cookie === undefined) throw new Error('HTTP: no session');
  let count = 0;
  const read = (connection: Connection): Promise<void> => {
    const block = Buffer.from(String(count));
    const request = httpRequest('GET', '/session', [`Cookie: ${cookie}`]);
    return connection.ask(request, httpReply({ bytes: block.length, block }));
  };
  const write = async (connection: Connection, next: number): Promise<void> => {
    const text = String(next);
    const headers = [`Cookie: ${cookie}`, `Content-Length: ${text.length}`];
    await httpHead(connection, httpRequest('PUT', '/session', headers) + text);
    count = next;
  };
  await write(first, count);
  first.close();
  return {
    request: async () => {
      const connection = await Connection.open(target);
      await read(connection);
      await write(connection, count + 1);
      connection.close();
    },
    check: async () => {
      const connection = await Connection.open(target);
      await read(connection);
      connection.close();
    },
    close: () => {},
  };
}

/** Counts the lines that it has read, and sends each back. */
const SHELL = 'n=0; while read line; do n=$((n + 1)); echo $n $line; done';

/** One log-in, and a line at a time to a shell that counts them. */
export async function sshKept(target: Target, ssh: readonly string[]): Promise<Client> {
  const { stdin, stdout } = startChild(sshArguments(target, ssh, SHELL), {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  if (stdin === null || stdout === null) throw new Error('ssh has no pipes');
  const connection = new Connection(stdout, stdin);
  let lines = 0;
  const echo = async (): Promise<void> => {
    lines++;
    let text = '';
    await connection.ask(`line ${lines}\n`, (chunk) => {
      text += chunk.toString('latin1');
      return text.endsWith('\n');
    });
    if (text !== `${lines} line ${lines}\n`)
      throw new Error(`ssh: ${JSON.stringify(text)} for line ${lines}`);
  };
  await echo();
  return { request: echo, check: echo, close: () => connection.close() };
}
