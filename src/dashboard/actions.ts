/** What the page can ask the node to do: the requests of its control socket, for which the page asks back first. */
import { isAbsolute } from 'node:path';
import { z } from 'zod';
import { DashboardError } from './refusal.ts';

/** One call to the node's control socket; resolves with its reply, and rejects with its error. */
export type CallNode = (method: 'POST' | 'DELETE', path: string, body?: unknown) => Promise<unknown>;

/** A first copy takes minutes, and meanwhile a failover must be possible. */
const RUNNING_MAX = 4;

const nothing = z.strictObject({});
const capture = z.strictObject({
  path: z.string().max(4096).refine(isAbsolute, 'give a path from the root, as in /tmp/a.pcapng'),
  bytesMax: z.int().min(1).optional(),
});

type Action = { method: 'POST' | 'DELETE'; path: string; body: z.ZodType };

const ACTIONS: Readonly<Record<string, Action>> = {
  checkpoint: { method: 'POST', path: '/checkpoint', body: nothing },
  failover: { method: 'POST', path: '/failover', body: nothing },
  protect: { method: 'POST', path: '/protect', body: nothing },
  stop: { method: 'POST', path: '/stop', body: nothing },
  'capture-start': { method: 'POST', path: '/capture', body: capture },
  'capture-stop': { method: 'DELETE', path: '/capture', body: nothing },
};

export class Actions {
  private readonly call: CallNode;
  private running = 0;

  constructor(call: CallNode) {
    this.call = call;
  }

  /** Resolves with the node's reply. Rejects with COLO_DASHBOARD_REQUEST, COLO_DASHBOARD_BUSY or the node's error. */
  async run(name: string, text: string): Promise<unknown> {
    if (!Object.hasOwn(ACTIONS, name)) {
      const known = Object.keys(ACTIONS).join(', ');
      throw new DashboardError(404, 'COLO_DASHBOARD_REQUEST', `there is no such action; known: ${known}`);
    }
    const { method, path, body } = ACTIONS[name];
    const given = parse(body, text);
    if (this.running >= RUNNING_MAX)
      throw new DashboardError(
        429,
        'COLO_DASHBOARD_BUSY',
        `${RUNNING_MAX} actions are under way; wait for one of them, or use the command line`,
      );
    this.running++;
    try {
      return await this.call(method, path, body === nothing ? undefined : given);
    } finally {
      this.running--;
    }
  }
}

function parse(body: z.ZodType, text: string): unknown {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new DashboardError(400, 'COLO_DASHBOARD_REQUEST', 'the request is not JSON');
  }
  const parsed = body.safeParse(value);
  if (parsed.success) return parsed.data;
  const [{ path, message }] = parsed.error.issues;
  const where = path.length === 0 ? '' : `${path.join('.')}: `;
  throw new DashboardError(400, 'COLO_DASHBOARD_REQUEST', `the request is wrong: ${where}${message}`);
}
