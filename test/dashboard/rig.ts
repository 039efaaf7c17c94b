/** A dashboard in this process, before a node without a VM; and a browser's requests to it. */
import { type IncomingMessage, request } from 'node:http';
import type { TestContext } from 'node:test';
import { NodeClient } from '../../src/cli/client.ts';
import type { Assets } from '../../src/dashboard/assets.ts';
import { type Dashboard, type DashboardOptions, serveDashboard } from '../../src/dashboard/server.ts';
import { type Endpoint, parseEndpoint } from '../../src/endpoint.ts';
import type { NodeStatus } from '../../src/observe/status.ts';

export const TOKEN = 'a-token-of-more-than-thirty-two-characters';
const ASSETS: Assets = { '/': { type: 'text/html; charset=utf-8', bytes: Buffer.from('<p>page') } };

export async function dashboardOf(
  t: TestContext,
  socket: string,
  changes: Partial<DashboardOptions> = {},
): Promise<Dashboard & { port: number }> {
  const look = new NodeClient(socket, 5);
  const dashboard = await serveDashboard({
    listen: parseEndpoint('tcp-listen:127.0.0.1:0'),
    origin: null,
    token: TOKEN,
    node: {
      status: () => look.call<NodeStatus>('GET', '/status'),
      events: (after, signal) => look.events(after, 'follow', signal),
    },
    call: (method, path, body) => new NodeClient(socket, 0).call(method, path, body),
    assets: ASSETS,
    ...changes,
  });
  t.after(() => dashboard.close());
  return { ...dashboard, port: portOf(dashboard.endpoint) };
}

const portOf = (endpoint: Endpoint): number => (endpoint.kind === 'tcp' ? endpoint.port : 0);

export type Asked = { method?: string; headers?: Record<string, string>; body?: string; socketPath?: string };

/** Resolves with the response, whose body is still to come. */
export function open(port: number, path: string, asked: Asked = {}): Promise<IncomingMessage> {
  const { method = 'GET', headers = {}, body, socketPath } = asked;
  const where = socketPath === undefined ? { host: '127.0.0.1', port } : { socketPath };
  return new Promise((resolve, reject) => {
    const sent = request({
      ...where,
      path,
      method,
      agent: false,
      headers: { host: `127.0.0.1:${port}`, authorization: `Bearer ${TOKEN}`, ...headers },
    });
    sent.on('response', resolve);
    sent.on('error', reject);
    sent.end(method === 'GET' ? undefined : body);
  });
}

export type Answer = { status: number; headers: IncomingMessage['headers']; text: string; code: string };

export async function ask(port: number, path: string, asked: Asked = {}): Promise<Answer> {
  const response = await open(port, path, asked);
  let text = '';
  for await (const chunk of response) text += String(chunk);
  const { statusCode: status = 0, headers } = response;
  return { status, headers, text, code: /"code":"(\w+)"/.exec(text)?.[1] ?? '' };
}

export type Message = { name: string; data: Record<string, unknown> };

/** Yields the messages of a feed. */
export async function* messagesOf(response: IncomingMessage): AsyncGenerator<Message> {
  response.setEncoding('utf8');
  let rest = '';
  for await (const chunk of response as AsyncIterable<string>) {
    const parts = (rest + chunk).split('\n\n');
    rest = parts.pop() ?? '';
    for (const part of parts) {
      const [, name, data] = /^event: (\w+)\ndata: (.*)$/s.exec(part) ?? [];
      yield { name, data: JSON.parse(data) as Record<string, unknown> };
    }
  }
}

/** Resolves with the first message that is wanted. */
export async function messageWhere(
  messages: AsyncGenerator<Message>,
  isWanted: (message: Message) => boolean,
): Promise<Message> {
  for (;;) {
    const { value, done } = await messages.next();
    if (done === true) throw new Error('the feed ended');
    if (isWanted(value)) return value;
  }
}
