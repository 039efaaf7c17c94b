/** The client of a node's control socket. */
import { type IncomingMessage, request } from 'node:http';
import { ColoError } from '../error.ts';
import { deadline } from '../io/deadline.ts';
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

  /**
   * Resolves with the JSON object of the response. Rejects with the node's own error, COLO_NODE_TIMEOUT, _UNREACHABLE or
   * _PROTOCOL.
   */
  async call<T>(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<T> {
    const response = await this.send(method, path, 'whole response', body);
    return parseObject(await this.readAll(response), this.socketPath) as T;
  }

  /**
   * Yields the past events whose number is above `after` or, with 'follow', also the next ones until the node stops or `signal`
   * aborts.
   */
  async *events(after: number, until: 'now' | 'follow', signal?: AbortSignal): AsyncGenerator<NodeEvent> {
    const follows = until === 'follow';
    const path = `/events?after=${after}${follows ? '&follow=1' : ''}`;
    const response = await this.send('GET', path, follows ? 'headers' : 'whole response');
    response.setEncoding('utf8');
    signal?.addEventListener('abort', () => response.destroy());
    let rest = '';
    try {
      for await (const chunk of response as AsyncIterable<string>) {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop() ?? '';
        if (rest.length > RESPONSE_CHARACTERS_MAX) throw notANode(this.socketPath);
        for (const line of lines) yield parseObject(line, this.socketPath) as NodeEvent;
      }
      if (rest !== '') throw notANode(this.socketPath);
    } catch (error) {
      throw this.unreachable(error);
    }
  }

  /** `timed` is what has to be there before the timeout: a follower waits for the next event without a limit. */
  private async send(
    method: string,
    path: string,
    timed: 'headers' | 'whole response',
    body?: unknown,
  ): Promise<IncomingMessage> {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const sent = request({ socketPath: this.socketPath, method, path, agent: false });
      let received: IncomingMessage | null = null;
      if (this.timeoutMs > 0) {
        const replied = deadline(this.timeoutMs, () => {
          const seconds = this.timeoutMs / 1000;
          const text = `the node at ${this.socketPath} did not reply to ${method} ${path} within ${seconds} s`;
          (received ?? sent).destroy(
            new ColoError('COLO_NODE_TIMEOUT', `${text}; look at "colo events", or give a longer --timeout`),
          );
        });
        sent.on('response', ({ statusCode = 0 }) => {
          if (timed === 'headers' && statusCode < 300) replied();
        });
        sent.on('close', replied);
      }
      sent.on('response', (message: IncomingMessage) => {
        received = message;
        resolve(message);
      });
      sent.on('error', (error) => reject(this.unreachable(error)));
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
    if (response.statusCode !== undefined && response.statusCode < 300) return response;
    const { code, message } = parseObject(await this.readAll(response), this.socketPath);
    if (typeof code !== 'string' || !code.startsWith('COLO_')) throw notANode(this.socketPath);
    throw new ColoError(code as `COLO_${string}`, String(message));
  }

  private async readAll(response: IncomingMessage): Promise<string> {
    response.setEncoding('utf8');
    let text = '';
    try {
      for await (const chunk of response as AsyncIterable<string>) {
        text += chunk;
        if (text.length > RESPONSE_CHARACTERS_MAX) throw notANode(this.socketPath);
      }
    } catch (error) {
      throw this.unreachable(error);
    }
    return text;
  }

  private unreachable(error: unknown): ColoError {
    if (error instanceof ColoError) return error;
    const { code, message } = error as NodeJS.ErrnoException;
    // Node's parser of HTTP.
    if (code?.startsWith('HPE_')) return notANode(this.socketPath);
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

function parseObject(text: string, socketPath: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw notANode(socketPath);
  }
  if (typeof value !== 'object' || value === null) throw notANode(socketPath);
  return value as Record<string, unknown>;
}

const notANode = (socketPath: string): ColoError =>
  new ColoError(
    'COLO_NODE_PROTOCOL',
    `the process at ${socketPath} is not a colo node; check -c or --socket`,
  );
