/** The client of a node's control socket. */
import { type IncomingMessage, request } from 'node:http';
import { ColoError } from '../error.ts';
import type { NodeEvent } from '../observe/status.ts';

/** Far above any response; a socket of another program must not fill the memory. */
const RESPONSE_CHARACTERS_MAX = 16 * 1024 * 1024;

export class NodeClient {
  private readonly socketPath: string;
  private readonly timeoutMs: number;

  /** `timeoutS` 0: no timeout. */
  constructor(socketPath: string, timeoutS: number) {
    this.socketPath = socketPath;
    this.timeoutMs = timeoutS * 1000;
  }

  /** Resolves with the JSON of the response. Rejects with the node's own error, COLO_NODE_TIMEOUT, _UNREACHABLE or _PROTOCOL. */
  async call<T>(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<T> {
    const response = await this.send(method, path, body);
    const text = await readAll(response).catch((error: unknown) => {
      throw this.unreachable(error);
    });
    return parseJson(text, this.socketPath) as T;
  }

  /** Yields the past events whose number is above `after` or, with 'follow', also the next ones until the node stops. */
  async *events(after: number, until: 'now' | 'follow'): AsyncGenerator<NodeEvent> {
    const response = await this.send('GET', `/events?after=${after}${until === 'follow' ? '&follow=1' : ''}`);
    response.setEncoding('utf8');
    let rest = '';
    try {
      for await (const chunk of response as AsyncIterable<string>) {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) yield parseJson(line, this.socketPath) as NodeEvent;
      }
    } catch (error) {
      throw error instanceof ColoError ? error : this.unreachable(error);
    }
  }

  private async send(method: string, path: string, body?: unknown): Promise<IncomingMessage> {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const sent = request({ socketPath: this.socketPath, method, path, agent: false }, resolve);
      if (this.timeoutMs > 0) {
        const timer = setTimeout(() => {
          const seconds = this.timeoutMs / 1000;
          const text = `the node at ${this.socketPath} did not reply to ${method} ${path} within ${seconds} s`;
          sent.destroy(
            new ColoError('COLO_NODE_TIMEOUT', `${text}; look at "colo events", or give a longer --timeout`),
          );
        }, this.timeoutMs);
        // The timeout ends with the headers: a follower waits for the next event without a limit.
        sent.on('response', () => clearTimeout(timer));
        sent.on('close', () => clearTimeout(timer));
      }
      sent.on('error', (error) => reject(error instanceof ColoError ? error : this.unreachable(error)));
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
    if (response.statusCode !== undefined && response.statusCode < 300) return response;
    const error = parseJson(await readAll(response), this.socketPath) as {
      code?: unknown;
      message?: unknown;
    };
    if (typeof error.code !== 'string' || !error.code.startsWith('COLO_')) throw notANode(this.socketPath);
    throw new ColoError(error.code as `COLO_${string}`, String(error.message));
  }

  private unreachable(error: unknown): ColoError {
    const { code, message } = error as NodeJS.ErrnoException;
    const start = `start it with "colo node -c FILE.yaml"`;
    const text =
      code === 'ENOENT' || code === 'ECONNREFUSED'
        ? `no node runs at ${this.socketPath}; ${start}, or name another with -c or --socket`
        : code === 'EACCES'
          ? `this user may not talk to the node at ${this.socketPath}; run as the user who started it`
          : code === 'ECONNRESET'
            ? `the node at ${this.socketPath} closed the connection; ${start}`
            : `cannot talk to the node at ${this.socketPath}: ${message}; ${start}`;
    return new ColoError('COLO_NODE_UNREACHABLE', text, { cause: error });
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  for await (const chunk of response as AsyncIterable<string>) {
    text += chunk;
    if (text.length > RESPONSE_CHARACTERS_MAX) throw new Error('the response is too large');
  }
  return text;
}

function parseJson(text: string, socketPath: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw notANode(socketPath);
  }
}

const notANode = (socketPath: string): ColoError =>
  new ColoError(
    'COLO_NODE_PROTOCOL',
    `the process at ${socketPath} is not a colo node; check -c or --socket`,
  );
