/** The other end of a node's control socket. */
import { type IncomingMessage, request } from 'node:http';
import { ColoError } from '../error.ts';
import type { NodeEvent } from '../observe/status.ts';

/** Far above any answer; a socket that belongs to something else must not fill the memory. */
const ANSWER_CHARACTERS_MAX = 16 * 1024 * 1024;

export class NodeClient {
  readonly #socketPath: string;
  readonly #timeoutMs: number;

  /** `timeoutS` 0 waits for ever. */
  constructor(socketPath: string, timeoutS: number) {
    this.#socketPath = socketPath;
    this.#timeoutMs = timeoutS * 1000;
  }

  /** The JSON of the answer. The node's own errors come out as they are. */
  async call<T>(method: 'GET' | 'POST' | 'DELETE', path: string, body?: unknown): Promise<T> {
    const response = await this.#send(method, path, body);
    const text = await readAll(response).catch((error: unknown) => {
      throw this.#unreachable(error);
    });
    return parseJson(text, this.#socketPath) as T;
  }

  /** Events after `after`, the past ones and, with `follow`, those to come. Ends when the node stops. */
  async *events(after: number, follow: boolean): AsyncGenerator<NodeEvent> {
    const response = await this.#send('GET', `/events?after=${after}${follow ? '&follow=1' : ''}`);
    response.setEncoding('utf8');
    let rest = '';
    try {
      for await (const chunk of response as AsyncIterable<string>) {
        const lines = (rest + chunk).split('\n');
        rest = lines.pop() ?? '';
        for (const line of lines) yield parseJson(line, this.#socketPath) as NodeEvent;
      }
    } catch (error) {
      throw error instanceof ColoError ? error : this.#unreachable(error);
    }
  }

  async #send(method: string, path: string, body?: unknown): Promise<IncomingMessage> {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const sent = request({ socketPath: this.#socketPath, method, path, agent: false }, resolve);
      if (this.#timeoutMs > 0) {
        const timer = setTimeout(() => {
          const seconds = this.#timeoutMs / 1000;
          const text = `the node at ${this.#socketPath} did not answer ${method} ${path} within ${seconds} s`;
          sent.destroy(
            new ColoError('COLO_NODE_TIMEOUT', `${text}; look at "colo events", or give a longer --timeout`),
          );
        }, this.#timeoutMs);
        // Until the answer begins; then a follower may wait as long as it takes for the next event.
        sent.on('response', () => clearTimeout(timer));
        sent.on('close', () => clearTimeout(timer));
      }
      sent.on('error', (error) => reject(error instanceof ColoError ? error : this.#unreachable(error)));
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
    if (response.statusCode !== undefined && response.statusCode < 300) return response;
    const error = parseJson(await readAll(response), this.#socketPath) as {
      code?: unknown;
      message?: unknown;
    };
    if (typeof error.code !== 'string' || !error.code.startsWith('COLO_')) throw notANode(this.#socketPath);
    throw new ColoError(error.code as `COLO_${string}`, String(error.message));
  }

  #unreachable(error: unknown): ColoError {
    const { code, message } = error as NodeJS.ErrnoException;
    const start = `start it with "colo node -c FILE.yaml"`;
    const text =
      code === 'ENOENT' || code === 'ECONNREFUSED'
        ? `no node runs at ${this.#socketPath}; ${start}, or name another with -c or --socket`
        : code === 'EACCES'
          ? `this user may not talk to the node at ${this.#socketPath}; run as the user who started it`
          : code === 'ECONNRESET'
            ? `the node at ${this.#socketPath} went away; ${start}`
            : `cannot talk to the node at ${this.#socketPath}: ${message}; ${start}`;
    return new ColoError('COLO_NODE_UNREACHABLE', text, { cause: error });
  }
}

async function readAll(response: IncomingMessage): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  for await (const chunk of response as AsyncIterable<string>) {
    text += chunk;
    if (text.length > ANSWER_CHARACTERS_MAX) throw new Error('the answer is too large');
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
  new ColoError('COLO_NODE_PROTOCOL', `what answers at ${socketPath} is no colo node; check -c or --socket`);
